"""The blocks before a site are left out of a forward pass in which the activations there are replaced anyway.

A block that is skipped hands on what it is given. Whether the logits are then those of the whole pass is tried once for
a model and site, on random tokens with random activations; where they are not (later blocks read keys and values of
earlier ones, or a sublayer's output is replaced, past which the residual stream flows), nothing is skipped.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unbraid import seeding
from unbraid.sources.language_model.blocks import blocks
from unbraid.sources.language_model.hooks import forward, hidden_of, logits_of
from unbraid.sources.language_model.probe import FAILURES, random_tokens
from unbraid.sources.language_model.sites import Site, hook_point

KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[int, Site], int]] = WeakKeyDictionary()
"""By site, how many blocks, from the first, can be skipped."""
PACKED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""By block, whether its output is a tuple of one."""


@contextmanager
def skipped(model: nn.Module, layer: int, site: Site) -> Iterator[None]:
    """Leave out the blocks before a site while open, and the one whose output it is. Use it only where all activations
    there are replaced."""
    known = KNOWN.setdefault(model, {})
    if (layer, site) not in known:
        known[layer, site] = skippable(model, layer, site)
    with passing_on(list(blocks(model)[1])[: known[layer, site]]):
        yield


@contextmanager
def passing_on(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let these blocks hand on what they are given while open."""
    before = [module.__dict__.get("forward") for module in modules]  # some libraries put one there themselves
    arguments = [inspect.signature(module.forward) for module in modules]
    try:
        for module, signature in zip(modules, arguments, strict=True):
            module.forward = handing_on(signature, PACKED.get(module, False))
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = own


def handing_on(signature: inspect.Signature, packed: bool) -> Callable[..., Any]:
    """Return a forward pass that gives its first argument, in a tuple if `packed`."""
    first = next(iter(signature.parameters))

    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs[first]
        return (hidden,) if packed else hidden

    return forward


@torch.no_grad()
def skippable(model: nn.Module, layer: int, site: Site) -> int:
    """Return how many blocks, from the first, make no difference to the logits when the activations at a site are
    replaced."""
    count = {"resid_post": layer + 1, "resid_pre": layer}.get(site, 0)
    if not count:
        return 0
    modules = list(blocks(model)[1])[:count]
    try:
        note_outputs(model, modules)
        whole, partly = replaced(model, layer, site, []), replaced(model, layer, site, modules)
    except FAILURES:
        return 0
    return count if whole.shape == partly.shape and torch.equal(whole, partly) else 0


def note_outputs(model: nn.Module, modules: Sequence[nn.Module]) -> None:
    """Note which blocks give a tuple. Raises ValueError for one that gives more than activations."""

    def after(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, tuple | list) and len(output) > 1:
            raise ValueError("a block gives more than activations")
        PACKED[module] = not isinstance(output, Tensor)

    handles = [module.register_forward_hook(after) for module in modules]
    try:
        forward(model, *random_tokens(model))
    finally:
        for handle in handles:
            handle.remove()


def replaced(model: nn.Module, layer: int, site: Site, modules: Sequence[nn.Module]) -> Tensor:
    """Return the logits with random activations at a site, when these blocks are skipped."""
    draw = lambda hidden: torch.randn(hidden.shape, generator=seeding.stream(0, "skip")).to(hidden)
    with passing_on(modules), hook_point(model, layer, site).hooked(lambda hidden: draw(hidden_of(hidden))):
        return logits_of(forward(model, *random_tokens(model)))
