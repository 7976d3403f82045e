"""The dictionary that knows the truth: true directions as atoms, and a readout of least variance as their encoder.

    w_i = C^-1 d_i / (d_i' C^-1 d_i),   C = sum_j var(z_j) d_j d_j' + noise I       (Capon 1969)

passes factor i at gain 1 and lets through the least variance of the others, as if they were uncorrelated. With no more
factors than dimensions and no noise it is the dual basis, exact. A factor counts as present where its readout exceeds
the threshold of best F1 on training rows. In superposition no linear readout is exact, and fitted probes detect better
(`unbraid.dictionary.from_truth`); `ideal` has the true codes.
"""

import torch
from jaxtyping import Float
from scipy.sparse import csc_array
from torch import Tensor

from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.dictionary import Dictionary
from unbraid.metrics.latents_and_factors import LatentsAndFactors, magnitudes
from unbraid.sources.truth import Labelled, NoTruth, Truth

ROWS = 16_384
"""Training rows that variances and thresholds are fitted on."""
CHUNK = 256
"""Factors whose thresholds are found at once."""
LOADING = 1e-9
"""Added to C's diagonal, as a share of its mean: without noise C may be singular."""


def ideal(labelled: Labelled) -> LatentsAndFactors:
    """What a dictionary would show whose codes are the true magnitudes."""
    z = magnitudes(labelled)
    return LatentsAndFactors(z, z)


@torch.no_grad()
def truth_dictionary(truth: Truth, *, rows: int = ROWS, seed: int = 0) -> Dictionary:
    """One latent a factor, in order, for raw activations. A factor that `rows` do not show opens at half the mean
    magnitude. Raises NoTruth when factors are not directions."""
    if truth.directions is None:
        raise NoTruth("these factors are not directions, so no atoms can be true")
    atoms = truth.directions.double()
    labelled = truth.labelled(rows, split="train", seed=seed)
    x, z = labelled.x.double(), magnitudes(labelled)
    means = torch.from_numpy(z.mean(axis=0))
    variances = torch.from_numpy(z.power(2).mean(axis=0)) - means**2
    offset = x.mean(0) - means @ atoms
    noise = float((x - offset - torch.from_numpy(z @ atoms.numpy())).square().mean())
    readers = capon(atoms, variances, noise)
    made = Dictionary(atoms.shape[1], len(atoms), JumpReLU(bandwidth=0.0))
    made.W_dec.copy_(atoms)
    made.W_enc.copy_(readers.T)
    made.b_dec.copy_(offset)
    # What the others add on average.
    made.b_enc.copy_(means - readers @ (means @ atoms))
    made.threshold.copy_(thresholds(made, labelled, z.tocsc()))
    return made


def capon(
    atoms: Float[Tensor, "factors d_in"], variances: Float[Tensor, " factors"], noise: float
) -> Float[Tensor, "factors d_in"]:
    """The readout of each factor."""
    seen = variances.clamp(min=float(variances[variances > 0].min()) if (variances > 0).any() else 1.0)
    covariance = (atoms.T * seen) @ atoms
    covariance.diagonal().add_(noise + LOADING * covariance.diagonal().mean())
    solved = torch.linalg.solve(covariance, atoms.T).T
    return solved / (solved * atoms).sum(1, keepdim=True)


def thresholds(dictionary: Dictionary, labelled: Labelled, z: csc_array) -> Float[Tensor, " factors"]:
    """Above which each latent detects its factor with the best F1."""
    found = []
    for start in range(0, dictionary.d_sae, CHUNK):
        part = slice(start, start + CHUNK)
        pre = torch.addmm(dictionary.b_enc[part], labelled.x - dictionary.b_dec, dictionary.W_enc[:, part])
        present = torch.from_numpy(z[:, part].toarray() > 0)
        found.append(best_cuts(pre, present, float(labelled.magnitudes.mean()) / 2))
    return torch.cat(found)


def best_cuts(pre: Float[Tensor, "rows latents"], present: Tensor, unseen: float) -> Float[Tensor, " latents"]:
    """The cut of each column, not below 0, that tells `present` from absent with the best F1."""
    values, order = pre.sort(dim=0, descending=True)
    hits = present.gather(0, order).cumsum(0)
    above = torch.arange(1, len(pre) + 1).unsqueeze(1)
    best = (2 * hits / (above + present.sum(0))).argmax(0, keepdim=True)
    ended = torch.cat([values, torch.full_like(values[:1], -torch.inf)])
    cuts = (values.gather(0, best) + ended.gather(0, best + 1)).squeeze(0) / 2
    return torch.where(present.any(0), cuts.clamp(min=0), unseen)
