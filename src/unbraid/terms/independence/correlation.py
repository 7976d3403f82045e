"""Squared correlations of all pairs of latents: DIP-VAE (Kumar et al. 2018) without its variance part.

    1/n sum_(i != j) corr(z_i, z_j)^2,   n latents compared

that is, how many copies' worth of others a latent goes with, on average: a pair of copies among n gives 2 / n, and
latents that go with a fixed number of others give the same at any width. Products of covariances are unbiased, by two
halves of a sub-batch (`pair_sums`), so the sum may be negative. Deviations are moving averages without gradient, so
steady that dividing by them biases the sum by less than 1 %; dividing by the batch's own, or not at all, would reward
shrinking. Unit variance, DIP-VAE's other part, contradicts rare latents and is left out.

It prefers absorbed codes to true ones where factors are nested, and on from the start it deletes rare latents.
"""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.config.settings import ShareBelowOne, TwoOrMore
from unbraid.objective.objective import Family, Step, Term, TermOutput
from unbraid.terms.statistics.firing_averages import averaged
from unbraid.terms.statistics.pair_sums import split_half, split_in_halves


@dataclass(frozen=True, kw_only=True)
class Correlation(Term):
    start: float = 0.1
    rows: TwoOrMore = 1024
    """Rows compared, in two halves; cost grows with the square."""
    rarest: ShareBelowOne = 1e-3
    """Firing rate that a latent needs to be compared; below it, dividing by the deviation would make it all noise."""
    decay: ShareBelowOne = 0.99
    """Of the moving averages that deviations come from."""
    family: ClassVar[Family] = "independence"

    def __call__(self, step: Step) -> TermOutput:
        average, deviation = averaged(step.z, step.memory, self.decay)
        kept = average.living(self.rarest)
        scaled = lambda z, latents: z / deviation[latents].unsqueeze(1)
        first, second = (half.mapped(scaled) for half in split_in_halves(step.z, self.rows, kept, step.rng))
        loss = split_half(first, second) / max(1, len(kept))
        return TermOutput(loss, {"compared": step.x.new_tensor(len(kept))})
