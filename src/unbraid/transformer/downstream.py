"""The layers after a site, as a function: a model's own blocks, replayed with the very arguments (masks, rotary angles)
they got in the base forward pass."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unbraid.transformer.blocks import block_at
from unbraid.transformer.hooks import Stop, forward, hidden_of, split


@dataclass(frozen=True, eq=False)
class Tail:
    """Consecutive blocks with the arguments they got in one forward pass: a function of the activations alone."""

    calls: tuple[tuple[nn.Module, tuple[Any, ...], dict[str, Any]], ...]
    sequences: int
    dtype: torch.dtype

    def __call__(self, acts: Float[Tensor, "*fold seq pos d_in"]) -> Float[Tensor, "*fold seq pos d_out"]:
        copies = acts.shape[:-3].numel()
        hidden = acts.reshape(-1, *acts.shape[-2:]).to(self.dtype)
        for block, args, kwargs in self.calls:
            hidden = hidden_of(block(hidden, *self._repeat(args, copies), **self._repeat(kwargs, copies)))
        return hidden.reshape(*acts.shape[:-1], hidden.shape[-1]).to(acts.dtype)

    def _repeat(self, value: Any, copies: int) -> Any:
        """Arguments with one entry a sequence (masks, positions), repeated for each folded copy."""
        if isinstance(value, Tensor) and value.ndim >= 2 and value.shape[0] == self.sequences:
            return value.repeat(copies, *[1] * (value.ndim - 1))
        if isinstance(value, tuple | list):
            return type(value)(self._repeat(item, copies) for item in value)
        if isinstance(value, dict):
            return {key: self._repeat(item, copies) for key, item in value.items()}
        return value


@torch.no_grad()
def capture(
    model: nn.Module, first: int, last: int, ids: Int[Tensor, "seq pos"], attention: Bool[Tensor, "seq pos"]
) -> tuple[Float[Tensor, "seq pos d_in"], Float[Tensor, "seq pos d_out"], Tail]:
    """What enters block `first`, what leaves block `last`, and the map between them, from one forward pass."""
    calls: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = []
    entered: list[Tensor] = []

    def before(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, rest, named = split(block, args, kwargs)
        entered.append(hidden)
        calls.append((block, rest, named))

    def after(_: nn.Module, __: Any, output: Any) -> None:
        entered.append(hidden_of(output))
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
    return entered[0], entered[-1], Tail(tuple(calls), ids.shape[0], entered[0].dtype)


def check_replay(acts: Tensor, base: Tensor, tail: Tail) -> None:
    """Raise ValueError when the blocks, run on their own, do not give what the model gave."""
    with torch.no_grad():
        twice = tail(torch.stack([acts, acts]))
    error = float((twice - base).abs().max())
    if not error <= 1e-3 * float(base.abs().max()):
        raise ValueError(
            f"the blocks of this model give another output on their own (off by {error:.3g}): something happens "
            "between them, so its downstream map cannot be had; use terms that need none"
        )
