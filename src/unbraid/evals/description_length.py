"""Description length: the bits per token of rounded codes at equal distortion, and the whole rate-distortion curve.

    bits(D) = those of round(z / step), at the coarsest global step with distortion <= D

After MDL-SAEs (Ayonrinde et al. 2024, arXiv 2410.11179). Distortion is FVU of what rounded codes decode to and, on
language models, the cross-entropy added by splicing that in. Latents are coded one by one (factorised), or given a
parent latent (tree), without the decoder or with its bits divided over the rows scored. kind=reference: principal
components at the same FVU, dense and linear: a dictionary must beat them to have found any structure. FVU is
compared with its bound on rows drawn at random where few leave no doubt (`early_ratio`), else on all.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import nll_loss

from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import code_matrix
from unbraid.evals.shared.evaluation import Score
from unbraid.evals.shared.observe import held_out_codes
from unbraid.metrics.description_length import (
    Bits,
    Code,
    Distortion,
    coarsest_steps,
    principal_bits,
    rounded,
    rounding_error,
)
from unbraid.metrics.description_length import description_length as bits_of
from unbraid.metrics.early_ratio import EarlyRatio
from unbraid.runs.run import Run
from unbraid.sources.base import Source
from unbraid.sources.behind import model_to_splice
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.splicing import Pass, eval_windows, lacks_windows, passes
from unbraid.sources.stream import held_out
from unbraid.system.sharing import shared

VERSION = 3
DEFINITIONS = {
    "bits_per_token": "bits of the factorised code, without the decoder, at the coarsest step that adds at most 0.01 "
    "to the dictionary's own FVU",
    "description_length": "bits per token at the coarsest rounding of all latents that keeps FVU (or the cross-entropy "
    "added by splicing, in nats) at most as stated; no row where the dictionary cannot reach it. code=factorised: "
    "every latent by itself, tree: latents given a parent latent, bound: L0 (log2 levels + log2 d_sae); decoder=with: "
    "atoms (16 bits a coordinate) and the code's tables, over the rows; kind=reference: principal components rounded "
    "alike",
    "step": "rounding step for that distortion, in units of the activations",
}
ROWS = 16_384
"""Number of held-out activations described."""
FVUS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)
NATS = (0.05, 0.1, 0.2, 0.5, 1.0)
ADDED = 0.01
"""FVU that rounding may add for `bits_per_token`."""
CODES: tuple[Code, ...] = ("factorised", "tree")

lacks = lacks_windows


@torch.no_grad()
def description_length(run: Run) -> list[Score]:
    """Score the bits of a run at every distortion that its dictionary reaches."""
    dictionary, x = run.dictionary(), held_out(run.source, ROWS).x
    z: csr_array = held_out_codes(dictionary, run.source)[: len(x)]
    error = described(dictionary, x, z)
    scores = own(z, error, dictionary.d_in)
    scores += curve(z, coarsest_steps(z, error, FVUS), dictionary.d_in, "fvu")
    if (model := model_to_splice(run.source)) is not None:
        added = added_loss(dictionary, model)
        scores += curve(z, coarsest_steps(z, added, NATS, octave=4), dictionary.d_in, "nats")
    return scores + [
        Score(
            metric="description_length",
            value=bits,
            better="lower",
            kind="reference",
            params={"directions": "principal", "fvu": at},
        )
        for at, bits in linear(run.source).items()
    ]


def described(dictionary: Dictionary, x: Float[Tensor, "batch d_in"], z: csr_array) -> Distortion:
    """Return FVU as a function of the step to which the codes of x are rounded."""
    atoms, bias = (weights.detach().double().cpu().numpy() for weights in (dictionary.unit_atoms(), dictionary.b_dec))
    return rounding_error(z, atoms, bias, x.double().cpu().numpy())


def own(z: csr_array, error: Distortion, d_in: int) -> list[Score]:
    """Return the bits near the dictionary's own FVU."""
    unrounded = error(1.0).known
    return [
        Score(metric="bits_per_token", value=bits_of(rounded(z, step), d_in).total(), better="lower")
        for step in coarsest_steps(z, error, [unrounded + ADDED]).values()
    ]


def curve(z: csr_array, steps: dict[float, float], d_in: int, axis: Literal["fvu", "nats"]) -> list[Score]:
    """Return the scores of every code at every distortion."""
    scores = []
    for at, step in steps.items():
        scores += rates(bits_of(rounded(z, step), d_in), {axis: at})
        scores.append(Score(metric="step", value=step, better="neither", params={axis: at}))
    return scores


def rates(bits: Bits, at: dict[str, float | str]) -> list[Score]:
    """Return the scores of every code at one distortion."""
    row = lambda value, **params: Score(
        metric="description_length", value=value, better="lower", params={**params, **at}
    )
    return [row(bits.total("bound"), code="bound", decoder="without")] + [
        row(bits.total(code, decoder=decoder), code=code, decoder="with" if decoder else "without")
        for code in CODES
        for decoder in (False, True)
    ]


@lru_cache(maxsize=2)
def linear(source: Source) -> dict[float, float]:
    """Return the bits of principal components by FVU, the same for every run of a source."""
    return principal_bits(held_out(source, ROWS).x.double().cpu().numpy(), FVUS)


def added_loss(dictionary: Dictionary, model: LanguageModel) -> Distortion:
    """Return the nats per token that splicing adds, as a function of the rounding step of codes."""
    parts = passes(model, eval_windows(model))
    codes = [csr_array(code_matrix(dictionary, part.rows), dtype=np.float32) for part in parts]
    atoms, bias = (part.detach().cpu().float().numpy() for part in (dictionary.unit_atoms(), dictionary.b_dec))
    clean = clean_losses(model)

    def added(step: float) -> EarlyRatio:
        decoded = (torch.from_numpy(rounded(z, step) * np.float32(step) @ atoms + bias) for z in codes)
        losses = token_losses(model, parts, decoded) - clean
        return EarlyRatio([(losses, np.ones_like(losses))])

    return added


@shared
def clean_losses(model: LanguageModel) -> Float[np.ndarray, " token"]:
    """Return the `token_losses` of the model as it is."""
    parts = passes(model, eval_windows(model))
    return token_losses(model, parts, (part.rows for part in parts))


def token_losses(model: LanguageModel, parts: Sequence[Pass], rows: Iterable[Tensor]) -> Float[np.ndarray, " token"]:
    """Return the cross-entropy of each token, in nats, with these activations in place of those of each pass."""
    found = [nll_loss(*part.predicted(model, put), reduction="none") for part, put in zip(parts, rows, strict=True)]
    return torch.cat(found).cpu().numpy()
