"""Control: a push on all atoms in a random direction, as strong as any other term and after nothing.

    <R, W_dec>,   R random, tangent to the unit spheres, |R|_F = 1, new each time

With `gradient_ratio`, the push has the share of the reconstruction's gradient that the term it replaces has; give it
that term's `every` and `start` too. What a penalty gains and this gains as well comes from perturbing atoms. The loss
itself is zero; only its gradient, R, means anything.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unbraid.objective.objective import Family, Reads, Step, Term, TermOutput
from unbraid.system.devices import sent


@dataclass(frozen=True, kw_only=True)
class RandomGradient(Term):
    every: int = 5
    reads: ClassVar[tuple[Reads, ...]] = ("decoder",)
    family: ClassVar[Family] = "control"

    def only_in_training(self) -> str:
        return "it pushes in random directions, and its value means nothing"

    def __call__(self, step: Step) -> TermOutput:
        atoms = step.dictionary.W_dec
        push = sent(torch.randn(atoms.shape, generator=step.rng, dtype=atoms.dtype), atoms.device)
        push.addcmul_(atoms.detach(), (push * atoms.detach()).sum(1, keepdim=True), value=-1)
        push.div_(torch.linalg.vector_norm(push).clamp_min(1e-12))
        return TermOutput((push * atoms).sum())
