"""Names of processes by which others can find out whether one still runs: place-pid-start.

place: this machine since its last start, and the namespace of its process ids. start: when the process began, so that
an id that is reused by another process is recognised.
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
"""Tolerance in seconds on a process's start, which changes when the clock is set."""


@dataclass(frozen=True)
class Process:
    """A process on this or another machine."""

    place: str
    pid: int
    start: int

    def __str__(self) -> str:
        return f"{self.place}-{self.pid}-{self.start}"

    @property
    def here(self) -> bool:
        """True if its id belongs to this machine and namespace, so that `gone` is meaningful."""
        return self.place == place()

    @property
    def gone(self) -> bool:
        """True if it has ended, which includes a process that waits to be reaped."""
        try:
            found = psutil.Process(self.pid)
            return found.status() == psutil.STATUS_ZOMBIE or abs(found.create_time() - self.start) > SLACK
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def own() -> Process:
    """Return this process."""
    return Process(place(), os.getpid(), _start(os.getpid()))


@cache
def _start(pid: int) -> int:
    return int(psutil.Process(pid).create_time())


@cache
def place() -> str:
    """Return a short hash of this machine since its last start, and of its process namespace."""
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
    """Parse a process's name, as written by `str`; None when it is not one."""
    found = re.fullmatch(r"([0-9a-f]{8})-(\d{1,10})-(\d{1,12})", text)
    return Process(found[1], int(found[2]), int(found[3])) if found else None
