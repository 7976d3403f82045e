"""What each penalty charges a code, exactly: which of two codes for the same data would it prefer?

A finite weighted code is a list of states with probabilities w, codes Z and unit atoms D. With s = 1[Z > 0]:

    correlation        = sum_(i != j) corr(z_i, z_j)^2
    total correlation  = sum_i H(s_i) - H(s)
    support            = sum_i H(s_i)                                         MDL with a factorised prior, gates alone
    local IMA          = E[-1/2 logdet(D_s D_s')]                             atoms of the active latents
    HFS                = mean over pairs of max over the grid of their values of min over states of squared distance
    orthogonality      = mean_i relu(cos(d_i, d_j*))^2                        j*: the nearest atom; OrtSAE, 2509.22033
    C2R                = mean_i (rms z_i + rms z_j*) relu(cos(d_i, d_j*))^2   2606.30609 as released, rms for its norms

HFS after Roth et al. (ICLR 2023), over all pairs and corners where they sample. No quantity is estimated.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.metrics.information import support_bits
from unbraid.terms.statistics.nearest_atoms import nearest_atoms

Codes = Float[Tensor, "states latents"]
Weights = Float[Tensor, " states"]
Atoms = Float[Tensor, "latents d_in"]

PAIR_ENTRIES = 2**23
"""Distances held at once."""


@dataclass(frozen=True)
class Pressures:
    """What is charged under each; entropies in bits."""

    l0: float
    l1: float
    correlation: float
    total_correlation: float
    support: float
    local_ima: float
    hfs: float
    orthogonality: float
    c2r: float


def pressures(codes: Codes, weights: Weights, atoms: Atoms) -> Pressures:
    """`codes`: non-negative. Raises ValueError when weights are no distribution or atoms no unit vectors."""
    check(codes, weights, atoms)
    active = codes > 0
    joint, factorised = support_bits(active, weights)
    closeness, neighbour = nearest(atoms)
    rms = (weights @ codes.square()).sqrt()
    return Pressures(
        l0=float(weights @ active.to(weights).sum(1)),
        l1=float(weights @ codes.sum(1)),
        correlation=correlation(codes, weights),
        total_correlation=float(factorised - joint),
        support=float(factorised),
        local_ima=local_ima(codes, weights, atoms),
        hfs=hfs(codes[weights > 0]),
        orthogonality=float(closeness.mean()),
        c2r=float(((rms + rms[neighbour]) * closeness).mean()),
    )


def check(codes: Codes, weights: Weights, atoms: Atoms) -> None:
    if not bool((weights >= 0).all()) or not math.isclose(float(weights.sum()), 1, abs_tol=1e-6):
        raise ValueError(f"weights sum to {float(weights.sum()):.6g}; they must be probabilities of the states")
    if bool((codes < 0).any()):
        raise ValueError("codes hold negative values; pressures are of non-negative codes")
    lengths = torch.linalg.vector_norm(atoms, dim=1)
    if not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-6):
        raise ValueError(
            f"atoms have norms from {float(lengths.min()):.3g} to {float(lengths.max()):.3g}; make them unit vectors"
        )


def correlation(codes: Codes, weights: Weights) -> float:
    """Sum of squared correlations of ordered pairs; a latent that never varies correlates with none."""
    mean, centred = weights @ codes, codes - weights @ codes
    covariance = centred.T @ (centred * weights.unsqueeze(1))
    variance = covariance.diagonal()
    varies = variance > 1e-12 * (variance + mean.square())
    inverse = torch.where(varies, variance, 1.0).rsqrt() * varies
    squares = (covariance * inverse * inverse.unsqueeze(1)).square()
    return float(squares.sum() - squares.diagonal().sum())


def local_ima(codes: Codes, weights: Weights, atoms: Atoms) -> float:
    """Infinite when atoms active together are linearly dependent."""
    total = 0.0
    for weight, code in zip(weights, codes, strict=True):
        own = atoms[code > 0]
        if weight > 0 and len(own) > 1:
            total -= 0.5 * float(weight * torch.logdet(own @ own.T))
    return total


def hfs(codes: Codes) -> float:
    """Mean over pairs of latents of the largest squared distance from a corner of their grid to a state; NaN for one
    latent. `codes`: the states that occur."""
    latents = codes.shape[1]
    seen = torch.nn.utils.rnn.pad_sequence([z.unique() for z in codes.T], batch_first=True, padding_value=math.nan)
    values = torch.where(seen.isnan(), seen[:, :1], seen)  # a repeated value adds no corner
    first, second = torch.triu_indices(latents, latents, offset=1)
    step = max(1, PAIR_ENTRIES // (values.shape[1] ** 2 * len(codes)))
    distances = [pair_distance(codes, values, i, j) for i, j in zip(first.split(step), second.split(step), strict=True)]
    return float(torch.cat(distances).mean()) if distances else math.nan


def pair_distance(
    codes: Codes, values: Float[Tensor, "latents values"], i: Int[Tensor, " pairs"], j: Int[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """For each pair, the largest over (a, b) of the smallest over states of (a - z_i)^2 + (b - z_j)^2."""
    along = (values[i].unsqueeze(2) - codes[:, i].T.unsqueeze(1)).square()
    across = (values[j].unsqueeze(2) - codes[:, j].T.unsqueeze(1)).square()
    return (along.unsqueeze(2) + across.unsqueeze(1)).amin(3).flatten(1).amax(1)


def nearest(atoms: Atoms) -> tuple[Float[Tensor, " latents"], Int[Tensor, " latents"]]:
    """relu(cos)^2 of each atom with the one nearest to it, and which that is (the first of equals)."""
    neighbour = nearest_atoms(atoms, torch.arange(len(atoms)))
    alone = neighbour == torch.arange(len(atoms))
    cosines = (atoms * atoms[neighbour]).sum(1).masked_fill(alone, 0.0)
    return cosines.relu().square(), neighbour
