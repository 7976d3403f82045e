"""Past codes, as sparse entries in a ring: what latents have taken together, over many batches.

16 bytes an entry, `PER_LATENT` entries a latent: a kilobyte, as much as 43 dimensions of its parameters and moments.
At 16k latents that is a million entries, the last 32k rows when 32 latents are active in each.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dictionary.codes import Codes

PER_LATENT = 64
BATCHES = 4
"""A ring holds at least as many batches, of the size of the first."""


@dataclass(frozen=True)
class Entries:
    """Active pairs, rows ascending from 0; without gradient."""

    values: Float[Tensor, " nnz"]
    rows: Int[Tensor, " nnz"]
    latents: Int[Tensor, " nnz"]
    count: int
    """Rows, silent ones too."""
    old: int
    """Entries before those of the batch."""
    d_sae: int


@torch.no_grad()
def recalled(memory: dict[str, Tensor], z: Codes) -> Entries:
    """What the bank holds, then this batch."""
    values, rows, latents = z.entries()
    if "bank.rows" not in memory:
        return Entries(values, rows, latents.int(), z.batch, 0, z.d_sae)
    head, after, gone = memory["bank.head"].tolist()
    held = memory["bank.rows"]
    oldest_first = torch.cat([held[head:], held[:head], rows + after])
    # Of the oldest row, part may have been overwritten; places never written come before it, as row -1.
    whole = int(torch.searchsorted(oldest_first, gone + 1))
    join = lambda ring, new: torch.cat([ring[head:], ring[:head], new.to(ring.dtype)])[whole:]
    first = gone + 1
    return Entries(
        join(memory["bank.values"], values), oldest_first[whole:] - first, join(memory["bank.latents"], latents),
        after + z.batch - first, len(held) - whole, z.d_sae,
    )  # fmt: skip


@torch.no_grad()
def remember(memory: dict[str, Tensor], z: Codes) -> None:
    """Write a batch over the oldest entries."""
    values, rows, latents = z.entries()
    if "bank.rows" not in memory:
        size = max(PER_LATENT * z.d_sae, BATCHES * len(values))
        memory["bank.values"] = values.new_zeros(size)
        memory["bank.latents"] = torch.zeros(size, dtype=torch.int32, device=values.device)
        memory["bank.rows"] = torch.full((size,), -1, device=values.device)
        memory["bank.head"] = torch.tensor([0, 0, -1])
    head, after, gone = memory["bank.head"].tolist()
    size = len(memory["bank.rows"])
    if len(values) > size:
        gone = after + int(rows[-size - 1])
        values, rows, latents = values[-size:], rows[-size:], latents[-size:]
    at = (head + torch.arange(len(values), device=values.device)) % size
    if len(at):
        gone = max(gone, int(memory["bank.rows"][at[-1]]))
    memory["bank.values"][at] = values
    memory["bank.latents"][at] = latents.int()
    memory["bank.rows"][at] = rows + after
    memory["bank.head"] = torch.tensor([(head + len(at)) % size, after + z.batch, gone])
