"""The layers downstream of a world's activations: they read factors and add effects to the residual stream.

y = x + sum_i gate_i effect_i + sum_(i,j) gate_i gate_j pair_effect_ij
read_i = reader_i . (x - offset), or the length of such coordinates where factor i is a manifold
gate_i = read_i (additive) | softplus(sharpness (read_i - threshold)) / sharpness (smooth) | max(0, read_i -
         threshold) (hard)
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import relu, softplus

from unbraid.sources.world.geometry import orthonormal, random_units
from unbraid.sources.world.manifolds import Manifolds

Gate = Literal["additive", "smooth", "hard"]


@dataclass(frozen=True, eq=False)
class Downstream:
    """The downstream map of a world; the equations are in the docstring of this module."""

    offset: Float[Tensor, " d_in"]
    readers: Float[Tensor, "factors d_in"]
    """1 along the factor's direction, which they are where the spectrum is flat."""
    manifolds: Manifolds
    effects: Float[Tensor, "factors d_in"]
    """Zero for factors without effect."""
    pairs: Int[Tensor, "pairs 2"]
    pair_effects: Float[Tensor, "pairs d_in"]
    gate: Gate
    threshold: float
    sharpness: float

    def __call__(self, acts: Float[Tensor, "*fold d_in"]) -> Float[Tensor, "*fold d_in"]:
        gates = self.gates(acts)
        joint = gates[..., self.pairs[:, 0]] * gates[..., self.pairs[:, 1]]
        return acts + gates @ self.effects.to(acts) + joint @ self.pair_effects.to(acts)

    def gates(self, acts: Float[Tensor, "*fold d_in"]) -> Float[Tensor, "*fold factors"]:
        """Return the value of each factor's gate."""
        read = self._read(acts - self.offset.to(acts))
        match self.gate:
            case "additive":
                return read
            case "smooth":
                return softplus(read - self.threshold, beta=self.sharpness)
            case "hard":
                return relu(read - self.threshold)

    def readouts(self, acts: Float[Tensor, "*fold d_in"]) -> Float[Tensor, "*fold factors"]:
        """Return the norm of each factor's own contribution: gate_i |effect_i|."""
        return self.gates(acts) * torch.linalg.vector_norm(self.effects, dim=1).to(acts)

    def _read(self, centred: Float[Tensor, "*fold d_in"]) -> Float[Tensor, "*fold factors"]:
        read = centred @ self.readers.to(centred).T
        if not len(self.manifolds):
            return read
        first, after = self.manifolds.first, self.manifolds.first + len(self.manifolds)
        return torch.cat([read[..., :first], self.manifolds.readouts(centred), read[..., after:]], dim=-1)


def in_subspace(
    count: int, d_in: int, dimensions: int, subspace: torch.Generator, rng: torch.Generator
) -> Float[Tensor, "count d_in"]:
    """Return random unit vectors in one random subspace; 0 dimensions: in the whole space."""
    if dimensions in (0, d_in):
        return random_units(count, d_in, rng)
    return random_units(count, dimensions, rng) @ orthonormal(random_units(dimensions, d_in, subspace))


def check_effects(effective: int, interactions: int, effect_dimensions: int, d_in: int) -> None:
    """Raise ValueError when there are fewer effects than pairs need, or fewer dimensions than effects span."""
    if 2 * interactions > effective:
        raise ValueError(
            f"{interactions} pairs need {2 * interactions} factors with an effect, and there are {effective}; lower "
            "interactions or raise effective"
        )
    if effect_dimensions > d_in:
        raise ValueError(f"effect_dimensions is {effect_dimensions}, more than the {d_in} of d_in there are")
