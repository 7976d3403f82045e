"""Hausdorff factorised support (HFS, Roth et al. ICLR 2023): whatever two latents do apart they also do together.

    mean over pairs of max over (a, b) in S_i x S_j of min over rows of (a - z_i)^2 + (b - z_j)^2

Latents may correlate; no combination may be missing. Differences from the paper, which has ten dense latents: only
pairs are drawn that chance would show together `least` times among the rows known, since a pair of rare latents is
never seen together and would only learn to shrink; rows known are a queue of past codes and the batch; corners are a
grid of values that either takes in the batch, silence among them, and keep their gradient (without it training
diverges, says the released code); near points are looked for among the latest rows in which both, or either, fire;
values are in units of each latent's 99th percentile, that of a normal with its active values' moving moments.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from annotated_types import Ge, Lt
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, PositiveInt, ShareBelowOne
from unbraid.dictionary.codes import find_sorted, starts
from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.system.devices import sent
from unbraid.terms.statistics.firing_averages import Moments, averaged
from unbraid.terms.statistics.past_codes import Entries, PastCodes

PERCENTILE = 2.326
"""Standard deviations from the mean of a normal to its 99th percentile."""
SILENT = -1
"""In place of an entry: a latent that does not fire."""
TABLE = 2**22
"""Entries of a table of places, at most: 16 MB. Beyond it places are searched for."""
PAIRS = 16
"""Pairs whose distances are worked out together: about as many as stay in cache."""


@dataclass(frozen=True, kw_only=True)
class Support(Term):
    """The penalty on supports that do not factorise; the equations are in the docstring of this module."""

    start: float = 0.2
    every: int = 2
    pairs: Annotated[int, Ge(1), Lt(2**14)] = 256  # slots are sorted as 16-bit numbers
    """Pairs of latents drawn each time."""
    values: PositiveInt = 8
    """Values of each latent whose combinations are the corners."""
    points: PositiveInt = 64
    """Latest rows looked at in which both fire, and in which either does."""
    reach: Annotated[int, Ge(1), Lt(2**15)] = 512  # and so are ages
    """Latest firings of the rarer latent among which rows with both are looked for."""
    least: NonNegativeFloat = 5.0
    """Rows with both that independence would give."""
    decay: ShareBelowOne = 0.99
    """Of the moving moments that values are scaled by."""
    family: ClassVar[Family] = "independence"

    def __call__(self, step: Step) -> TermOutput:
        average, _ = averaged(step.z, step.memory, self.decay)
        past = PastCodes(step.memory)
        known = past.with_past(step.z)
        past.push(step.z)
        firing = step.z.firings()
        pairs = likely_pairs(known, firing > 0, self.pairs, self.least, step.rng)
        if not len(pairs):
            return step.no_loss({"pairs": step.x.new_zeros(())})
        entries, unit = Grouped.of(known, pairs), percentile(average)[pairs].t()
        corners = torch.stack([self._corners(entries, firing[pairs[:, side]], side, step.rng) for side in (0, 1)])
        points, exists = self._points(entries)
        scaled = lambda at: entries.values_at(at) / unit.unsqueeze(2)
        corner, point = deciding(scaled(corners), scaled(points), exists)
        ends = [corners.gather(2, corner.unsqueeze(2)), points.gather(2, point.expand(2, -1).unsqueeze(2))]
        values, _, _ = step.z.entries()
        apart = (entries.values_at(ends[0], values) - entries.values_at(ends[1], values)).squeeze(2) / unit
        return TermOutput(apart.square().sum(0).mean(), {"pairs": step.x.new_tensor(len(pairs))})

    def _corners(
        self, entries: "Grouped", firing: Int[Tensor, " pairs"], side: int, rng: torch.Generator
    ) -> Int[Tensor, "pairs values"]:
        """Silence, where the latent ever is, and random entries of this batch, which stand last."""
        slots = entries.slots[:, side]
        draw = sent(torch.rand(len(firing), self.values, generator=rng), firing.device)
        at = entries.ends[slots].unsqueeze(1) - 1 - (draw * firing.unsqueeze(1)).long()
        at[:, 0] = torch.where(entries.counts[slots] < entries.rows_known, SILENT, at[:, 0])
        return at

    def _points(self, entries: "Grouped") -> tuple[Int[Tensor, "2 pairs points"], Bool[Tensor, "pairs points"]]:
        """Entries of both latents in the latest rows with both, with the rarer, with the other, and with neither."""
        rarer, other = entries.slots.unbind(1)
        own, is_own = entries.latest(rarer, self.reach)
        partner = entries.partners(own, is_own, other)
        together = partner != SILENT
        age = torch.arange(self.reach, 0, -1, device=own.device, dtype=torch.int16)
        newest = (together * age).topk(min(self.points, self.reach), dim=1).indices
        few = slice(0, self.points)
        theirs, is_theirs = entries.latest(other, self.points)
        neither = torch.full_like(rarer.unsqueeze(1), SILENT)
        first = [own.gather(1, newest), own[:, few], entries.partners(theirs, is_theirs, rarer), neither]
        second = [partner.gather(1, newest), partner[:, few], theirs, neither]
        # Whether a row has neither is certain while every firing of the rarer is within reach, else by proportion.
        share = together.sum(1) / is_own.sum(1).clamp_min(1)
        fired = entries.counts[rarer] * (1 - share) + entries.counts[other]
        quiet = (fired < entries.rows_known - 0.5).unsqueeze(1)
        exists = torch.cat([together.gather(1, newest), is_own[:, few], is_theirs, quiet], 1)
        return torch.stack([torch.cat(first, 1), torch.cat(second, 1)]), exists


def likely_pairs(
    known: Entries, eligible: Bool[Tensor, " d_sae"], count: int, least: float, rng: torch.Generator
) -> Int[Tensor, "pairs 2"]:
    """Random pairs, rarer first, out of all with so many expected rows in common; a latent drawn with itself is left
    out."""
    counts = torch.bincount(known.latents, minlength=len(eligible)) * eligible
    ordered, latents = counts.sort()
    needed = least * known.count / ordered.clamp_min(1).double()
    partners = (len(ordered) - torch.searchsorted(ordered.double(), needed)) * (ordered > 0)
    ends = partners.cumsum(0)
    total = int(ends[-1])
    if not total:
        return latents.new_zeros(0, 2)
    draw = sent((torch.rand(count, generator=rng, dtype=torch.float64) * total).long(), latents.device)
    first = torch.searchsorted(ends, draw, right=True)
    second = len(ordered) - 1 - (draw - (ends - partners)[first])
    pairs = torch.stack([torch.minimum(first, second), torch.maximum(first, second)], 1)
    return latents[pairs[first != second]]


def percentile(average: Moments) -> Float[Tensor, " d_sae"]:
    """The 99th of active values, taken for normal."""
    rate = average.rate.clamp_min(1e-12)
    mean = average.mean / rate
    deviation = (average.square / rate - mean.square()).clamp_min(0).sqrt()
    return (mean + PERCENTILE * deviation).clamp_min(1e-12)


class Grouped(NamedTuple):
    """Entries of the latents of some pairs, latent by latent (a slot each), rows ascending within."""

    values: Float[Tensor, " nnz"]
    keys: Int[Tensor, " nnz"]
    """slot * rows_known + row: ascending."""
    fresh: Int[Tensor, " nnz"]
    """Place among the entries of the batch; negative of older ones."""
    slots: Int[Tensor, "pairs 2"]
    counts: Int[Tensor, " slots"]
    ends: Int[Tensor, " slots"]
    rows_known: int
    table: Int[Tensor, " cell"] | None
    """The place of every key, SILENT where there is none; None where it would be too large."""

    @classmethod
    def of(cls, known: Entries, pairs: Int[Tensor, "pairs 2"]) -> "Grouped":
        chosen, slots = pairs.unique(return_inverse=True)
        slot = torch.full((known.d_sae,), -1, dtype=torch.int16, device=pairs.device)
        slot[chosen] = torch.arange(len(chosen), dtype=torch.int16, device=pairs.device)
        slot = slot.index_select(0, known.latents)
        held = (slot >= 0).nonzero().squeeze(1)
        # Rows ascend already; a stable sort of 16-bit numbers takes an eighth of the time of sorting the keys.
        slot, order = slot.index_select(0, held).sort(stable=True)
        held, slot = held.index_select(0, order), slot.long()
        counts = torch.bincount(slot, minlength=len(chosen))
        keys = slot * known.count + known.rows.index_select(0, held)
        values = known.values.index_select(0, held)
        table = None
        if len(chosen) * known.count <= TABLE:
            table = torch.full((len(chosen) * known.count,), SILENT, dtype=torch.int32, device=pairs.device)
            table[keys] = torch.arange(len(keys), dtype=torch.int32, device=pairs.device)
        return cls(values, keys, held - known.old, slots, counts, starts(counts) + counts, known.count, table)

    def values_at(self, at: Int[Tensor, "*fold"], batch: Float[Tensor, " new"] | None = None) -> Float[Tensor, "*fold"]:
        """Values of entries, 0 of silence; those of the batch from `batch`, which has gradient."""
        found = self.values[at.clamp_min(0)]
        if batch is not None:
            fresh = self.fresh[at.clamp_min(0)]
            found = torch.where(fresh >= 0, batch[fresh.clamp_min(0)], found.to(batch.dtype))
        return found.masked_fill(at == SILENT, 0.0)

    def latest(
        self, slots: Int[Tensor, " pairs"], count: int
    ) -> tuple[Int[Tensor, "pairs count"], Bool[Tensor, "pairs count"]]:
        """The latest entries, and which of them there are."""
        back = torch.arange(count, device=slots.device)
        return (self.ends[slots].unsqueeze(1) - 1 - back).clamp_min(0), back < self.counts[slots].unsqueeze(1)

    def partners(
        self, at: Int[Tensor, "pairs count"], there: Bool[Tensor, "pairs count"], slots: Int[Tensor, " pairs"]
    ) -> Int[Tensor, "pairs count"]:
        """Another latent's entries in the same rows; SILENT where it has none."""
        wanted = slots.unsqueeze(1) * self.rows_known + self.keys[at] % self.rows_known
        if self.table is not None:  # in a fifth of the time of a search
            return self.table[wanted].long().masked_fill(~there, SILENT)
        found, fires = find_sorted(self.keys, wanted)
        return found.masked_fill(~(there & fires), SILENT)


