"""Normalisation of activations: one object, saved with every checkpoint, folded into the weights on export.

    x_n = (x - mean) @ W / scale,   mean |x_n|^2 = d_in;   W is I ("centre-scale") or `whitening`;   or x_n = x ("none")

Folding uses that every activation here is positively homogeneous once thresholds scale along: latents of the folded
dictionary are `scale` times the trained ones, atoms keep unit norm, and nothing downstream needs to know. An atom that
has unit norm in whitened activations has another one, r, in raw ones. Where latents fire by themselves (`homogeneous`),
the latent becomes r times as large and its atom unit; where they are chosen by comparison (TopK), atoms keep norm r, as
others would be chosen otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.whitening import Whitening
from unbraid.sources.stream import check_finite

TOLERANCE = 1e-4
"""Largest relative error of a folded reconstruction, for 99 % of rows: a latent within rounding of its threshold may
flip."""
SAME_NORM = 0.1
"""Relative difference of atoms' norms up to which normalisations fitted to two samples of one source are the same."""


@dataclass(frozen=True)
class Normaliser:
    mean: Float[Tensor, " d_in"]
    scale: Float[Tensor, ""]
    whitening: Whitening | None = None

    @classmethod
    def fit(
        cls, sample: Float[Tensor, "batch d_in"], how: str, *, ridge: float = 1e-3, power: float = 1.0
    ) -> "Normaliser":
        """Fit to a sample of raw activations. `how`: "centre-scale", "whiten" or "none"; `ridge` and `power` are of
        whitening. Raises ValueError for a sample that is empty, constant, not finite or of too few dimensions."""
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
        whitening = Whitening.fit(exact - mean, ridge=ridge, power=power).to(sample.dtype) if how == "whiten" else None
        return cls(mean.to(sample.dtype), scale.to(sample.dtype), whitening)

    def __call__(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_in"]:
        centred = x - self.mean
        return (centred if self.whitening is None else centred @ self.whitening.matrix) / self.scale

    def undo(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_in"]:
        return self.unwhitened(x) * self.scale + self.mean

    def unwhitened(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_in"]:
        """Return normalised rows as "centre-scale" has them: in them, errors compare between normalisations."""
        return x if self.whitening is None else x @ self.whitening.inverse

    def directions(self, atoms: Float[Tensor, "k d_in"]) -> Float[Tensor, "k d_in"]:
        """Return the unit directions in raw activations along which latents with these unit atoms write."""
        if self.whitening is None:
            return atoms
        raw = atoms @ self.whitening.inverse
        return raw / torch.linalg.vector_norm(raw, dim=1, keepdim=True).clamp_min(torch.finfo(raw.dtype).tiny)

    def atoms(self, directions: Float[Tensor, "k d_in"]) -> Float[Tensor, "k d_in"]:
        """Return the unit atoms that write along these unit directions of raw activations."""
        if self.whitening is None:
            return directions
        return torch.nn.functional.normalize(directions @ self.whitening.matrix.to(directions), dim=1)

    @property
    def changes_nothing(self) -> bool:
        """True where normalised activations are the raw ones."""
        return bool((self.mean == 0).all()) and float(self.scale) == 1.0 and self.whitening is None

    def to(self, target: str | torch.device | torch.dtype) -> "Normaliser":
        """Return the same on another device, or in another precision."""
        whitening = None if self.whitening is None else self.whitening.to(target)
        return Normaliser(self.mean.to(target), self.scale.to(target), whitening)

    def tensors(self) -> dict[str, Tensor]:
        """Its numbers by name, for a file."""
        found = {"mean": self.mean, "scale": self.scale}
        if self.whitening is not None:
            found |= {"whitening": self.whitening.matrix, "unwhitening": self.whitening.inverse}
        return found

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Normaliser":
        """The normaliser with these `tensors()`."""
        pair = (tensors.get("whitening"), tensors.get("unwhitening"))
        whitening = None if pair[0] is None or pair[1] is None else Whitening(pair[0], pair[1])
        return cls(tensors["mean"], tensors["scale"], whitening)

    @torch.no_grad()
    def fold(self, dictionary: Dictionary) -> Dictionary:
        """Return the same dictionary for raw activations, on the CPU."""
        folded = made_like(dictionary, float(self.scale))
        scale, b_enc, b_dec = (value.double() for value in (self.scale, dictionary.b_enc, dictionary.b_dec))
        threshold = dictionary.threshold.double()
        if self.whitening is not None:
            forward, back = self.whitening.matrix.double(), self.whitening.inverse.double()
            centre = b_dec @ back
            # The inverse is one but for rounding, of which the encoder's largest rows would make something.
            b_enc = b_enc + (centre @ forward - b_dec) @ dictionary.W_enc.double()
            norms = rescaled(folded, forward @ dictionary.W_enc.double(), dictionary.W_dec.double() @ back)
            b_enc, b_dec, threshold = b_enc * norms, centre, threshold * norms
        folded.b_enc.copy_(b_enc * scale)
        folded.threshold.copy_(threshold * scale)
        folded.b_dec.copy_(b_dec * scale + self.mean.double())
        return folded

    @torch.no_grad()
    def unfold(self, raw: Dictionary) -> Dictionary:
        """Return the dictionary for normalised activations that folds to `raw`, with unit atoms. Raises ValueError
        where these would make it choose other latents."""
        made = made_like(raw, 1 / float(self.scale))
        b_enc, threshold, b_dec = (
            raw.b_enc / self.scale,
            raw.threshold / self.scale,
            (raw.b_dec - self.mean) / self.scale,
        )
        if self.whitening is not None:
            norms = rescaled(
                made, self.whitening.inverse.double() @ raw.W_enc.double(),
                raw.W_dec.double() @ self.whitening.matrix.double(),
            )  # fmt: skip
            b_enc, threshold, b_dec = b_enc * norms, threshold * norms, b_dec @ self.whitening.matrix
        sizes = made.norms()
        if not raw.activation.homogeneous and bool((sizes != 1).any()):
            if bool(((sizes / sizes.median() - 1).abs() > SAME_NORM).any()):
                raise ValueError(
                    f"its {type(raw.activation).__name__} was trained on activations that were normalised otherwise, "
                    "and would choose other latents here: set --training.normalise, --training.whiten-ridge and "
                    "--training.whiten-power as they were"
                )
            made.W_dec.div_(sizes.unsqueeze(1))
            made.W_enc.mul_(sizes)
            b_enc, threshold = b_enc * sizes, threshold * sizes
        made.b_enc.copy_(b_enc)
        made.threshold.copy_(threshold)
        made.b_dec.copy_(b_dec)
        return made

    @torch.no_grad()
    def check(self, dictionary: Dictionary, folded: Dictionary, x: Float[Tensor, "batch d_in"]) -> None:
        """Raise ValueError unless the folded dictionary reconstructs raw x as the trained one does normalised x."""
        exact, raw = double(dictionary), x.double().cpu()
        normaliser = self.to("cpu").to(torch.float64)
        wanted, got = normaliser.undo(exact(normaliser(raw))), double(folded)(raw)
        error = (got - wanted).norm(dim=1) / wanted.norm(dim=1).clamp_min(1e-12)
        if len(error) and not float(error.quantile(0.99)) <= TOLERANCE:
            milder = "" if self.whitening is None else "a larger --training.whiten-ridge, or "
            raise ValueError(
                f"folding the normalisation changed reconstructions by {float(error.quantile(0.99)):.1e} (relative), "
                f"more than {TOLERANCE:.0e}; nothing was saved. Activations this extreme need {milder}"
                "--training.normalise none"
            )


def made_like(dictionary: Dictionary, scale: float) -> Dictionary:
    """Return a dictionary with the same encoder and atoms, its activation for inputs `scale` times as large."""
    made = Dictionary(dictionary.d_in, dictionary.d_sae, dictionary.activation.scaled(scale))
    made.W_enc.copy_(dictionary.W_enc)
    made.W_dec.copy_(dictionary.W_dec)
    for name in dictionary.activation.extra_parameters:
        made.get_parameter(name).copy_(dictionary.get_parameter(name))
    made.trained_as = dictionary.trained_as
    return made


def rescaled(
    made: Dictionary, readers: Float[Tensor, "d_in d_sae"], atoms: Float[Tensor, "d_sae d_in"]
) -> Float[Tensor, " d_sae"]:
    """Set encoder and atoms, these of unit norm where latents may be rescaled one by one; by how much each was."""
    norms = torch.linalg.vector_norm(atoms, dim=1) if made.activation.homogeneous else atoms.new_ones(len(atoms))
    made.W_enc.copy_(readers * norms)
    made.W_dec.copy_(atoms / norms.unsqueeze(1))
    return norms


def double(dictionary: Dictionary) -> Dictionary:
    """Return a float64 copy on the CPU."""
    copy = Dictionary(dictionary.d_in, dictionary.d_sae, dictionary.activation).double()
    copy.load_state_dict({name: value.double().cpu() for name, value in dictionary.state_dict().items()})
    return copy
