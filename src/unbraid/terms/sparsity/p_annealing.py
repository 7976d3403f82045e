"""p-annealing: sum of |z_i|^p while p falls from 1 in steps (Karvonen et al. 2024, arXiv 2408.00113, section 3).

    lambda_(s+1) = lambda_s  sum_q sum_i |z_i|^p_s / sum_q sum_i |z_i|^p_(s+1)        q: the last steps

so that a change of p leaves the size of the penalty as it was. The floor of `lp` is used, with which p may reach 0
only in the limit; the paper's p_end is 0.2.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from unbraid.config.settings import NonNegativeFloat, PositiveInt, ShareAboveZero, ShareBelowOne
from unbraid.objective.objective import Family, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class PAnnealing(Term):
    begin: ShareBelowOne = 0.25
    """Share of training after which p falls."""
    end: ShareAboveZero = 1.0
    """Share of training at which it has reached p_end."""
    p_end: ShareAboveZero = 0.2
    changes: PositiveInt = 10
    """Steps in which p falls."""
    memory_steps: Annotated[float, Ge(1)] = 10.0
    """Steps over which the two sums are averaged, with falling weights; the paper averages a queue of so many."""
    floor: NonNegativeFloat = 1e-3
    """Added to every size, in normalised activations."""
    family: ClassVar[Family] = "sparsity"
    standard: ClassVar[bool] = True

    def check_together(self) -> None:
        if self.begin >= self.end:
            raise ValueError(f"p falls from {self.begin} to {self.end} of training; set begin below end")

    def exponent(self, change: int) -> float:
        """p after so many changes."""
        return 1 + (self.p_end - 1) * min(change, self.changes) / self.changes

    def change_at(self, progress: float) -> int:
        """Changes made by a share of training."""
        done = (progress - self.begin) / (self.end - self.begin)
        return max(0, min(self.changes, int(done * (self.changes + 1))))

    def __call__(self, step: Step) -> TermOutput:
        values, _, _ = step.z.entries()
        now = self.change_at(step.progress)
        scale = self._scale(now, values.detach(), step.memory)
        p = self.exponent(now)
        return TermOutput(scale * self._sum(values, p) / step.z.batch, {"p": torch.tensor(p), "scale": scale})

    def _sum(self, values: Tensor, p: float) -> Tensor:
        return ((values.abs() + self.floor).pow(p) - self.floor**p).sum()

    def _scale(self, now: int, values: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """The factor that keeps the penalty's size: remembered, and moved when p has changed."""
        one = values.new_ones((), dtype=torch.float64)
        change, scale = int(memory.get("change", 0 * one)), memory.get("scale", one)
        sums = memory.get("sums", torch.zeros(2, dtype=torch.float64, device=values.device))
        if now > change:
            before, after = sums
            scale = scale * before / after if after > 0 else scale
            sums = torch.zeros_like(sums)
        pair = torch.stack([self._sum(values, self.exponent(now)), self._sum(values, self.exponent(now + 1))]).double()
        memory |= {"change": now * one, "scale": scale, "sums": (1 - 1 / self.memory_steps) * sums + pair}
        return scale.to(values.dtype)
