"""Relaxed decoder orthogonality: only cosines above a threshold are charged, in random chunks.

    mean_i relu(cos(d_i, d_j*) - threshold)^2,   j* = argmax_{j != i in chunk(i)} cos(d_i, d_j)

OrtSAE's penalty (arXiv 2509.22033) with a dead zone: related factors may share some direction for free. Charging the
nearest atom alone is zero exactly where charging every pair of the chunk is, at half the products. Its minimum can be
gamed by parking atoms at the threshold, so how many stand there is measured.
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.config.serialise import added
from unbraid.config.settings import ShareBelowOne, TwoOrMore
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.terms.statistics.metric import Metric, atoms_in
from unbraid.terms.statistics.nearest_atoms import drawn_neighbours

PARKED = 0.02
"""Cosines so little below the threshold count as parked there."""


@dataclass(frozen=True, kw_only=True)
class OrthogonalityHinge(Term):
    every: int = 5
    threshold: ShareBelowOne = 0.2
    """Cosine that is free. Welch's bound, sqrt((m - d) / (d (m - 1))), is the least that m atoms can all keep to (0.044
    for 16k in 512 dimensions); the nearest of m random atoms is at about sqrt(2 ln(m) / d), 0.195 there: the default
    charges what is more alike than chance. Narrow spaces need more."""
    chunk: TwoOrMore = 2048
    """Atoms compared with one another, drawn anew each time; cost grows with it. Published: 8192."""
    metric: Metric = added("trained")
    """Measure cosines of atoms as trained, or of the directions they write along in raw activations: another matter
    where activations are whitened."""
    reads: ClassVar[tuple[Reads, ...]] = ("decoder",)
    family: ClassVar[Family] = "geometry"

    def __call__(self, step: Step) -> TermOutput:
        _, _, cosines = drawn_neighbours(atoms_in(self.metric, step), self.chunk, step.rng)
        seen = cosines.detach()
        parked = (seen > self.threshold - PARKED) & (seen <= self.threshold)
        above = seen > self.threshold
        metrics = {"max_cosine": seen.mean(), "parked": parked.float().mean(), "above": above.float().mean()}
        return TermOutput((cosines - self.threshold).relu().square().mean(), metrics)
