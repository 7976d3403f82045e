"""Normalisation of activations: one object, saved with every checkpoint, folded into the weights on export.

    x_n = (x - mean) / scale,   with mean |x_n|^2 = d_in ("centre-scale"), or x_n = x ("none")

Folding uses that every activation here is positively homogeneous once thresholds scale along: latents of the folded
dictionary are `scale` times the trained ones, atoms keep unit norm, and nothing downstream needs to know.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.sources.stream import check_finite

TOLERANCE = 1e-4
"""Largest relative error of a folded reconstruction, for 99 % of rows: a latent within rounding of its threshold may
flip."""


@dataclass(frozen=True)
class Normaliser:
    mean: Float[Tensor, " d_in"]
    scale: Float[Tensor, ""]

    @classmethod
    def fit(cls, sample: Float[Tensor, "batch d_in"], how: str) -> "Normaliser":
        """Fit mean and scale to a sample of raw activations. `how`: "centre-scale" or "none". Raises
        ValueError for a sample that is empty, constant or not finite."""
        if not len(sample):
            raise ValueError("no activations to fit the normalisation to: give more text, or a larger batch")
        check_finite(sample, "the sample that the normalisation is fitted to")
        if how == "none":
            return cls(torch.zeros_like(sample[0]), torch.ones_like(sample[0, 0]))
        exact = sample.double()
        mean = exact.mean(0)
        scale = (exact - mean).square().mean().sqrt()
        if not scale > 0:
            raise ValueError(
                "the activations do not vary, so there is nothing to explain: look at the layer and the text"
            )
        return cls(mean.to(sample.dtype), scale.to(sample.dtype))

    def __call__(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_in"]:
        return (x - self.mean) / self.scale

    def undo(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_in"]:
        return x * self.scale + self.mean

    def to(self, device: str | torch.device) -> "Normaliser":
        return Normaliser(self.mean.to(device), self.scale.to(device))

    @torch.no_grad()
    def fold(self, dictionary: Dictionary) -> Dictionary:
        """Return the same dictionary for raw activations, on the CPU."""
        folded = Dictionary(dictionary.d_in, dictionary.d_sae, dictionary.activation.scaled(float(self.scale)))
        folded.W_enc.copy_(dictionary.W_enc)
        folded.W_dec.copy_(dictionary.W_dec)
        for name in dictionary.activation.extra_parameters:
            folded.get_parameter(name).copy_(dictionary.get_parameter(name))
        folded.trained_as = dictionary.trained_as
        scale = self.scale.double()
        folded.b_enc.copy_(dictionary.b_enc.double() * scale)
        folded.threshold.copy_(dictionary.threshold.double() * scale)
        folded.b_dec.copy_(dictionary.b_dec.double() * scale + self.mean.double())
        return folded

    @torch.no_grad()
    def check(self, dictionary: Dictionary, folded: Dictionary, x: Float[Tensor, "batch d_in"]) -> None:
        """Raise ValueError unless the folded dictionary reconstructs raw x as the trained one does normalised x."""
        exact, raw = double(dictionary), x.double().cpu()
        normaliser = Normaliser(self.mean.double().cpu(), self.scale.double().cpu())
        wanted, got = normaliser.undo(exact(normaliser(raw))), double(folded)(raw)
        error = (got - wanted).norm(dim=1) / wanted.norm(dim=1).clamp_min(1e-12)
        if len(error) and not float(error.quantile(0.99)) <= TOLERANCE:
            raise ValueError(
                f"folding the normalisation changed reconstructions by {float(error.quantile(0.99)):.1e} (relative), "
                f"more than {TOLERANCE:.0e}; nothing was saved. Activations this extreme need --training.normalise none"
            )


def double(dictionary: Dictionary) -> Dictionary:
    """Return a float64 copy on the CPU."""
    copy = Dictionary(dictionary.d_in, dictionary.d_sae, dictionary.activation).double()
    copy.load_state_dict({name: value.double().cpu() for name, value in dictionary.state_dict().items()})
    return copy
