"""Groups of processes that train as one: what they add up, gather and decide together.

The ranks of a group have equal shares of every batch's rows, in order, and the same of everything else; or all rows,
and equal shares of the latents (`of`). A process by itself is a group of one, which is given back what it gives. What
ranks exchange are tensors, and text as tensors: no rank runs what another sends.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, ReduceOp

from unbraid.system.neighbour import Neighbour

LOOKED = timedelta(seconds=1)
"""How often one that waits for the others looks whether the next of them is still there."""
Rows = TypeVar("Rows")
"""Rows with a length, of which slices are as they are: a tensor, a batch."""


class Lost(ConnectionError):
    """Another rank of the group has ended."""


class Apart(ConnectionError):
    """The ranks of a group no longer do the same, so that none of them can go on."""


@dataclass(frozen=True)
class Group:
    """One process's view of its group."""

    rank: int = 0
    size: int = 1
    channel: ProcessGroup | None = None
    """The connection to the others; None in a group of one."""
    of: Literal["rows", "latents"] = "rows"
    """What is shared out."""
    neighbour: Neighbour | None = None
    """A watch on the next of the others; without one, a process may wait in vain for one that was killed."""

    @property
    def rows(self) -> "Group":
        """The group among which rows are shared out: of one where latents are."""
        return self if self.of == "rows" else ALONE

    @property
    def latents(self) -> "Group":
        """The group among which latents are shared out: of one where rows are."""
        return self if self.of == "latents" else ALONE

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def leads(self) -> bool:
        """True for the rank that decides, and that alone reads and writes folders of runs."""
        return self.rank == 0

    def share(self, batch: Rows) -> Rows:
        """Return this rank's rows of a batch, whose number the size of the group divides."""
        if self.alone:
            return batch
        rows = len(batch) // self.size  # pyright: ignore[reportArgumentType]
        return batch[self.rank * rows : (self.rank + 1) * rows]  # pyright: ignore[reportIndexIssue]

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over ranks, bit-equal on all of them."""
        if self.alone:
            return tensor
        total = tensor.clone(memory_format=torch.contiguous_format)
        self._wait(lambda to: to.allreduce([total], ReduceOp.SUM), total.device)
        return total

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean over ranks, bit-equal on all of them."""
        return tensor if self.alone else self.sum(tensor).div_(self.size)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is up on any rank."""
        return flag if self.alone else bool(self.sum(torch.tensor([int(flag)])))

    def first(self, number: bool | float) -> bool | float:
        """Return the number, or the answer, of rank 0."""
        if self.alone:
            return number
        shared = torch.tensor([float(number)], dtype=torch.float64)
        self.copy_first([shared])
        return float(shared)

    def counts(self, count: int) -> list[int]:
        """Return every rank's count."""
        if self.alone:
            return [count]
        found = torch.zeros(self.size, dtype=torch.long)
        found[self.rank] = count
        return self.sum(found).tolist()

    def joined(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks, one rank's after another's; each may have as many as it likes."""
        if self.alone:
            return rows
        counts = self.counts(len(rows))
        mine = rows.new_zeros(max(1, *counts), *rows.shape[1:])
        mine[: len(rows)] = rows.detach()
        parts = [torch.empty_like(mine) for _ in counts]
        self._wait(lambda to: to.allgather([parts], [mine]), mine.device)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def texts(self, text: str) -> list[str]:
        """Return every rank's text."""
        if self.alone:
            return [text]
        data = torch.tensor(list(text.encode()), dtype=torch.uint8)
        parts = self.joined(data).split(self.counts(len(data)))
        return [bytes(part.tolist()).decode() for part in parts]

    def first_text(self, text: str) -> str:
        """Return rank 0's text."""
        return self.texts(text if self.leads else "")[0]

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors, which have the same shapes on all ranks, with rank 0's."""
        for tensor in () if self.alone else tensors:
            shared = tensor.detach().contiguous()
            if shared.numel():
                self._wait(lambda to, shared=shared: to.broadcast([shared]), shared.device)
                tensor.detach().copy_(shared)

    def named_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return rank 0's tensors by name, on the CPU; what the other ranks give is not looked at."""
        if self.alone:
            return dict(tensors)
        kinds = {name: (str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in tensors.items()}
        shared: dict[str, Tensor] = {}
        for name, (kind, shape) in json.loads(self.first_text(json.dumps(kinds))).items():
            mine = tensors[name].detach().cpu() if self.leads else torch.empty(shape, dtype=getattr(torch, kind))
            shared[name] = mine.contiguous()
        self.copy_first(shared.values())
        return shared

    def collected(self, rows: Tensor) -> Tensor | None:
        """Return the rows of all ranks, as many of each, to rank 0, on the CPU; None to the others. They come one
        rank's after another's."""
        own = rows.detach().cpu().contiguous()
        if self.alone:
            return own
        whole = own.new_empty(self.size * len(own), *own.shape[1:]) if self.leads else None
        parts = [] if whole is None else [list(whole.chunk(self.size))]
        self._wait(lambda to: to.gather(parts, [own]), own.device)  # to rank 0, as by default
        return whole

    def dealt(self, rows: Tensor | None, own: Tensor) -> Tensor:
        """Return this rank's share of the rows that rank 0 has; the reverse of `collected`. `own`: a tensor of the
        share's shape and kind, which is overwritten."""
        parts: list[list[Tensor]] = []
        if self.leads:
            assert rows is not None, "rank 0 has the rows"
            if self.alone:
                return own.copy_(rows)
            parts = [list(rows.contiguous().chunk(self.size))]
        self._wait(lambda to: to.scatter([own], parts), own.device)  # from rank 0, as by default
        return own

    def _wait(self, start: Callable[[ProcessGroup], Any], device: torch.device) -> None:
        """Start work with the others, and wait until it is done. Raises Lost when one of them has ended."""
        assert self.channel is not None, "a group of more than one has a channel"
        try:
            work = start(self.channel)
            if device.type == "cpu":
                while not _done(work):
                    if self.neighbour is not None and self.neighbour.lost:
                        raise RuntimeError("the next process has ended")
            else:
                work.wait()  # NCCL only puts it in the device's queue, and watches the others itself
        except RuntimeError as error:
            raise Lost(
                "another of the processes that train together has ended or does not answer, so this one ends too; what "
                "was saved is kept: start all of them again, with --resume"
            ) from error


def _done(work: Any) -> bool:
    """Wait a moment for work by gloo, and return whether it is done. Raises RuntimeError when it has failed."""
    try:
        return work.wait(LOOKED)
    except RuntimeError:
        if not work.is_completed():
            return False
    return work.wait()


ALONE = Group()
"""The group of a process by itself."""
