"""Description length as a loss: the bits a token of rounded latents under a prior that follows them.

    mean over rows of  sum_j -log2 P(s_j | s_parent(j)) + sum_(j active) -log2 P_j(k_j),    k = max(1, round(z / step))
    P_j(k) = [F_j((k + 1/2) step) - F_j((k - 1/2) step)] / [1 - F_j(step / 2)],             F_j lognormal

After MDL-SAEs (arXiv 2410.11179), which only select by it. Spike and slab: gate s_j opens with probability pi_j, and
the lognormal has the mean and deviation of log z; both from moving averages, for both the most likely, no gradient.
Rounding is relaxed: k step becomes z + step u, u uniform in (-1/2, 1/2) (Balle et al. 2017), at the bits of rounding
from a random offset. A bin's lower edge is never below step / 2: without that, bits near one step can be negative.

A gate costs its latent the gate's log-odds and its value's bits. That reaches pre-activations and thresholds straight
through: the gate is 1 with the slope of 2 sigmoid((pre - theta) / temperature), so what is rare and barely active is
pushed shut; nothing opens a latent. Only active latents have the slope, above theta, where a sigmoid has half its mass:
without the 2 a gate is charged half of what it costs. With `tree`, gates are coded given a parent's (`gate_tree`): a
child is dear where the parent is silent, and a parent is paid to stay active with its children. Parents stay from
`settled` on, for a tree that follows the codes charges an absorbed parent no more than a clean one.

At weight w, the step that minimises error + w bits is sqrt(6 w / ln 2), where rounding errs by step^2 / 12.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.special import log_ndtr

from unbraid.config.settings import PositiveFloat, PositiveInt, Share, ShareBelowOne, ShareBetween
from unbraid.dictionary.codes import find_sorted, starts, unrolled
from unbraid.metrics.gate_tree import Together, gate_tree
from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.terms.statistics.moving_average import move, warm_decay

FLOOR = 1e-5
"""Smallest probability of a gate, so that a latent that comes to life is not infinitely dear."""
NARROWEST = 0.05
"""Smallest deviation of log z: about that of a constant magnitude of six steps, with the noise."""


@dataclass(frozen=True)
class Prior:
    """The prior over codes: one set of parameters per latent."""

    on: Float[Tensor, " d_sae"]
    """Probability of a gate where its parent is open."""
    off: Float[Tensor, " d_sae"]
    """Where it is shut; of roots, in any case."""
    mean: Float[Tensor, " d_sae"]
    """Of log z when active."""
    deviation: Float[Tensor, " d_sae"]


@dataclass(frozen=True, kw_only=True)
class DescriptionLength(Term):
    """The penalty in bits; the equations are in the docstring of this module."""

    step: PositiveFloat = 0.5
    """Of rounding, in units of (normalised) latents."""
    temperature: PositiveFloat = 0.1
    """Softness of a gate, in units of (normalised) pre-activations."""
    tree: bool = False
    """Code gates given a parent's."""
    leak: ShareBetween = 0.01
    """Largest probability that a child is given where its parent is silent."""
    settled: Share = 0.3
    """Share of training from which parents stay as they are."""
    apart: PositiveInt = 50
    """Applications from one choice of parents to the next."""
    rows: PositiveInt = 512
    """Rows on which parents are chosen."""
    decay: ShareBelowOne = 0.99
    """Of the moving averages."""
    family: ClassVar[Family] = "sparsity"
    standard: ClassVar[bool] = True
    """By choice: MDL-SAEs, which the field selects and we train too, are what disentanglement has to beat, not an
    instance of it."""

    def __call__(self, step: Step) -> TermOutput:
        values, rows, latents = step.z.entries()
        noise = torch.rand(len(values), generator=step.rng, dtype=torch.float64).to(values) - 0.5
        relaxed = values.clamp_min(self.step) + self.step * noise
        parent = self._parents(step, rows, latents)
        above = entry_of(rows, latents, parent, step.z.d_sae)
        prior = self._follow(step, relaxed.detach(), latents, parent, above)
        opened = self._opened(step, rows, latents)
        of_values = value_bits(relaxed, prior.mean[latents], prior.deviation[latents], self.step)
        value = (opened * of_values).sum() / step.z.batch
        gate = gate_bits(opened, latents, above, parent, prior, step.z.batch)
        metrics = {"gate_bits": gate, "value_bits": value}
        return TermOutput(gate + value, metrics | ({"children": (parent >= 0).sum()} if self.tree else {}))

    def _opened(self, step: Step, rows: Int[Tensor, " nnz"], latents: Int[Tensor, " nnz"]) -> Float[Tensor, " nnz"]:
        """1, with the slope of a soft gate."""
        pre = step.z.pre[step.z.values.detach() != 0]
        opens = step.dictionary.activation.thresholds(step.dictionary, step.z, rows, latents)
        soft = 2 * torch.sigmoid((pre - opens) / self.temperature)
        return 1 + soft - soft.detach()

    def _parents(self, step: Step, rows: Int[Tensor, " nnz"], latents: Int[Tensor, " nnz"]) -> Int[Tensor, " d_sae"]:
        """The parent of each latent, -1 for roots; chosen anew on this batch when it is time to."""
        seen = int(step.memory.get("seen", torch.zeros(())))
        known = step.memory.get("parent", torch.full_like(step.dead, -1, dtype=torch.long))
        if not self.tree or (seen and (step.progress >= self.settled or seen % self.apart)):
            return known
        some = rows < self.rows
        count = min(self.rows, step.z.batch)
        fired = torch.bincount(latents[some], minlength=step.z.d_sae).double()
        found = gate_tree(fired, together(rows[some], latents[some], count), count, leak=self.leak)
        step.memory.update(parent=found.parent, together=(found.together / count).to(step.x))
        return found.parent

    @torch.no_grad()
    def _follow(
        self, step: Step, relaxed: Float[Tensor, " nnz"], latents: Int[Tensor, " nnz"],
        parent: Int[Tensor, " d_sae"], above: Int[Tensor, " nnz"],
    ) -> Prior:  # fmt: skip
        """The prior that moving averages with this batch give."""
        memory, logs = step.memory, relaxed.log()
        sums = lambda of: of.new_zeros(step.z.d_sae).index_add_(0, latents, of) / step.z.batch
        fresh = {"rate": torch.ones_like(logs), "log": logs, "square": logs.square(), "together": (above >= 0).to(logs)}
        keep = warm_decay(memory, self.decay)
        for name, of in fresh.items():
            move(memory, name, sums(of), keep)
        rate, some = memory["rate"], memory["rate"].clamp_min(1e-12)
        mean = memory["log"] / some
        deviation = (memory["square"] / some - mean.square()).clamp_min(NARROWEST**2).sqrt()
        child, of_parent = parent >= 0, rate[parent.clamp_min(0)]
        on = memory["together"] / of_parent.clamp_min(1e-12)
        off = ((rate - memory["together"]) / (1 - of_parent).clamp_min(1e-12)).clamp_max(self.leak)
        on, off = (torch.where(child, p, rate).clamp(FLOOR, 1 - FLOOR) for p in (on, off))
        return Prior(on, off, mean, deviation)


