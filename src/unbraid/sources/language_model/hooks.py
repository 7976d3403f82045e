"""Forward hooks: reading and replacing activations at one place of a model, which is never changed.

No folding, no wrapping, no weights touched. Hooks are removed, and a model in training mode or with parameters that
take gradients is run as if it had neither and is left as it was.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from unbraid.sources.language_model.blocks import text_config


class Stop(Exception):
    """The signal that ends a forward pass once everything needed has been read."""


@dataclass(frozen=True)
class HookPoint:
    """One place in a model: a module's output, or its input."""

    module: nn.Module
    name: str
    """Its Hugging Face path: model.layers.3"""
    of_input: bool = False
    flat: bool = False
    """True when activations there have sequences laid end to end [seq * pos, d_in], as in OPT's MLP."""
    block: nn.Module | None = None
    """The block it lies in; where `flat`, its input shows how many sequences there are."""

    @contextmanager
    def hooked(self, on_activations: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """Call `on_activations` with the activations while open; they are replaced by its return value, unless None."""
        entered: list[torch.Size] = []

        def enter(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            entered[:] = [split(block, args, kwargs)[0].shape]

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden, rest, named = split(module, args, kwargs)
            new = on_activations(hidden)
            return None if new is None else ((new.clone(), *rest), named)

        def after(_: nn.Module, __: Any, output: Any) -> Any:
            found = hidden_of(output)
            new = on_activations(found.view(entered[0]) if self.flat else found)
            if new is None:
                return None
            new = new.view(found.shape).clone()  # Falcon adds to it in place
            return type(output)((new, *output[1:])) if isinstance(output, tuple | list) else new

        handles = []
        if self.flat and self.block is not None:
            handles.append(self.block.register_forward_pre_hook(enter, with_kwargs=True))
        if self.of_input:
            handles.append(self.module.register_forward_pre_hook(before, with_kwargs=True))
        else:
            handles.append(self.module.register_forward_hook(after))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def split(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """Return (hidden states, other positional arguments, other keyword arguments) of a call to a block."""
    if args:
        return args[0], args[1:], dict(kwargs)
    name = "hidden_states" if "hidden_states" in kwargs else next(iter(inspect.signature(module.forward).parameters))
    return kwargs[name], (), {k: v for k, v in kwargs.items() if k != name}


def hidden_of(output: Any) -> Any:
    """Return the activations in the output of a block or a sublayer: its first item, where it is a tuple."""
    return output[0] if isinstance(output, tuple | list) and output else output


def forward(model: nn.Module, ids: Int[Tensor, "seq pos"], attention: Bool[Tensor, "seq pos"], **options: Any) -> Any:
    """Run the model's own forward pass.

    Positions count from the first token read, wherever the padding is. A model that transformers does not know is
    given the arguments that it names, at least the ids.
    """
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": attention.long(), "use_cache": False, **options}
    if not bool(attention[:, 0].all()):
        inputs["position_ids"] = (attention.long().cumsum(1) - 1).clamp(min=0)
    if text_config(model) is not None:
        return call_frozen(model, **inputs)
    first, *others = inspect.signature(model.forward).parameters
    return call_frozen(model, ids, **{name: value for name, value in inputs.items() if name in others})


def call_frozen(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a module in evaluation mode, with parameters that are constants to autograd."""
    learned = {name: parameter.detach() for name, parameter in module.named_parameters() if parameter.requires_grad}
    with evaluating(module):
        if learned and torch.is_grad_enabled():
            return functional_call(module, learned, args, kwargs)
        return module(*args, **kwargs)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Keep all modules out of training mode while open, then restore each. A model's own `train` is not called."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def logits_of(output: Any) -> Tensor:
    """Return the logits in what a model's forward pass gives."""
    if isinstance(output, Mapping):
        return output["logits"]
    return output.logits if hasattr(output, "logits") else hidden_of(output)


def read(
    model: nn.Module,
    place: HookPoint,
    ids: Int[Tensor, "seq pos"],
    attention: Bool[Tensor, "seq pos"],
    **options: Any,
) -> Float[Tensor, "seq pos d_in"]:
    """Return the activations at one place; the forward pass ends there."""
    return read_all(model, [place], ids, attention, **options)[0]


@torch.no_grad()
def read_all(
    model: nn.Module,
    places: Sequence[HookPoint],
    ids: Int[Tensor, "seq pos"],
    attention: Bool[Tensor, "seq pos"],
    **options: Any,
) -> list[Float[Tensor, "seq pos d_in"]]:
    """Return the activations at several places, in their order; the forward pass ends once all are read."""
    found: dict[int, Tensor] = {}

    def keep(number: int, hidden: Tensor) -> None:
        # Where a later block adds to it in place, and the pass goes on, it would be changed.
        found[number] = hidden if len(places) == 1 else hidden.clone()
        if len(found) == len(places):
            raise Stop

    with ExitStack() as stack:
        stack.enter_context(suppress(Stop))
        for number, place in enumerate(places):
            stack.enter_context(place.hooked(partial(keep, number)))
        forward(model, ids, attention, **options)
    return [found[number] for number in range(len(places))]
