"""Two tokens of one document as two views: latents should stay, and go with no others (Barlow Twins, VICReg).

    barlow   1/n [ sum_i (1 - C_ii)^2 + l sum_(i != j) C_ij^2 ],   C_ij = corr(z_i, z'_j) over pairs of tokens (z, z')
    vicreg   1/n [ E sum_i (z_i - z'_i)^2 / var_i + l sum_(i != j) (corr(z_i, z_j)^2 + corr(z'_i, z'_j)^2) ]

over n latents compared (Zbontar et al. 2021; Bardes et al. 2022). Squares are unbiased: two halves of the documents, A
and B, give sum_ij C_ij^2 as <Z_A Z_B', Z'_A Z'_B'> of centred columns (`pair_sums`), and C_ii^2 likewise. Deviations
are moving averages, without gradient. VICReg's hinge on deviations is left out: unit variance contradicts rare latents,
and the hinge on firing rates that would take its place has no gradient where it matters, at latents silent in the
batch: those are AuxK's.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, ShareBelowOne, TwoOrMore
from unbraid.dictionary.codes import find_sorted, starts
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.system.devices import sent
from unbraid.terms.statistics.firing_averages import averaged
from unbraid.terms.statistics.pair_sums import SparseColumns, centred_products, rows_of, split_half

Rows = Int[Tensor, " pairs"]

PUBLISHED = {"barlow": 0.0051, "vicreg": 1 / 25}
"""Weight of the decorrelation relative to the invariance, in the papers' released code."""


@dataclass(frozen=True, kw_only=True)
class Redundancy(Term):
    start: float = 0.1
    form: Literal["barlow", "vicreg"] = "barlow"
    """Whose loss."""
    decorrelation: NonNegativeFloat = 0.0
    """l, the share of the sum over pairs of latents; 0: as published."""
    pairs: TwoOrMore = 512
    """Pairs of tokens, at most; cost grows with the square."""
    rarest: ShareBelowOne = 1e-3
    """Firing rate that a latent needs to be compared."""
    decay: ShareBelowOne = 0.99
    """Of the moving averages that deviations come from."""
    reads: ClassVar[tuple[Reads, ...]] = ("codes", "documents")
    family: ClassVar[Family] = "weak supervision"

    def __call__(self, step: Step) -> TermOutput:
        average, deviation = averaged(step.z, step.memory, self.decay)
        kept = average.living(self.rarest)
        halves = token_pairs(step.batch.documents, self.pairs, step.rng)
        count = sum(len(rows) for rows, _ in halves)
        metrics = {"pairs": step.x.new_tensor(count), "compared": step.x.new_tensor(len(kept))}
        if min(len(rows) for rows, _ in halves) < 2:
            return step.no_loss(metrics)
        scaled = lambda z, latents: z / deviation[latents].unsqueeze(1)
        (a, a_too), (b, b_too) = (
            tuple(rows_of(step.z, rows).restricted(kept).mapped(scaled) for rows in half) for half in halves
        )
        stay, others = (barlow if self.form == "barlow" else vicreg)(a, a_too, b, b_too)
        share = self.decorrelation if self.decorrelation > 0 else PUBLISHED[self.form]
        width = max(1, len(kept))
        metrics |= {"stay": stay / width, "others": others / width}
        return TermOutput((stay + share * others) / width, metrics)


def token_pairs(documents: Int[Tensor, " batch"], count: int, rng: torch.Generator) -> list[tuple[Rows, Rows]]:
    """Random pairs of rows of one document, no row twice, in two halves that share no document. Rows of no known
    document, -1, are left out."""
    order = sent(torch.randperm(len(documents), generator=rng), documents.device)
    order = order[documents[order] >= 0]
    order = order[documents[order].argsort(stable=True)]
    _, inverse, sizes = documents[order].unique(return_inverse=True, return_counts=True)
    rank = torch.arange(len(order), device=order.device) - starts(sizes)[inverse]
    first = ((rank % 2 == 0) & (rank + 1 < sizes[inverse])).nonzero().squeeze(1)
    first = first[sent(torch.randperm(len(first), generator=rng), order.device)[:count]]
    side = sent(torch.randperm(len(sizes), generator=rng), order.device)[inverse[first]] % 2
    return [(order[part], order[part + 1]) for part in (first[side == 0], first[side == 1])]


def barlow(a: SparseColumns, a_too: SparseColumns, b: SparseColumns, b_too: SparseColumns) -> tuple[Tensor, Tensor]:
    """Sums over latents of (1 - C_ii)^2, and over pairs of C_ij^2; a, a_too: two views of one half."""
    degrees = (a.batch - 1) * (b.batch - 1)
    everything = (centred_products(a, b) * centred_products(a_too, b_too)).sum() / degrees
    own, own_too = same_latent(a, a_too), same_latent(b, b_too)
    return ((1 - own) * (1 - own_too)).sum(), everything - (own * own_too).sum()


def vicreg(a: SparseColumns, a_too: SparseColumns, b: SparseColumns, b_too: SparseColumns) -> tuple[Tensor, Tensor]:
    """Sums over latents of the squared change from view to view, and over pairs of squared correlations."""
    change = torch.stack([squared_change(a, a_too), squared_change(b, b_too)]).sum() / (a.batch + b.batch)
    return change, split_half(a, b) + split_half(a_too, b_too)


def same_latent(one: SparseColumns, other: SparseColumns) -> Float[Tensor, " width"]:
    """Covariance of each latent with itself in the other view."""
    products, places = matched(one, other)
    sums = products.new_zeros(len(one.kept)).index_add(0, places, products)
    return (sums - one.batch * (one.means() * other.means()).squeeze(1)) / (one.batch - 1)


def squared_change(one: SparseColumns, other: SparseColumns) -> Float[Tensor, ""]:
    return one.values.square().sum() + other.values.square().sum() - 2 * matched(one, other)[0].sum()


def matched(one: SparseColumns, other: SparseColumns) -> tuple[Float[Tensor, " both"], Int[Tensor, " both"]]:
    """Products of the values of latents active in both views of a pair, and which latents."""
    keys, sought = (part.rows * len(part.kept) + part.places for part in (one, other))
    sought, order = sought.sort()
    at, found = find_sorted(sought, keys)
    both = found.nonzero().squeeze(1)
    return one.values[both, 0] * other.values[order[at[both]], 0], one.places[both]