def value_bits(
    values: Float[Tensor, " nnz"], mean: Float[Tensor, " nnz"], deviation: Float[Tensor, " nnz"], step: float
) -> Float[Tensor, " nnz"]:
    """-log2 of the lognormal's mass within half a step of each value, given that it is above half a step."""
    score = lambda x: (x.log() - mean) / deviation
    low, high = score((values - step / 2).clamp_min(step / 2)), score(values + step / 2)
    flipped = low + high > 0  # in the lower tail the difference of two distribution functions keeps its digits
    low, high = torch.where(flipped, -high, low), torch.where(flipped, -low, high)
    mass = log_ndtr(high) + torch.log(-torch.expm1(log_ndtr(low) - log_ndtr(high)))
    return (log_ndtr(-score(torch.full_like(values, step / 2))) - mass) / math.log(2)


def gate_bits(
    opened: Float[Tensor, " nnz"], latents: Int[Tensor, " nnz"], above: Int[Tensor, " nnz"],
    parent: Int[Tensor, " d_sae"], prior: Prior, batch: int,
) -> Float[Tensor, ""]:  # fmt: skip
    """-log2 P of all gates, averaged over rows: all shut, then what each open one changes, then each open pair."""
    on, off, child = prior.on, prior.off, parent >= 0
    shut = -torch.log1p(-off)
    under_open = torch.log1p(-off) - torch.log1p(-on)  # what a silent child costs more beside an open parent
    as_parent = off.new_zeros(len(off)).index_add(0, parent[child], under_open[child])
    alone = torch.log1p(-off) - off.log() + as_parent
    both = on.log() - off.log() + under_open
    paired = (above >= 0).nonzero().squeeze(1)
    pairs = (opened[paired] * opened[above[paired]] * both[latents[paired]]).sum()
    return (shut.sum() + ((opened * alone[latents]).sum() - pairs) / batch) / math.log(2)


def entry_of(
    rows: Int[Tensor, " nnz"], latents: Int[Tensor, " nnz"], parent: Int[Tensor, " d_sae"], d_sae: int
) -> Int[Tensor, " nnz"]:
    """The entry that is the parent of each, in the same row; -1 where it has none, or it is silent."""
    keys, wanted = rows * d_sae + latents, rows * d_sae + parent[latents]
    place, there = find_sorted(keys, wanted)
    return torch.where((parent[latents] >= 0) & there, place, -1)


def together(rows: Int[Tensor, " nnz"], latents: Int[Tensor, " nnz"], count: int) -> Together:
    """All ordered pairs of latents that are active in the same of `count` rows. Entries are row by row."""
    in_row = torch.bincount(rows, minlength=count)
    repeats = in_row[rows]
    child, within = unrolled(repeats)
    parent = starts(in_row)[rows[child]] + within
    pairs = torch.stack([latents[child], latents[parent]], 1)
    found, counts = pairs.unique(dim=0, return_counts=True)
    return Together(found[:, 0], found[:, 1], counts.double())
