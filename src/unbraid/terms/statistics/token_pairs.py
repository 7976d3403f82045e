"""Two tokens of one document that a batch holds, and how the codes of chosen pairs of rows differ.

A batch is shuffled from a block that holds few documents, so that most of its rows have others of their document in it:
no token is encoded twice.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dictionary.codes import Codes, find_sorted, starts, unrolled
from unbraid.sources.base import Batch
from unbraid.terms.statistics.firing_averages import averaged

DECAY = 0.99
"""Of the moving averages that latents are scaled by."""


class RowPairs(NamedTuple):
    """Row `later` of a batch and row `earlier` are tokens of one document, in that order."""

    later: Int[Tensor, " pair"]
    earlier: Int[Tensor, " pair"]


def earlier_tokens(batch: Batch, rng: torch.Generator, *, nearest: bool) -> RowPairs:
    """Every row that is not the first of its document in the batch, with the one before it in the document (`nearest`)
    or any one before it, at random."""
    documents, positions = batch.documents.cpu(), batch.positions.cpu()
    order = positions.argsort(stable=True)
    order = order[documents[order].argsort(stable=True)]
    sorted_documents = documents[order]
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = sorted_documents[1:] != sorted_documents[:-1]
    index = torch.arange(len(order))
    start = torch.where(first, index, 0).cummax(0).values
    rank = index - start
    chosen = rank - 1 if nearest else (torch.rand(len(rank), generator=rng) * rank).long()
    kept = rank > 0
    pairs = order[kept], order[(start + chosen)[kept]]
    return RowPairs(*(rows.to(batch.documents.device) for rows in pairs))


class CodeDifferences(NamedTuple):
    """The differences between paired codes: every latent active in either row, once a pair."""

    change: Float[Tensor, " entry"]
    """The value in the first row less that in the second."""
    pairs: Int[Tensor, " entry"]
    latents: Int[Tensor, " entry"]


def code_differences(z: Codes, one: Int[Tensor, " pair"], other: Int[Tensor, " pair"]) -> CodeDifferences:
    """The codes of rows `one` and `other`, pair by pair, on the union of their supports. Differentiable."""
    values, rows, latents = z.entries()
    keys = rows * z.d_sae + latents  # ascending: entries come row by row, latents ascending within
    per_row = torch.bincount(rows, minlength=z.batch)
    row_starts = starts(per_row)

    def of(chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Entries of the chosen rows, and which pair each belongs to."""
        pair, within = unrolled(per_row[chosen])
        return row_starts[chosen][pair] + within, pair

    def value_at(chosen: Tensor, pair: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Values of latents `which` in rows chosen[pair], 0 where inactive, and whether they are active."""
        place, active = find_sorted(keys, chosen[pair] * z.d_sae + which)
        return torch.where(active, values[place], 0.0), active

    at_one, pair_one = of(one)
    at_other, pair_other = of(other)
    at_other_row, _ = value_at(other, pair_one, latents[at_one])
    _, shared = value_at(one, pair_other, latents[at_other])
    alone = at_other[~shared]  # active in the other row only
    return CodeDifferences(
        torch.cat([values[at_one] - at_other_row, -values[alone]]),
        torch.cat([pair_one, pair_other[~shared]]),
        torch.cat([latents[at_one], latents[alone]]),
    )


def usual_size(z: Codes, memory: dict[str, Tensor]) -> Float[Tensor, " d_sae"]:
    """Root mean square of each latent where it is active, from moving averages in `memory`; 1 until it has fired."""
    rms = averaged(z, memory, DECAY)[0].rms()
    return torch.where(rms > 0, rms, 1.0)
