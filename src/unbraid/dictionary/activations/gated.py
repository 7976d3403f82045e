"""Gated: one linear map says which latents are active and, rescaled, how strongly (Rajamanoharan et al. 2024a).

    gate = (x - b_dec) @ W_enc + b_enc
    z    = [gate > 0] * relu(exp(r_mag) * (gate - b_enc) + b_mag)

The indicator passes no gradient, so the gate learns from its own terms (`gate_l1`, `gate_reconstruction`); r_mag and
b_mag learn from the reconstruction. What is trained is a JumpReLU dictionary in other parameters (arXiv 2404.16014,
section 3.2), and is saved as one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.activations.base import Activation, Thresholded
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.codes import Codes, DenseCodes, SparseCodes
from unbraid.dictionary.weights import Acts, Latents, Weights


@dataclass(frozen=True)
class Gated(Thresholded):
    """Latents active where a gate is open, with separate magnitudes (Rajamanoharan et al. 2024a)."""

    extra_parameters: ClassVar[tuple[str, ...]] = ("r_mag", "b_mag")
    for_training_only: ClassVar[bool] = True

    def value(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre.relu()

    def dense(self, pre: Latents, threshold: Tensor) -> Latents:
        return pre.relu()

    def postprocess(self, z: Codes, dictionary: Weights) -> Codes:
        assert isinstance(z, SparseCodes | DenseCodes)
        r_mag, b_mag = dictionary.get_parameter("r_mag"), dictionary.get_parameter("b_mag")
        rescaled = z.per_entry(r_mag.exp()) * (z.pre - z.per_entry(dictionary.b_enc))
        magnitude = (rescaled + z.per_entry(b_mag)).relu()
        return replace(z, values=magnitude * (z.pre > 0))

    @torch.no_grad()
    def initialise(self, dictionary: Weights, sample: Acts) -> None:
        """Start magnitudes as the gate's own values."""
        dictionary.get_parameter("b_mag").copy_(dictionary.b_enc)

    def for_inference(self, dictionary: Weights, sample: Acts) -> tuple[Activation, Mapping[str, Tensor]]:
        """Return JumpReLU with the same codes."""
        state = dict(dictionary.state_dict())
        r_mag, b_mag = state.pop("r_mag"), state.pop("b_mag")
        return JumpReLU(bandwidth=0.0), {
            **state,
            **gated_as_jumprelu(state["W_enc"], state["b_enc"], r_mag, b_mag)._asdict(),
        }


def gate_codes(z: Codes, threshold: Float[Tensor, " d_sae"]) -> Codes:
    """Return the gate's values in place of the latents: what is left of a pre-activation above 0 where the gate is
    open."""
    assert isinstance(z, SparseCodes | DenseCodes)
    return replace(z, values=z.pre.relu() * (z.pre > z.per_entry(threshold)))


class JumpReLUEncoder(NamedTuple):
    """The parameters of a JumpReLU encoder."""

    W_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    threshold: Float[Tensor, " d_sae"]


def gated_as_jumprelu(
    W_enc: Float[Tensor, "d_in d_sae"],
    b_gate: Float[Tensor, " d_sae"],
    r_mag: Float[Tensor, " d_sae"],
    b_mag: Float[Tensor, " d_sae"],
) -> JumpReLUEncoder:
    """Return the JumpReLU encoder with the same codes: with pre = exp(r) x W + b_mag, the gate opens at
    pre > b_mag - exp(r) b_gate, and never below 0."""
    scale = r_mag.exp()
    return JumpReLUEncoder(W_enc * scale, b_mag, (b_mag - scale * b_gate).clamp_min(0))
