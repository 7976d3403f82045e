"""A test of one block of a model, on one batch of random tokens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from unbraid import seeding
from unbraid.sources.language_model.blocks import blocks, text_config, vocabulary_of
from unbraid.sources.language_model.hooks import HookPoint, forward, hidden_of, logits_of, split

SEQUENCES, POSITIONS = 2, 9


class Unproven(Exception):
    """The error of a property that does not hold for a model, with the reason as the end of a sentence."""


FAILURES = (ValueError, RuntimeError, LookupError, AttributeError, TypeError, AssertionError)
"""Errors that a model's own code raises for a use that it was not made for."""


def in_one_line(error: Exception) -> str:
    """Return an error of a model's own code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def random_tokens(
    model: nn.Module, sequences: int = SEQUENCES, positions: int = POSITIONS
) -> tuple[Int[Tensor, "seq pos"], Bool[Tensor, "seq pos"]]:
    """Return random ids and the attention mask of whole sequences, on the model's device."""
    device = next(model.parameters()).device
    ids = torch.randint(vocabulary_of(model), (sequences, positions), generator=seeding.stream(0, "random tokens"))
    return ids.to(device), torch.ones_like(ids, dtype=torch.bool, device=device)


@dataclass(eq=False)
class Seen:
    """The inputs and outputs of a block in one forward pass, each time it ran."""

    came: list[Any] = field(default_factory=list)
    """The outputs of the block before."""
    entered: list[Any] = field(default_factory=list)
    left: list[Any] = field(default_factory=list)
    handed: list[Any] = field(default_factory=list)
    """The inputs of the next block."""
    gave: dict[str, list[Tensor]] = field(default_factory=dict)
    """Outputs of modules inside that have the size of the stream, by their path in the block."""
    logits: Any = None
    hidden_states: Sequence[Any] = ()

    def once(self) -> dict[str, Tensor]:
        """Return the outputs of those modules that ran once."""
        return {name: found[0] for name, found in self.gave.items() if len(found) == 1}


@dataclass(eq=False)
class Probe:
    """A block of a model, tried on random tokens."""

    model: nn.Module
    layer: int

    @cached_property
    def blocks(self) -> tuple[str, list[nn.Module]]:
        path, found = blocks(self.model)
        return path, list(found)

    @property
    def block(self) -> nn.Module:
        return self.blocks[1][self.layer]

    @property
    def path(self) -> str:
        return f"{self.blocks[0]}.{self.layer}"

    @cached_property
    def clean(self) -> Seen:
        return self.run(states=True)

    @torch.no_grad()
    def run(self, place: HookPoint | None = None, put: Tensor | None = None, *, states: bool = False) -> Seen:
        """Run one forward pass, with the activations `put` at `place`."""
        ids, attention = random_tokens(self.model)
        options = {"output_hidden_states": True} if states and text_config(self.model) is not None else {}
        seen = Seen()
        with nullcontext() if place is None else place.hooked(lambda _: put), ExitStack() as stack:
            for handle in self._watched(seen):
                stack.enter_context(handle)
            output = forward(self.model, ids, attention, **options)
        seen.logits = logits_of(output)
        seen.hidden_states = getattr(output, "hidden_states", None) or ()
        return seen

    def _watched(self, seen: Seen) -> Iterator[Any]:
        """Record what passes while open. These hooks come after those that replace activations, so they see the new."""
        around = self.blocks[1]
        yield self.block.register_forward_pre_hook(noting_input(seen.entered), with_kwargs=True)
        yield self.block.register_forward_hook(noting_output(seen.left))
        if self.layer:
            yield around[self.layer - 1].register_forward_hook(noting_output(seen.came))
        if self.layer + 1 < len(around):
            yield around[self.layer + 1].register_forward_pre_hook(noting_input(seen.handed), with_kwargs=True)
        for name, module in self.block.named_modules():
            if name:
                yield module.register_forward_hook(self._noting_inside(seen, name))

    def _noting_inside(self, seen: Seen, name: str) -> Callable[..., None]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            found = hidden_of(output)
            stream = seen.entered[-1] if seen.entered else None
            if not isinstance(found, Tensor) or not isinstance(stream, Tensor) or not found.is_floating_point():
                return
            if found.numel() == stream.numel() and found.shape[-1:] == stream.shape[-1:]:
                seen.gave.setdefault(name, []).append(copied(found))  # what is added in place later must not show

        return note


def noting_input(notes: list[Any]) -> Callable[..., None]:
    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        notes.append(copied(split(module, args, kwargs)[0]))

    return note


def noting_output(notes: list[Any]) -> Callable[..., None]:
    def note(_: nn.Module, __: Any, output: Any) -> None:
        notes.append(copied(hidden_of(output)))

    return note


def copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def rounding(*tensors: Tensor) -> float:
    """Return the relative size of one rounding in the coarsest of these tensors' types."""
    return max(torch.finfo(t.dtype).eps for t in tensors)


ROUNDINGS = 8
"""Roundings by which equal values may differ: sums are taken in another order."""


def is_sum(total: Tensor, addends: Sequence[Tensor]) -> bool:
    """Return whether `addends` sum to `total`, element by element, to rounding; overflowed elements are left out."""
    eps = rounding(total, *addends)
    wide = [addend.double().reshape(total.shape) for addend in addends]
    size = sum((part.abs() for part in wide), total.double().abs())
    off = (total.double() - sum(wide)).abs()
    return bool((off[size.isfinite()] <= ROUNDINGS * eps * size[size.isfinite()]).all())


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors are equal to rounding, by the largest of their elements."""
    if a.shape != b.shape:
        return False
    eps, wide_a, wide_b = rounding(a, b), a.double().nan_to_num(0, 0, 0), b.double().nan_to_num(0, 0, 0)
    return float((wide_a - wide_b).abs().max()) <= ROUNDINGS * eps * float(wide_b.abs().max())
