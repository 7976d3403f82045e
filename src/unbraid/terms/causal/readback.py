"""A latent that is written should be read back: pushing along an atom sets its latent, and no other.

    mean |enc(x + R d_j) - enc(x) - R e_j|^2 / R^2

over sampled living latents and rows of the batch, R the root mean square of the batch's active latents. No downstream
is needed: it catches latents that cannot be set independently. Codes that share a budget (TopK, BatchTopK) pay for the
latents that a push displaces.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unbraid.config.settings import NonNegativeFloat, PositiveInt
from unbraid.objective.objective import Claim, Family, Reads, Step, Term, TermOutput


@dataclass(frozen=True, kw_only=True)
class Readback(Term):
    every: int = 8
    columns: PositiveInt = 8
    """Latents pushed each time."""
    rows: PositiveInt = 32
    """Rows of the batch in which each is pushed."""
    size: NonNegativeFloat = 0.0
    """R, in normalised units; 0 takes the root mean square of the batch's active latents."""
    reads: ClassVar[tuple[Reads, ...]] = ("codes", "decoder")
    family: ClassVar[Family] = "causal"
    claim: ClassVar[Claim] = 2

    def __call__(self, step: Step) -> TermOutput:
        chosen, size = step.sampled_latents(self.columns), self.size or active_size(step)
        if not len(chosen) or not size:
            return step.no_loss()
        rows = step.sampled_rows(self.rows)
        x, atoms = step.x[rows], step.dictionary.W_dec.index_select(0, chosen)
        before = step.dictionary.unchecked_codes(x).dense()
        pushed = (x + size * atoms.unsqueeze(1)).flatten(0, 1)
        after = step.dictionary.unchecked_codes(pushed).dense().unflatten(0, (len(chosen), len(rows)))
        wanted = torch.zeros_like(after[:, 0]).scatter(1, chosen.unsqueeze(1), size)
        missed = (after - before - wanted.unsqueeze(1)).square().sum(2) / size**2
        own = (after - before).gather(2, chosen.view(-1, 1, 1).expand(-1, len(rows), 1)) / size
        return TermOutput(missed.mean(), {"read": own.detach().mean()})


def active_size(step: Step) -> float:
    """Root mean square of the batch's active latents; 0 where none is."""
    values = step.z.values.detach()
    active = (values != 0).sum()
    return float((values.square().sum() / active).sqrt()) if active else 0.0
