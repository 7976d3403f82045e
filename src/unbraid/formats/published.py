"""An SAE that others trained, brought into our form: for raw activations, x - b_dec read, atoms of unit norm.

    (x - a b_dec) W + b  =  (x - b_dec) W + (b + (1 - a) b_dec W),       z_i d_i  =  (|d_i| z_i) (d_i / |d_i|)

Both are exact. What was done is said in `notes`, which go into the provenance of the run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.dictionary import Dictionary

NEAR_UNIT = 1e-2
"""Norms this near 1 are taken for 1 rounded to half precision (SAEBench's tolerance for it)."""
LARGEST = 1e15
"""No training leaves a larger number."""
TOUCHED = 1e-6
"""Norms off 1 by no more than this are float32's own: such weights are taken bit for bit."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A trained dictionary from another library's folder."""

    dictionary: Dictionary
    format: str
    """SAELens, dictionary_learning, sparsify or Gemma Scope."""
    architecture: str
    """The format's name of the architecture."""
    trained: Mapping[str, Any] = field(default_factory=dict)
    """The folder's settings of model, site and training, unchanged."""
    stated: Mapping[str, Any] = field(default_factory=dict)
    """The settings that a source or a measurement can contradict, by SAELens's names: model_name, hook_name,
    hook_layer, context_size, prepend_bos, dataset_path, tokenizer_sha256, and l0."""
    rescaled: str = ""
    """Why its thresholds may lack a factor that its library once forgot; empty when they cannot."""
    notes: tuple[str, ...] = ()
    """Changes that were made to bring it into our form, and warnings."""

    @property
    def hook_name(self) -> str:
        """The site in TransformerLens's words; empty when the folder does not say it."""
        return str(self.stated.get("hook_name") or "")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The weights and activation function of an SAE, before it is brought into our form."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    activation: Activation
    threshold: Tensor | None = None
    reads_centred: bool = True
    """Whether the encoder is given x - b_dec."""
    ranks_by_norm: bool = False
    """Whether TopK ranks latents by their size times the norm of their atom."""


@torch.no_grad()
def assemble(parts: Parts, where: Path) -> tuple[Dictionary, list[str]]:
    """The dictionary in our form, and what was changed. Raises ValueError for shapes that do not fit, weights that are
    not finite, and norms that cannot be folded."""
    d_sae, d_in = check_shapes(parts, where)
    notes: list[str] = []
    try:
        parts.activation.check_width(d_sae)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    made = Dictionary(d_in, d_sae, parts.activation)
    made.W_enc.copy_(parts.W_enc)
    made.b_enc.copy_(parts.b_enc)
    made.W_dec.copy_(parts.W_dec)
    made.b_dec.copy_(parts.b_dec)
    if parts.threshold is not None:
        made.threshold.copy_(parts.threshold)
        if bool((parts.threshold < 0).any()):
            made.threshold.clamp_(min=0)
            notes.append("thresholds below 0 are set to 0, which gives the same codes after the ReLU")
    if not parts.reads_centred:
        made.b_enc.copy_((parts.b_enc.double() + parts.b_dec.double() @ parts.W_enc.double()).float())
        notes.append("its encoder reads x, ours x - b_dec: the difference is folded into b_enc")
    notes += fold_norms(made, where, ranks_by_norm=parts.ranks_by_norm)
    check_sizes(dict(made.named_parameters()), where)
    return made.requires_grad_(False), notes


def turned(matrix: Tensor) -> Tensor:
    """The transpose; what is no matrix as it is, for `assemble` to name."""
    return matrix.T if matrix.ndim == 2 else matrix


def check_vectors(W_enc: Tensor, vectors: Sequence[Tensor], where: Path) -> None:
    """Raise ValueError unless the encoder is a matrix and each vector has a number a latent: before they are joined."""
    found = [list(vector.shape) for vector in vectors]
    if W_enc.ndim != 2 or any(shape != [W_enc.shape[1]] for shape in found):
        raise ValueError(
            f"{where}: an encoder of shape {list(W_enc.shape)} and its vectors {found} do not fit together"
        )


def check_shapes(parts: Parts, where: Path) -> tuple[int, int]:
    """d_sae and d_in."""
    tensors = {"W_enc": parts.W_enc, "b_enc": parts.b_enc, "W_dec": parts.W_dec, "b_dec": parts.b_dec}
    if parts.threshold is not None:
        tensors["threshold"] = parts.threshold
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    d_sae, d_in = parts.b_enc.numel(), parts.b_dec.numel()
    if not d_sae or not d_in:
        raise ValueError(f"{where}: {d_sae} latents of {d_in} dimensions explain nothing; fetch it again")
    wanted = {"W_enc": [d_in, d_sae], "b_enc": [d_sae], "W_dec": [d_sae, d_in], "b_dec": [d_in], "threshold": [d_sae]}
    wrong = {name: shape for name, shape in found.items() if shape != wanted[name]}
    if wrong:
        turned = [name for name, shape in wrong.items() if shape == wanted[name][::-1] and len(shape) == 2]
        remedy = f"; transpose {' and '.join(turned)} and save again" if turned else ""
        expected = {name: wanted[name] for name in wrong}
        raise ValueError(f"{where}: with d_in {d_in} and d_sae {d_sae} expected {expected}, found {wrong}{remedy}")
    check_sizes(tensors, where)
    return d_sae, d_in


def check_sizes(tensors: Mapping[str, Tensor], where: Path) -> None:
    """Raise ValueError for NaN and infinity, and for numbers with which codes would overflow."""
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise ValueError(f"{where}: {', '.join(broken)} hold NaN or infinity: the training that made them failed")
    huge = [name for name, tensor in tensors.items() if not bool((tensor.abs() <= LARGEST).all())]
    if huge:
        raise ValueError(
            f"{where}: {', '.join(huge)} hold numbers above {LARGEST:.0e}: the file is damaged; fetch it again"
        )


def fold_norms(made: Dictionary, where: Path, *, ranks_by_norm: bool) -> list[str]:
    """Give atoms unit norm and their latents the size they had; what to say about it."""
    norms = torch.linalg.vector_norm(made.W_dec.double(), dim=1)
    silent = norms == 0
    off = float((norms[~silent] - 1).abs().max()) if not bool(silent.all()) else 0.0
    if off <= TOUCHED and not bool(silent.any()):
        made.tie()
        return []
    chooses = made.activation.compares_latents and not ranks_by_norm
    if chooses and (off > NEAR_UNIT or bool(silent.any())):
        raise ValueError(
            f"{where}: atoms have norms from {float(norms.min()):.3g} to {float(norms.max()):.3g}, and "
            f"{type(made.activation).__name__} would choose other latents once they have norm 1. Normalise the decoder "
            "where it was trained (SAELens: rescale_acts_by_decoder_norm) and save again"
        )
    made.W_dec.copy_((made.W_dec.double() / norms.masked_fill(silent, 1.0).unsqueeze(1)).float())
    # Float32 rounds a normalised row by more than SAEBench allows only when the row was far from unit before.
    made.W_dec.div_(torch.linalg.vector_norm(made.W_dec, dim=1, keepdim=True).masked_fill(silent.unsqueeze(1), 1.0))
    made.W_dec[silent, 0] = 1.0
    if not made.activation.tied:
        scale = norms.float()
        made.W_enc.mul_(scale)
        made.b_enc.mul_(scale)
        made.threshold.mul_(scale)
    made.tie()
    notes = [f"{int(silent.sum())} atoms are zero: their latents never fire here"] if bool(silent.any()) else []
    return [*notes, f"atoms' norms were off 1 by up to {off:.2g}; they are folded into the encoder"]


def as_thresholds(threshold: Tensor | float, d_sae: int) -> Tensor:
    """One threshold for all, or one each."""
    return torch.as_tensor(threshold, dtype=torch.float32).expand(d_sae).clone()


THRESHOLDED = JumpReLU(bandwidth=0.0)
"""JumpReLU as it is used after training."""
