"""Decoder orthogonality, max-cosine in random chunks (OrtSAE, arXiv 2509.22033).

    mean_i max_{j != i in chunk(i)} relu(cos(d_i, d_j))^2

The nearest neighbours are found without gradient, a few rows at a time; only the chosen m cosines are
differentiated, which equals the dense gradient away from ties.
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.config.serialise import added
from unbraid.config.settings import TwoOrMore
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.terms.statistics.metric import Metric, atoms_in
from unbraid.terms.statistics.nearest_atoms import drawn_neighbours


@dataclass(frozen=True, kw_only=True)
class Orthogonality(Term):
    weight: float = 0.25  # as reimplemented in C2R's ort.py; unverified against the paper
    every: int = 5
    chunk: TwoOrMore = 2048
    """Atoms compared with one another, drawn anew each time; cost grows with it. Published: 8192."""
    metric: Metric = added("trained")
    """Measure cosines of atoms as trained, or of the directions they write along in raw activations: another matter
    where activations are whitened."""
    reads: ClassVar[tuple[Reads, ...]] = ("decoder",)
    family: ClassVar[Family] = "geometry"

    def __call__(self, step: Step) -> TermOutput:
        _, _, cosines = drawn_neighbours(atoms_in(self.metric, step), self.chunk, step.rng)
        return TermOutput(cosines.relu().square().mean(), {"max_cosine": cosines.mean()})
