"""What every contender is given, and what it must give back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Bench = Literal["topk", "batchtopk", "jumprelu", "relu", "matryoshka"]
D_IN, BATCH, K = 512, 512, 32
BANDWIDTH = 0.05
"""Of JumpReLU's windows, for every contender."""
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 17 / 32)
"""Of the latents in each Matryoshka group."""
LEARNING_RATE = 1e-5
"""Small, so that ten steps leave every contender at the density it started from."""


class CannotRun(Exception):
    """This contender has no such architecture; the message says why."""


@dataclass(frozen=True)
class Setting:
    bench: Bench
    d_sae: int
    threshold: float
    """Of jumprelu and relu: `atoms()` as tied weights and this as every latent's threshold give the agreed density."""
    d_in: int = D_IN
    batch: int = BATCH
    k: int = K
    dead: float = 0.0
    """Share of latents that the contender is made to take for dead at every step."""

    @property
    def dead_latents(self) -> int:
        """The number of latents, the first ones, that count as dead."""
        return round(self.dead * self.d_sae)

    def atoms(self) -> Tensor:
        """Unit rows [d_sae, d_in], the same for every contender."""
        atoms = torch.randn(self.d_sae, self.d_in, generator=torch.Generator().manual_seed(0))
        return atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True)

    def widths(self) -> list[int]:
        """Of the Matryoshka groups."""
        first = [int(share * self.d_sae) for share in SHARES[:-1]]
        return [*first, self.d_sae - sum(first)]


@dataclass(frozen=True)
class Contender:
    step: Callable[[int, Tensor], Any]
    """One complete training step (loss, backward, clipping, optimiser, constraints, bookkeeping) on a batch."""
    parameters: Iterable[Tensor] = ()
    optimiser: Any = None
    """Something with a torch optimiser's `state`."""
    active: Callable[[Tensor], Tensor] | None = None
    """Latents of a batch, dense, to report how many are active."""

    def parameter_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.parameters)

    def state_bytes(self) -> int:
        """Parameters, their gradients, and the optimiser's tensors."""
        gradients = sum(p.numel() * p.element_size() for p in self.parameters if p.requires_grad)
        states = self.optimiser.state.values() if self.optimiser is not None else ()
        tensors = [t for state in states for t in state.values() if isinstance(t, Tensor)]
        return self.parameter_bytes() + gradients + sum(t.numel() * t.element_size() for t in tensors)
