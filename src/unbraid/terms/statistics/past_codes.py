"""A queue of past codes, as sparse entries: the values that latents have taken together, over many batches.

16 bytes an entry, `PER_LATENT` entries a latent: a kilobyte, as much as 43 dimensions of its parameters and moments.
At 16k latents that is a million entries, the last 32k rows when 32 latents are active in each.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dictionary.codes import Codes

PER_LATENT = 64
"""Entries of the queue for every latent."""
BATCHES = 4
"""Batches, of the size of the first, that a queue holds at least."""


@dataclass(frozen=True)
class Entries:
    """Active (row, latent) pairs and their values, rows ascending from 0; without gradient."""

    values: Float[Tensor, " nnz"]
    rows: Int[Tensor, " nnz"]
    latents: Int[Tensor, " nnz"]
    count: int
    """Rows, silent ones too."""
    old: int
    """Entries before those of the batch."""
    d_sae: int


class PastCodes:
    """A ring buffer of entries that lives in a term's memory, where checkpoints keep it."""

    def __init__(self, memory: dict[str, Tensor]):
        self._memory = memory

    @torch.no_grad()
    def with_past(self, z: Codes) -> Entries:
        """Return the whole rows that the queue holds, oldest first, then those of this batch."""
        values, rows, latents = z.entries()
        if "past_codes.rows" not in self._memory:
            return Entries(values, rows, latents.int(), z.batch, 0, z.d_sae)
        head, after, gone = self._memory["past_codes.head"].tolist()
        held = self._memory["past_codes.rows"]
        oldest_first = torch.cat([held[head:], held[:head], rows + after])
        # Of the oldest row, part may have been overwritten; places never written come before it, as row -1.
        first = gone + 1
        whole = int(torch.searchsorted(oldest_first, first))

        def join(name: str, new: Tensor) -> Tensor:
            ring = self._memory[f"past_codes.{name}"]
            return torch.cat([ring[head:], ring[:head], new.to(ring.dtype)])[whole:]

        return Entries(
            join("values", values), oldest_first[whole:] - first, join("latents", latents),
            after + z.batch - first, len(held) - whole, z.d_sae,
        )  # fmt: skip

    @torch.no_grad()
    def push(self, z: Codes) -> None:
        """Write a batch over the oldest entries."""
        memory = self._memory
        values, rows, latents = z.entries()
        if "past_codes.rows" not in memory:
            self._start(values, z.d_sae)
        head, after, gone = memory["past_codes.head"].tolist()
        size = len(memory["past_codes.rows"])
        if len(values) > size:
            gone = after + int(rows[-size - 1])
            values, rows, latents = values[-size:], rows[-size:], latents[-size:]
        at = (head + torch.arange(len(values), device=values.device)) % size
        if len(at):
            gone = max(gone, int(memory["past_codes.rows"][at[-1]]))
        memory["past_codes.values"][at] = values
        memory["past_codes.latents"][at] = latents.int()
        memory["past_codes.rows"][at] = rows + after
        memory["past_codes.head"] = torch.tensor([(head + len(at)) % size, after + z.batch, gone])

    def _start(self, values: Float[Tensor, " nnz"], d_sae: int) -> None:
        """Make room; head holds where to write next, the rows seen so far, and the last row that is not whole."""
        size = max(PER_LATENT * d_sae, BATCHES * len(values))
        self._memory["past_codes.values"] = values.new_zeros(size)
        self._memory["past_codes.latents"] = torch.zeros(size, dtype=torch.int32, device=values.device)
        self._memory["past_codes.rows"] = torch.full((size,), -1, device=values.device)
        self._memory["past_codes.head"] = torch.tensor([0, 0, -1])
