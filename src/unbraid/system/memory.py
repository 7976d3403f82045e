"""Memory that this process can still get: the least that the machine, a container and `ulimit -v` leave."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file "),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file "),
)
"""Files of Linux control groups, version 2 and 1: limit, use, statistics, and the line of reclaimable pages."""


def free_memory() -> int:
    """Return the memory that this process can still get, in bytes."""
    return max(0, min([psutil.virtual_memory().available, *container(Path("/sys/fs/cgroup")), *process()]))


def container(root: Path) -> Iterator[int]:
    """Yield the bytes that the container leaves, if there is one with a limit."""
    for limit, use, statistics, gives_way in CGROUPS:
        with suppress(OSError, ValueError):
            lines = (root / statistics).read_text(encoding="ascii").splitlines()
            reclaimed = sum(int(line.split()[1]) for line in lines if line.startswith(gives_way))
            yield int((root / limit).read_text()) - int((root / use).read_text()) + reclaimed


def process() -> Iterator[int]:
    """Yield the bytes that the limit on address space leaves, if there is one."""
    with suppress(ImportError):  # Windows has no such limits
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - psutil.Process().memory_info().vms
