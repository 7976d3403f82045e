"""The layers downstream of a site as a function of the activations there.

The model's own blocks are replayed with the arguments (masks, rotary angles) of the base forward pass.
"""

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unbraid import seeding
from unbraid.sources.language_model.blocks import block_at, blocks
from unbraid.sources.language_model.hooks import HookPoint, Stop, call_frozen, forward, hidden_of, read, split
from unbraid.sources.language_model.probe import FAILURES, in_one_line, random_tokens

Path = tuple[int | str, ...]
"""Where an argument is: the number of the call, then its place among the arguments, then its keys inside."""
Call = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]
LAYOUTS: WeakKeyDictionary[nn.Module, dict[tuple[int, int], Mapping[Path, int]]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class DownstreamBlocks:
    """Consecutive blocks with the arguments they got in one forward pass: a function of the activations alone."""

    calls: tuple[Call, ...]
    sequences: int
    dtype: torch.dtype
    layout: Mapping[Path, int]
    """The dimension of each argument that counts sequences; -1 where none does."""

    def __call__(self, acts: Float[Tensor, "*fold seq pos d_in"]) -> Float[Tensor, "*fold seq pos d_out"]:
        copies = acts.shape[:-3].numel()
        hidden = acts.reshape(-1, *acts.shape[-2:]).to(self.dtype)
        shared: dict[int, Any] = {}  # what blocks write for later ones (keys and values, in Gemma 4) is new every time
        for number, (block, args, kwargs) in enumerate(self.calls):
            args = self._repeat(args, copies, (number,), shared)
            hidden = hidden_of(call_frozen(block, hidden, *args, **self._repeat(kwargs, copies, (number,), shared)))
        return hidden.reshape(*acts.shape[:-1], hidden.shape[-1]).to(acts.dtype)

    def _repeat(self, value: Any, copies: int, path: Path, shared: dict[int, Any]) -> Any:
        """Return an argument with its entries per sequence (masks, positions, ALiBi) repeated for each folded copy."""
        if isinstance(value, Tensor):
            batched = value.ndim >= 2 and value.shape[0] == self.sequences
            along = self.layout.get(path, 0 if batched else -1)
            return value if along < 0 else value.repeat(*(copies if d == along else 1 for d in range(value.ndim)))
        if isinstance(value, tuple):
            items = [self._repeat(item, copies, (*path, i), shared) for i, item in enumerate(value)]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, list):
            return [self._repeat(item, copies, (*path, i), shared) for i, item in enumerate(value)]
        if isinstance(value, MutableMapping):
            if id(value) not in shared:
                shared[id(value)] = copied = copy.copy(value)
                for key, item in value.items():
                    copied[key] = self._repeat(item, copies, (*path, key), shared)
            return shared[id(value)]
        return value


@torch.no_grad()
def capture(
    model: nn.Module, first: int, last: int, ids: Int[Tensor, "seq pos"], attention: Bool[Tensor, "seq pos"]
) -> tuple[Float[Tensor, "seq pos d_in"], Float[Tensor, "seq pos d_out"], DownstreamBlocks]:
    """Return the input of block `first`, the output of block `last`, and the map between them; run one forward pass."""
    known = LAYOUTS.setdefault(model, {})
    if (first, last) not in known:
        known[first, last] = layout(model, first, last)
    entered, left, calls = called(model, first, last, ids, attention)
    return entered, left, DownstreamBlocks(calls, ids.shape[0], entered.dtype, known[first, last])


@torch.no_grad()
def called(
    model: nn.Module, first: int, last: int, ids: Int[Tensor, "seq pos"], attention: Bool[Tensor, "seq pos"]
) -> tuple[Tensor, Tensor, tuple[Call, ...]]:
    """Return the input of block `first`, the output of block `last`, and the calls of blocks `first` to `last`."""
    calls: list[Call] = []
    passed: list[Tensor] = []
    seen: dict[int, Any] = {}

    def before(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, rest, named = split(block, args, kwargs)
        passed.append(hidden)
        calls.append(
            (block, tuple(as_it_was(a, seen) for a in rest), {k: as_it_was(v, seen) for k, v in named.items()})
        )

    def after(_: nn.Module, __: Any, output: Any) -> None:
        passed.append(hidden_of(output))
        raise Stop

    modules = [block_at(model, layer)[1] for layer in range(first, last + 1)]
    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in modules]
    handles.append(modules[-1].register_forward_hook(after))
    try:
        with suppress(Stop):
            forward(model, ids, attention)
    finally:
        for handle in handles:
            handle.remove()
    return passed[0], passed[-1], tuple(calls)


def as_it_was(value: Any, seen: dict[int, Any]) -> Any:
    """Return an argument as the first block of the map got it, without what blocks write into it later."""
    if not isinstance(value, MutableMapping):
        return value
    if id(value) not in seen:
        seen[id(value)] = copy.copy(value)
    return seen[id(value)]


@torch.no_grad()
def layout(model: nn.Module, first: int, last: int) -> Mapping[Path, int]:
    """Return the dimension of each argument that counts sequences, found by running two of them and three."""
    shapes = []
    for sequences in (2, 3):
        ids, attention = random_tokens(model, sequences)
        attention[0, -2:] = False  # so that there are masks
        calls = called(model, first, last, ids, attention)[2]
        shapes.append(
            {p: t.shape for n, (_, args, kw) in enumerate(calls) for p, t in (*leaves(args, (n,)), *leaves(kw, (n,)))}
        )
    two, three = shapes
    # An argument with one entry for all sequences may have one for each when there is more padding: that is seen then.
    known = [path for path in two.keys() & three.keys() if two[path][:1] != (1,) or three[path][:1] != (1,)]
    return {path: differing(two[path], three[path]) for path in known}


def leaves(value: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    """Yield the tensors in an argument, each with its path."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from leaves(item, (*path, i))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, (*path, key))


def differing(a: torch.Size, b: torch.Size) -> int:
    """Return the first dimension that two shapes differ in; -1 when they are equal."""
    return next((d for d, (m, n) in enumerate(zip(a, b, strict=False)) if m != n), -1)


def span(model: nn.Module, layer: int, site: str, last: int) -> tuple[int, int]:
    """Return the first and last block after a site, up to block `last` (-1: the model's last).

    Raises ValueError for a site that more passes by, a block that does not exist, or nothing in between.
    """
    if site not in ("resid_pre", "resid_post"):
        raise ValueError(
            f"{site} has no downstream map: the residual stream carries more past it; "
            "use --source.site resid_post or resid_pre"
        )
    last = last if last >= 0 else len(blocks(model)[1]) + last
    block_at(model, last)
    first = layer + (site == "resid_post")
    if first > last:
        raise ValueError(
            f"nothing lies between {site} of block {layer} and the end of block {last}; "
            "choose an earlier --source.layer or a later --source.downstream-layer"
        )
    return first, last


# ---- does the map equal the model? --------------------------------------------------------------------------------

NO_MAP = "so its downstream map cannot be had; use terms that need none"
TOLERANCE = 1e-3
"""The error allowed, relative to the largest activation; four roundings are allowed where they are more."""


@torch.no_grad()
def check_downstream(
    model: nn.Module, first: int, last: int, ids: Int[Tensor, "seq pos"], attention: Bool[Tensor, "seq pos"]
) -> None:
    """Raise ValueError when blocks `first` to `last` on their own do not give what the model gives.

    They are tried on the model's own activations, and on two copies at once of which one has noise added.
    """
    try:
        acts, base, downstream = capture(model, first, last, ids, attention)
        again = downstream(acts)
        noise = torch.randn(acts.shape, generator=seeding.stream(0, "put")).to(acts)
        put = torch.stack([acts, acts + 0.5 * noise * acts.float().square().mean().sqrt().to(acts)])
        ours = downstream(put)
        theirs = put_through(model, first, last, put, ids, attention)
    except FAILURES as error:
        raise ValueError(
            f"the blocks of this model cannot be run on their own ({in_one_line(error)}), {NO_MAP}"
        ) from error
    check_replay(again, base)
    check_replay(ours, theirs)


def put_through(
    model: nn.Module,
    first: int,
    last: int,
    put: Tensor,
    ids: Int[Tensor, "seq pos"],
    attention: Bool[Tensor, "seq pos"],
) -> Float[Tensor, "fold seq pos d_out"]:
    """Return the output of block `last` when the model itself runs with these activations entering block `first`."""
    copies = len(put)
    start = HookPoint(block_at(model, first)[1], "", of_input=True)
    with start.hooked(lambda _: put.flatten(0, 1)):
        left = read(model, HookPoint(block_at(model, last)[1], ""), ids.repeat(copies, 1), attention.repeat(copies, 1))
    return left.view(*put.shape[:-1], left.shape[-1])


def check_replay(ours: Tensor, theirs: Tensor) -> None:
    """Raise ValueError when the blocks, run on their own, do not give what the model gave."""
    error = float((ours - theirs).abs().max()) if ours.shape == theirs.shape else float("nan")
    allowed = max(TOLERANCE, 4 * torch.finfo(theirs.dtype).eps) * float(theirs.abs().max())
    if not error <= allowed:
        raise ValueError(
            f"the blocks of this model give another output on their own (off by {error:.3g}): something happens "
            f"between them, {NO_MAP}"
        )
