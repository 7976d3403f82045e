"""Training by the processes that torchrun starts, as one group.

    torchrun --nproc-per-node 2 -m unbraid train NAME --out FOLDER
    torchrun --nproc-per-node 2 -m unbraid train NAME --out FOLDER --shard-latents

torchrun says in variables of the environment which of how many processes this is, and where they meet.
"""

import atexit
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import distributed

from unbraid.system import notices
from unbraid.system.group import ALONE, Group, Lost
from unbraid.system.neighbour import NO_LIMIT, Neighbour

LAUNCHED = "TORCHELASTIC_RUN_ID"
"""Variable that torchrun sets."""
SAID = "unbraid/said"
"""Key under which what was said first is kept."""
TOGETHER = ("train", "sweep")
"""The commands that several processes can run as one group."""
PATIENCE = timedelta(hours=2)
"""Time that one waits for another, which may read a text or fit atoms for as long; one that has ended is noticed
within a second or two."""


def processes() -> int:
    """Return how many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if os.environ.get(LAUNCHED) else 1


def check_command(name: str) -> None:
    """Raise ValueError for a command that several processes cannot run together."""
    if processes() > 1 and name not in TOGETHER:
        raise ValueError(
            f"torchrun has started {processes()} processes of `unbraid {name}`, which one alone has to run; only "
            f"{' and '.join(TOGETHER)} share work between them: start it without torchrun"
        )


@contextmanager
def joined(device: str, of: Literal["rows", "latents"] = "rows") -> Iterator[Group]:
    """Context manager of the group that torchrun has started; of one process without it. `device`: of training; `of`:
    what is shared out. In a group, what ends all is said by one of them."""
    if processes() == 1:
        yield ALONE
        return
    if device.partition(":")[0] == "cuda":
        torch.cuda.set_device(local_device(int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()))
    # What is decided on the host goes by the CPU, so that it does not wait for a GPU.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    rank, size = distributed.get_rank(), distributed.get_world_size()
    watch = distributed.new_group(backend="gloo", timeout=NO_LIMIT)
    assert isinstance(watch, distributed.ProcessGroup)
    neighbour = Neighbour(watch, rank, size)
    group = Group(rank, size, distributed.group.WORLD, of, neighbour)
    if not group.leads:
        notices.log.setLevel(logging.ERROR)
    store = distributed.distributed_c10d._get_default_store()
    try:
        yield group
    except BaseException as error:
        expected = isinstance(error, ValueError | OSError | MemoryError | torch.OutOfMemoryError)
        code = 130 if isinstance(error, KeyboardInterrupt) else 2 if expected else 3  # as of cli.main
        atexit.register(leave, code)
        if isinstance(error, ValueError | OSError | KeyboardInterrupt) and not is_to_say(store, group.rank, error):
            raise SystemExit(code) from None
        raise
    neighbour.part()
    distributed.destroy_process_group()


def leave(code: int) -> None:
    """End this process as it is: threads of gloo and of the watch may still wait for others, and Python, which ends
    modules and threads one by one, would wait for them or abort."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def local_device(number: int, count: int) -> int:
    """Return the device of this machine's n-th process. Raises ValueError where there are fewer devices."""
    if number >= count:
        raise ValueError(
            f"torchrun has started more processes here than there are GPUs ({count}); set --nproc-per-node {count}, or "
            "--training.device cpu"
        )
    return number


def is_to_say(store: Any, rank: int, error: BaseException) -> bool:
    """Return whether this process is to say why it ends: it is the first to end, or ends for another reason."""
    try:
        first = store.compare_set(SAID, "", f"{rank} {error}").decode(errors="replace")
    except RuntimeError:  # the store has ended, too
        return True
    said_by, _, said = first.partition(" ")
    return said_by == str(rank) or (said != str(error) and not isinstance(error, Lost))
