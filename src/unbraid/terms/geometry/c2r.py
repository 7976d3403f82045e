"""Cross-sample consistency: atoms should be unlike their nearest neighbour where they are used (C2R, arXiv 2606.30609).

    sum:            1/m sum_i (n_i + n_j*)^exponent relu(cos(d_i, d_j*))^2
    coactivation:   1/m sum_i <z_i, z_j*> / (|z_i| |z_j*|) relu(cos(d_i, d_j*))^2

j* is the nearest atom of the chunk, z_i the values of latent i over the batch, n_i = |z_i| / sqrt(batch) its root mean
square. The paper speaks of co-activation; the released code sums norms (exponent 1), which charges a pair as soon as
either is used, and lets a loss fall by shrinking latents. The second form is what was spoken of: it is blind to
duplicates that never fire together. Released norms are not divided by sqrt(batch); their weight of 5 is 5 sqrt(batch)
here.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, TwoOrMore
from unbraid.dictionary.codes import Codes, find_sorted
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.terms.statistics.nearest_atoms import drawn_neighbours


@dataclass(frozen=True, kw_only=True)
class C2R(Term):
    weight: float = (
        5.0  # as released, where norms are not divided by sqrt(batch): much less here; gradient_ratio says what it does
    )
    every: int = 5  # as released
    form: Literal["sum", "coactivation"] = "sum"
    """sum: as released, use of either latent counts. coactivation: use of both in one row."""
    exponent: NonNegativeFloat = 1.0
    """Of the summed norms, in the sum form."""
    chunk: TwoOrMore = 2048
    """Atoms compared with one another, drawn anew each time; cost grows with it. Published: 8192."""
    reads: ClassVar[tuple[Reads, ...]] = ("codes", "decoder")
    family: ClassVar[Family] = "geometry"

    def __call__(self, step: Step) -> TermOutput:
        order, nearest, cosines = drawn_neighbours(step.dictionary.W_dec, self.chunk, step.rng)
        rms = root_mean_squares(step.z)
        if self.form == "sum":
            # Silent pairs have no gradient: of a power below 1 it would be infinite.
            use = (rms[order] + rms[nearest]).clamp_min(1e-12).pow(self.exponent)
        else:
            neighbours = torch.empty_like(order).index_copy_(0, order, nearest)
            alignment = mean_products(step.z, neighbours)[order] / (rms[order] * rms[nearest]).clamp_min(1e-12)
            use = alignment.masked_fill(order == nearest, 0.0)
        return TermOutput((use * cosines.relu().square()).mean(), {"max_cosine": cosines.mean(), "use": use.mean()})


def root_mean_squares(z: Codes) -> Float[Tensor, " d_sae"]:
    """Root mean square of each latent over the batch; a silent one has 0 and no gradient."""
    values, _, latents = z.entries()
    squares = values.new_zeros(z.d_sae).index_add(0, latents, values.square()) / z.batch
    silent = squares == 0
    return squares.masked_fill(silent, 1.0).sqrt().masked_fill(silent, 0.0)


def mean_products(z: Codes, neighbours: Int[Tensor, " d_sae"]) -> Float[Tensor, " d_sae"]:
    """For each latent, the mean over rows of its value times its neighbour's; nothing of batch x d_sae is made."""
    values, rows, latents = z.entries()
    # Entries stand row by row, latents ascending, so their places in the matrix are sorted and can be looked up.
    found, both = find_sorted(rows * z.d_sae + latents, rows * z.d_sae + neighbours[latents])
    products = torch.where(both, values * values[found], 0.0)
    return values.new_zeros(z.d_sae).index_add(0, latents, products) / z.batch
