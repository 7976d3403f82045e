"""Detection of factors by latents, from counts of rows: F1 of pairs, and the factor each latent represents.

    f1 = 2 joint / (latent + factor),   purity = (precision - base) / (1 - base),   precision = joint / latent

latent, factor and joint are the rows in which each is active, or both; base is the share of rows in which the factor
is, so that purity is 0 for a latent that fires regardless of the factor, however common, and 1 for one that never fires
without it.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from torch import Tensor

from unbraid.metrics.latents_and_factors import LatentsAndFactors
from unbraid.metrics.matching import Pairs, block_pairs

PURE = 0.5
"""Purity from which a latent represents a factor."""
FEWEST = 10
"""Rows on which a statement about one latent or factor must rest."""


class Detection(NamedTuple):
    """Pairs of a latent and a factor: rows in which each is active, and both are."""

    factor_counts: Float[Tensor, " pairs"]
    latent_counts: Float[Tensor, " pairs"]
    joint_counts: Float[Tensor, " pairs"]

    @property
    def precision(self) -> Float[Tensor, " pairs"]:
        """Precision, 0 for a latent that never fires."""
        return self.joint_counts / self.latent_counts.clamp_min(1)

    @property
    def recall(self) -> Float[Tensor, " pairs"]:
        """Recall, 0 for a factor that is never active."""
        return self.joint_counts / self.factor_counts.clamp_min(1)

    @property
    def f1(self) -> Float[Tensor, " pairs"]:
        return 2 * self.joint_counts / (self.latent_counts + self.factor_counts).clamp_min(1)


def detection(observed: LatentsAndFactors, latents: Int[Tensor, " pairs"], factors: Int[Tensor, " pairs"]) -> Detection:
    """Count the given pairs alone."""
    counts = torch.zeros(len(latents), dtype=torch.float64)
    if len(latents):  # scipy gives another kind of array for none, and takes no view of a tensor
        counts[:] = torch.from_numpy(observed.joint_counts[latents.numpy().copy(), factors.numpy().copy()])
    return Detection(observed.factor_counts[factors], observed.latent_counts[latents], counts)


def f1(observed: LatentsAndFactors) -> csr_array:
    """Return F1 of every latent with every factor [d_sae, factors]; the 0 of pairs never active together are not
    stored."""
    both = observed.joint_counts.tocoo()
    sizes = observed.latent_counts.numpy()[both.row] + observed.factor_counts.numpy()[both.col]
    return csr_array((2 * both.data / sizes, (both.row, both.col)), shape=both.shape)


def f1_pairs(observed: LatentsAndFactors) -> Pairs:
    """Return latents matched one to one with the factors they detect, by F1."""
    similarity = f1(observed)
    d_sae, factors = len(observed.latent_counts), len(observed.factor_counts)
    return block_pairs(lambda part: torch.from_numpy(similarity[part].toarray()), d_sae, factors)


def represented_factor(observed: LatentsAndFactors) -> Int[np.ndarray, " d_sae"]:
    """Return the factor each latent represents: of those it fires for with purity 0.5 or more, the one of the highest
    F1.

    -1 for latents that represent none. A child's latent fires for the parent with purity 1 too, and represents the
    child; one of n equal parts of a factor represents it whatever n.
    """
    both = observed.joint_counts.tocoo()
    often = both.data >= FEWEST
    latent, factor, count = both.row[often], both.col[often], both.data[often]
    fired, present = observed.latent_counts.numpy()[latent], observed.factor_counts.numpy()[factor]
    # purity >= PURE without dividing: a factor that is always active has none.
    excess, room = count * observed.rows - present * fired, (observed.rows - present) * fired
    pure = (excess >= PURE * room) & (room > 0)
    latent, factor = latent[pure], factor[pure]
    score = 2 * count[pure] / (fired[pure] + present[pure])
    return best_of_latents(latent, factor, score, len(observed.latent_counts))


def best_factor(observed: LatentsAndFactors) -> Int[np.ndarray, " d_sae"]:
    """Return the factor that each latent detects best, by F1; -1 where it never fires with any."""
    scores = f1(observed).tocoo()
    return best_of_latents(scores.row, scores.col, scores.data, len(observed.latent_counts))


def best_of_latents(
    latent: Int[np.ndarray, " pairs"], factor: Int[np.ndarray, " pairs"], score: Float[np.ndarray, " pairs"], d_sae: int
) -> Int[np.ndarray, " d_sae"]:
    """Return the factor of the highest score of each latent, of equal ones the first; -1 for latents without a pair."""
    best = np.full(d_sae, -1)
    order = np.lexsort((-factor, score, latent))  # ascending: the last of a latent is its best
    best[latent[order]] = factor[order]
    return best
