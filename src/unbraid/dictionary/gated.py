"""Gated: one linear map says which latents are active and, rescaled, how strongly (Rajamanoharan et al. 2024a).

    gate = (x - b_dec) @ W_enc + b_enc
    z    = [gate > 0] * relu(exp(r_mag) * (gate - b_enc) + b_mag)

The indicator passes no gradient, so the gate learns from terms of its own (`gate_l1`, `gate_reconstruction`); r_mag and
b_mag learn from the reconstruction. What is trained is a JumpReLU dictionary in other parameters (arXiv 2404.16014,
section 3.2), and is saved as one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.activation import Activation, Chunks, Latents, ReLU, Selection
from unbraid.dictionary.codes import Codes, DenseCodes, SparseCodes

GATE = ReLU()


@dataclass(frozen=True)
class Gated(Activation):
    """Latents that are active where a gate is open, with magnitudes of their own (Rajamanoharan et al. 2024a)."""

    own: ClassVar[tuple[str, ...]] = ("r_mag", "b_mag")

    def select(self, chunks: Chunks, threshold: Tensor, dense_above: float) -> Selection | None:
        return GATE.select(chunks, threshold, dense_above)

    def gate(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return GATE.gate(pre, threshold)

    def dense(self, pre: Latents, threshold: Tensor) -> Latents:
        return GATE.dense(pre, threshold)

    def finish(self, z: Codes, parameters: Mapping[str, Tensor]) -> Codes:
        assert isinstance(z, SparseCodes | DenseCodes)
        rescaled = z.along(parameters["r_mag"].exp()) * (z.pre - z.along(parameters["b_enc"]))
        magnitude = (rescaled + z.along(parameters["b_mag"])).relu()
        return replace(z, values=magnitude * (z.pre > 0))


def gate_codes(z: Codes, threshold: Float[Tensor, " d_sae"]) -> Codes:
    """The gate's own values in place of the latents: what is left of a pre-activation above 0 where the gate is
    open."""
    assert isinstance(z, SparseCodes | DenseCodes)
    return replace(z, values=z.pre.relu() * (z.pre > z.along(threshold)))


class Thresholded(NamedTuple):
    """A gated encoder as a JumpReLU one."""

    W_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    threshold: Float[Tensor, " d_sae"]


def thresholded(
    W_enc: Float[Tensor, "d_in d_sae"],
    b_gate: Float[Tensor, " d_sae"],
    r_mag: Float[Tensor, " d_sae"],
    b_mag: Float[Tensor, " d_sae"],
) -> Thresholded:
    """The same codes: with pre = exp(r) x W + b_mag, the gate opens at pre > b_mag - exp(r) b_gate, and never
    below 0."""
    scale = r_mag.exp()
    return Thresholded(W_enc * scale, b_mag, (b_mag - scale * b_gate).clamp_min(0))
