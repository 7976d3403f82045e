"""Kills at every operation on files: work is done in a forked process, which ends by SIGKILL at the n-th of them.

Operations are what Python's audit events tell of (opening, renaming, removing, making folders), each write through
`safetensors`, which writes by itself, and each fsync. At one that writes, the process dies before it, or after half of
it. So a test tries them all, whatever the code does in between:

    for place in places(work, root):
        assert killed(work, place, root)
        ...                                  # what is left, and whether it can be gone on with
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch

from unbraid.system import files
from unbraid.training import checkpoint

TOLD = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.link", "os.utime"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Place:
    """Where to die: at the `number`-th operation (from 1), `half` done where it writes."""

    number: int
    half: bool = False


class Counter:
    """Counts operations below `root`, and dies at one of them."""

    def __init__(self, root: Path, place: Place | None):
        self.root, self.place, self.count, self.writing = str(root), place, 0, set[int]()

    def arm(self) -> None:
        sys.addaudithook(self.told)  # it cannot be taken away again: the process ends with it
        save = safetensors.torch.save_file

        def synced(handle: Any) -> None:
            if self.below(os.readlink(f"/proc/self/fd/{handle if isinstance(handle, int) else handle.fileno()}")):
                self.at(lambda: None)  # and no more: what outlives a process need not be on the disk

        def saved(tensors: Any, path: Any, **settings: Any) -> None:
            def half() -> None:
                # It writes a temporary file of its own first, under a name like this.
                (Path(path).parent / ".tmpAbCdEf").write_bytes(b"half")

            self.at(half, writes=True)
            save(tensors, path, **settings)

        os.fsync = synced
        for module in (files, checkpoint):
            setattr(module, "save_file", saved)  # noqa: B010 (only some modules have it)

    def told(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in TOLD or not args or not self.below(args[0]):
            return
        writes = event == "open" and bool(args[2] & WRITES)
        self.at(lambda: os.close(os.open(args[0], os.O_CREAT | os.O_WRONLY, 0o644)), writes=writes)

    def below(self, path: Any) -> bool:
        return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self.root)

    def at(self, half: Callable[[], object], *, writes: bool = False) -> None:
        self.count += 1
        if writes:
            self.writing.add(self.count)
        if self.place is not None and self.count == self.place.number:
            if self.place.half:
                self.place = None
                half()
            os.kill(os.getpid(), signal.SIGKILL)


def killed(work: Callable[[], object], place: Place, root: Path) -> bool:
    """Do `work` in a process that dies at `place`; False when it came to its end before. Raises when it failed."""
    counter = Counter(root, place)
    status = forked(work, counter)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if os.waitstatus_to_exitcode(status):
        raise AssertionError(f"the work failed by itself, see its traceback (status {status})")
    return False


def places(work: Callable[[], object], root: Path) -> list[Place]:
    """Where `work` can be killed: at each of its operations, and in the middle of those that write. It is done once."""
    counter = Counter(root, None)
    reading, writing = os.pipe()

    def counted() -> None:
        work()
        counter.root = "\0"  # what follows is ours
        numbers = f"{counter.count} {' '.join(map(str, sorted(counter.writing)))}"
        os.write(writing, numbers.encode())

    status = forked(counted, counter)
    os.close(writing)
    count, *halves = (int(word) for word in os.read(reading, 2**20).split())
    os.close(reading)
    if status:
        raise AssertionError(f"the work failed, see its traceback (status {status})")
    return [Place(n) for n in range(1, count + 1)] + [Place(n, half=True) for n in halves]


def forked(work: Callable[[], object], counter: Counter | None = None) -> int:
    """The status with which a process that does `work` ended."""
    return os.waitpid(begun(work, counter), 0)[1]


def begun(work: Callable[[], object], counter: Counter | None = None) -> int:
    """The number of a new process that does `work`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has one thread that matters
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if counter is not None:
                counter.arm()
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid
