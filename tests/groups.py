"""Groups of processes for tests: forked ones, which a local file brings together."""

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed import ProcessGroup, ProcessGroupGloo

from tests.kills import begun
from unbraid.system.group import Group
from unbraid.system.neighbour import NO_LIMIT, Neighbour

PATIENCE = timedelta(seconds=60)


def start(work: Callable[[Group], Any], root: Path, size: int = 2) -> list[int]:
    """The numbers of processes that do `work` as a group; what each gives is `given(root)`."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)

    def as_rank(rank: int) -> None:
        neighbour = Neighbour(channel(root / "watch", rank, size, NO_LIMIT), rank, size)
        group = Group(rank, size, channel(root / "store", rank, size), neighbour=neighbour)
        torch.save(work(group), root / f"{rank}.pt")
        neighbour.part()

    return [begun(lambda rank=rank: as_rank(rank)) for rank in range(size)]


def channel(store: Path, rank: int, size: int, patience: timedelta = PATIENCE) -> ProcessGroup:
    """A connection by gloo, which no other group of this process knows of."""
    kind = ProcessGroup.BackendType.GLOO
    file: Any = distributed.FileStore(str(store), size)  # pyright: ignore[reportPrivateImportUsage]
    made: Any = ProcessGroup(file, rank, size)
    made._set_default_backend(kind)
    made._register_backend(torch.device("cpu"), kind, ProcessGroupGloo(file, rank, size, patience))
    return made


def ends(pids: list[int]) -> list[int]:
    """How processes end: exit codes, or the negative number of a signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def given(root: Path, size: int = 2) -> list[Any]:
    return [torch.load(root / f"{rank}.pt", weights_only=True) for rank in range(size)]


def ranks(work: Callable[[Group], Any], root: Path, size: int = 2) -> list[Any]:
    """What each of a group's processes gives, made of tensors, numbers, texts, lists and dicts."""
    codes = ends(start(work, root, size))
    assert codes == [0] * size, f"processes ended with {codes}"
    return given(root, size)
