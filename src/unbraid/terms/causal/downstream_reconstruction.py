"""Downstream layers should not notice that activations were reconstructed (end-to-end SAEs, arXiv 2405.12241).

    sum |G(X_hat) - Y|^2 / sum |Y - mean Y|^2     over the kept tokens of the step's contexts

with the dictionary's reconstruction in place of every kept token. The paper compares the final logits by KL; here it is
whatever the source's slice ends with. It trains the encoder of a frozen causal decoder, the second of two stages.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class DownstreamReconstruction(Term):
    every: int = 8
    reads: ClassVar[tuple[Reads, ...]] = ("contexts",)
    family: ClassVar[Family] = "causal"

    def __call__(self, step: Step) -> TermOutput:
        contexts, mask = step.contexts(), step.contexts().mask
        if not bool(mask.any()):
            return step.no_loss()
        x = step.normalise(contexts.acts[mask].to(step.x))
        spliced = contexts.acts.clone()
        spliced[mask] = step.restore(step.dictionary.decode(step.dictionary.unchecked_codes(x))).to(spliced)
        wanted = contexts.base[mask].to(step.x)
        missed = (contexts.downstream(spliced)[mask].to(step.x) - wanted).square().sum()
        spread = (wanted - wanted.mean(0)).square().sum()
        return TermOutput(missed / spread.clamp_min(torch.finfo(spread.dtype).tiny))
