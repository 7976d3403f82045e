"""Folders held by one process at a time, so that two never write the same run, cache or study.

    <folder>/.lock      JSON: who holds it, on which machine, by which command, since when

The kernel's lock on that file decides: it ends with the process, however that ends, and NFS carries it between
machines. The file's content is for people, and for file systems without such locks: there a holder on this machine is
looked up by its process id, and one elsewhere by its heartbeat, for which the file is touched every few seconds.
"""

import errno
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbraid.system import processes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = ".lock"
BEAT = 5.0
"""Seconds between heartbeats."""
PATIENCE = 20.0
"""Seconds to wait for a heartbeat before a holder on another machine counts as gone."""

LONG_AGO = 3600.0
"""Age in seconds of the last heartbeat from which on none is waited for, whatever clocks say."""


class Held(ValueError):
    """Another process holds the folder."""


@contextmanager
def held(folders: Iterable[Path]) -> Iterator[None]:
    """Context manager that holds folders for this process, making them if missing. Raises Held, naming the holder."""
    with ExitStack() as stack:
        holds = [stack.enter_context(_held(folder)) for folder in sorted(set(folders))]
        stack.enter_context(_beating(holds))
        yield


@dataclass(frozen=True)
class Hold:
    """The lock on one folder."""

    path: Path
    handle: int
    owner: int
    """The process that took the lock; a fork has the handle too, but must not release it."""

    def beats(self) -> None:
        """Touch the file, as a heartbeat."""
        with suppress(OSError):
            os.utime(self.path)


@contextmanager
def _held(folder: Path) -> Iterator[Hold]:
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    hold = _take(folder)
    try:
        yield hold
    finally:
        if os.getpid() == hold.owner:
            with suppress(OSError):
                hold.path.unlink()  # before the lock ends: whoever waits for it sees that this file is no more
            os.close(hold.handle)
            if made:
                with suppress(OSError):
                    folder.rmdir()  # it stayed empty


def _take(folder: Path) -> Hold:
    path = folder / LOCK
    _room_for_one_more()
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            free = _kernel_lock(handle)
            if free is False:
                raise Held(refusal(folder, _holder(handle)))
            if not _is_at(handle, path):
                os.close(handle)
                continue  # it was let go between the two
            if _lives(path, _holder(handle), certain=free is True):
                raise Held(refusal(folder, _holder(handle)))
            _write(handle, path)
        except BaseException:
            os.close(handle)
            raise
        return Hold(path, handle, os.getpid())


def _kernel_lock(handle: int) -> bool | None:
    """Try to take the kernel's lock: True if taken, False if another holds it, None where there are no such locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            return None
        raise
    return True


def _room_for_one_more() -> None:
    """Raise the soft limit of open files, which is often 1,024, where a cohort needs one for every member."""
    if fcntl is None:
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else 65_536, hard))


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> dict[str, Any]:
    """Read the file's description of its holder; empty when it is unreadable."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        found = json.loads(os.read(handle, 65_536))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(handle: int, path: Path) -> None:
    holder = {
        "process": str(processes.own()), "host": socket.gethostname(), "pid": os.getpid(),
        "command": shlex.join(map(os.path.basename, sys.argv[:1])) + " " + shlex.join(sys.argv[1:]),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }  # fmt: skip
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, (json.dumps(holder) + "\n").encode())
    os.utime(path)


def _lives(path: Path, stored: dict[str, Any], *, certain: bool) -> bool:
    """True if a holder without the kernel's lock still runs. `certain`: such locks work here."""
    holder = processes.named(str(stored.get("process", "")))
    if holder is None:
        return False
    if holder.here:
        return not certain and not holder.gone
    # Another machine's lock may not reach this one. Clocks differ, so its heartbeat is watched, not dated.
    if stored.get("host") == socket.gethostname() and certain:
        return False  # this machine before it was started again, or another container of it: locks reach those
    return _beats(path)


def _beats(path: Path) -> bool:
    """True if the file is touched while we watch. It is opened anew each time, which makes NFS contact its server."""
    first, until = _touched(path), time.monotonic() + PATIENCE
    if time.time() - first / 1e9 > LONG_AGO:
        return False
    while time.monotonic() < until:
        time.sleep(BEAT / 5)
        if _touched(path) != first:
            return True
    return False


def _touched(path: Path) -> int:
    with suppress(OSError), path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns
    return 0


@contextmanager
def _beating(holds: list[Hold]) -> Iterator[None]:
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT):
            for hold in holds:
                hold.beats()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def refusal(folder: Path, holder: dict[str, Any]) -> str:
    """The message that a folder is held by another process."""
    who = f"process {holder.get('pid', '?')} on {holder.get('host', 'a machine that is not named')}"
    return (
        f"{folder} is being written by {who} since {holder.get('since', 'a moment ago')} "
        f"({holder.get('command', '?')}): "
        "wait until that has ended, or stop it there, then run this again"
    )
