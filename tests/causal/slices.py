"""Small slices whose effects are known."""

from collections.abc import Callable

import torch
from torch import Tensor

from unbraid.dictionary.initialisation import no_progress
from unbraid.sources.base import Contexts
from unbraid.steering.base import FitContext
from unbraid.steering.model_slice import Slice
from unbraid.steering.push_length import FixedRadius


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def around(slice_of: Callable[[Tensor], Tensor], d_in: int, dtype: torch.dtype = torch.float64) -> Contexts:
    """One token, and a slice given as a function of the distance from it."""
    acts = torch.zeros(1, 1, d_in, dtype=dtype)
    acts[..., 0] = 1
    downstream = lambda moved: slice_of(moved - acts)
    return Contexts(acts, torch.ones(1, 1, dtype=torch.bool), downstream(acts), downstream)


def beside_skip(effect: Callable[[Tensor], Tensor], d_in: int, dtype: torch.dtype = torch.float64) -> Slice:
    """A residual slice with this effect."""
    return Slice.of(around(lambda x: x + effect(x), d_in, dtype))


def fitting(after: Slice, radius: float = 1.0, seed: int = 0) -> FitContext:
    return FitContext(after, FixedRadius(radius), rng(seed), no_progress)


def attending(seq: int = 2, pos: int = 5, d_in: int = 8) -> Contexts:
    """Causal attention and a residual stream."""
    weight = torch.randn(3, d_in, d_in, dtype=torch.float64, generator=rng(4)) / d_in**0.5

    def attend(acts: Tensor) -> Tensor:
        query, key, value = (acts @ w for w in weight)
        return acts + torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)

    acts = torch.randn(seq, pos, d_in, dtype=torch.float64, generator=rng(5))
    return Contexts(acts, torch.ones(seq, pos, dtype=torch.bool), attend(acts), attend)


def units(count: int, d_in: int, seed: int) -> Tensor:
    drawn = torch.randn(count, d_in, dtype=torch.float64, generator=rng(seed))
    return drawn / drawn.norm(dim=1, keepdim=True)


def recovered(found: Tensor, true: Tensor, above: float) -> float:
    """Share of true directions with a found one of at least this |cosine|."""
    found = found / found.norm(dim=1, keepdim=True)
    return float(((true @ found.T.to(true)).abs().amax(1) > above).double().mean())
