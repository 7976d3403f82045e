"""Slowness: latents should keep their value from token to token of a document (after SlowVAE, Klindt et al. 2021).

    mean over pairs of sum_i |z_i(t) - z_i(t')| / scale_i,    t' the nearest earlier token of t's document in the batch

SlowVAE's Laplace prior on transitions, without its variational part. `scale` is a latent's usual size where it is
active (no gradient), in place of its standard deviation: that of a rare latent is small, and the loss would delete it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unbraid.config.settings import PositiveInt
from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.system.devices import sent
from unbraid.terms.statistics.token_pairs import code_differences, earlier_tokens, usual_size


@dataclass(frozen=True, kw_only=True)
class Slowness(Term):
    start: float = 0.1
    pairs: PositiveInt = 1024
    """Pairs of tokens compared each time, at most."""
    reads: ClassVar[tuple[Reads, ...]] = ("codes", "documents")
    family: ClassVar[Family] = "weak supervision"

    def __call__(self, step: Step) -> TermOutput:
        later, earlier = earlier_tokens(step.batch, step.rng, nearest=True)
        chosen = sent(torch.randperm(len(later), generator=step.rng)[: self.pairs], later.device)
        scale = usual_size(step.z, step.memory)
        found = code_differences(step.z, later[chosen], earlier[chosen])
        moved = (found.change.abs() / scale[found.latents]).sum()
        return TermOutput(moved / max(1, len(chosen)), {"pairs": torch.tensor(len(chosen))})