def deciding(
    corners: Float[Tensor, "2 pairs values"],
    points: Float[Tensor, "2 pairs points"],
    exists: Bool[Tensor, "pairs points"],
) -> tuple[Int[Tensor, "2 pairs"], Int[Tensor, " pairs"]]:
    """The corner (a value of either) farthest from its nearest point, and that point."""
    along, across = (corners.unsqueeze(3) - points.unsqueeze(2)).square()
    along = along.masked_fill(~exists.unsqueeze(1), torch.inf)
    parts = [nearest_of_farthest(*part) for part in zip(along.split(PAIRS), across.split(PAIRS), strict=True)]
    farthest, point = (torch.cat(column) for column in zip(*parts, strict=True))
    width = corners.shape[2]
    return torch.stack([farthest.div(width, rounding_mode="floor"), farthest % width]), point


def nearest_of_farthest(
    along: Float[Tensor, "pairs values points"], across: Float[Tensor, "pairs values points"]
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """The corner whose nearest point is farthest, of all pairs of values, and that point. Distances are `along` one
    latent and `across` it."""
    apart = (along.unsqueeze(2) + across.unsqueeze(1)).flatten(1, 2)
    farthest = apart.amin(2).argmax(1)
    return farthest, apart[torch.arange(len(apart), device=apart.device), farthest].argmin(1)
