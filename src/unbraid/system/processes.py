"""Processes, named so that others can tell whether one still runs: place-pid-start.

place: this machine, since it was last started, and the namespace its process numbers are counted in. start: when the
process began, so that a number given again to another process is not taken for it.
"""

import hashlib
import os
import re
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

SLACK = 2.0
"""Seconds by which a clock that is set meanwhile moves the start that is read."""


@dataclass(frozen=True)
class Process:
    place: str
    pid: int
    start: int

    def __str__(self) -> str:
        return f"{self.place}-{self.pid}-{self.start}"

    @property
    def here(self) -> bool:
        """Whether its number is one of those counted here, so that `gone` can say something."""
        return self.place == place()

    @property
    def gone(self) -> bool:
        """Whether it has ended. A process that waits to be reaped has: it holds nothing any more."""
        try:
            found = psutil.Process(self.pid)
            return found.status() == psutil.STATUS_ZOMBIE or abs(found.create_time() - self.start) > SLACK
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def own() -> Process:
    return Process(place(), os.getpid(), _start(os.getpid()))


@cache
def _start(pid: int) -> int:
    return int(psutil.Process(pid).create_time())


@cache
def place() -> str:
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        try:
            parts.append(read())
        except OSError:
            parts.append("")  # not Linux: the host's name has to do
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:8]


def named(text: str) -> Process | None:
    """The process that `str` wrote; None when it is none."""
    found = re.fullmatch(r"([0-9a-f]{8})-(\d{1,10})-(\d{1,12})", text)
    return Process(found[1], int(found[2]), int(found[3])) if found else None
