"""A process of this machine that does tasks for another, and that other's hold on it.

It begins afresh (spawn), runs nothing of the working folder, and ends with the process that started it, however that
ends. When it is to stop, it ends as a command does: what must not be broken off is finished first.
"""

import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from unbraid.cli.command_line import restore
from unbraid.system.each import Failure, attempt, failure_of
from unbraid.system.notices import shown
from unbraid.system.stopping import SIGNALS, stopping
from unbraid.system.terminal import say

SPAWN = multiprocessing.get_context("spawn")
SAFE_PATH = "PYTHONSAFEPATH"
"""Variable that keeps the working folder out of a new Python's path, where any file may lie under any name."""
PIECE = 1000
"""Letters of a line that are sent at once: a pipe takes so few whole or not at all, even when a signal comes."""


@dataclass(frozen=True)
class Task:
    """A function of a module with its arguments, which can be pickled, as can what it returns."""

    what: str
    """Its name, for messages."""
    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


class Worker(ABC):
    """The hold on a process, here or elsewhere, that does one task after another."""

    @abstractmethod
    def give(self, packed: bytes) -> None:
        """Have a task done, which is given pickled; called when the one before it is over."""

    @abstractmethod
    def messages(self) -> Iterator[tuple[str, Any]]:
        """Yield what it sends until it has ended: that it is `ready`, each `line` that it prints, each `event`, and for
        each task its `result` (or Failure), or that it was `stopped`."""

    @abstractmethod
    def stop(self) -> None:
        """Have it finish what must not be broken off, and end."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""


class LocalWorker(Worker):
    """A process of this machine."""

    def __init__(self, threads: int):
        """`threads`: CPU threads of the process."""
        orders, self._orders = SPAWN.Pipe(duplex=False)
        self._messages, sent = SPAWN.Pipe(duplex=False)
        self._process = SPAWN.Process(target=serve, args=(orders, sent, threads))
        with safe_path():
            self._process.start()
        for end in (orders, sent):  # ours of the other side: else its end would not be heard of
            end.close()

    def give(self, packed: bytes) -> None:
        with suppress(OSError):  # it has ended, as `messages` says
            self._orders.send_bytes(packed)

    def messages(self) -> Iterator[tuple[str, Any]]:
        with suppress(EOFError, OSError):
            while True:
                yield self._messages.recv()
        self._process.join()

    def stop(self) -> None:
        self._orders.close()

    def kill(self) -> None:
        self._process.kill()


@contextmanager
def safe_path() -> Iterator[None]:
    """Within, a Python that is started leaves the working folder out of its path."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        restore(SAFE_PATH, before)


# ---- in the process -----------------------------------------------------------------------------------------


class LineSender(io.TextIOBase):
    """A stream whose lines are sent to the process that started this one."""

    encoding = "utf-8"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self, there: Connection) -> None:
        self.there, self.kept, self.lock = there, "", threading.RLock()

    def write(self, text: str) -> int:
        with self.lock:
            *lines, self.kept = (self.kept + text).split("\n")
            for line in (line.rpartition("\r")[2] for line in lines):  # of a bar that was drawn again, the last
                for start in range(0, max(1, len(line)), PIECE):
                    self.send("line", line[start : start + PIECE])
        return len(text)

    def send(self, kind: str, content: Any = None) -> None:
        with self.lock:
            self.there.send((kind, content))


class Here:
    """The state of such a process."""

    lines: LineSender
    stopped = False


def serve(orders: Connection, messages: Connection, threads: int) -> None:
    """Do tasks until the other end of `orders` is closed."""
    begin(messages, threads)
    packed: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=watch, args=(orders, packed), daemon=True).start()
    Here.lines.send("ready")
    for one in iter(packed.get, None):
        Here.lines.send(*outcome(one))


def begin(messages: Connection, threads: int) -> None:
    """Set the process up: a session of its own, so that Ctrl-C comes once, from the process that started it."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch reads it when it is imported
    with suppress(AttributeError, OSError):
        os.setsid()
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)  # while nothing is done; `stopping` answers while something is
    Here.lines = LineSender(messages)
    sys.stdout = sys.stderr = Here.lines


def watch(orders: Connection, packed: "SimpleQueue[bytes | None]") -> None:
    """Hand tasks on. When the other end is closed, stop what is done, and end when the process that started this one
    has ended."""
    with suppress(EOFError, OSError):
        while True:
            packed.put(orders.recv_bytes())
    Here.stopped = True
    packed.put(None)
    os.kill(os.getpid(), signal.SIGTERM)
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def outcome(packed: bytes) -> tuple[str, Any]:
    """Do a task; what is sent of it: its result, its Failure, or that it was stopped."""
    with shown(), stopping():
        try:
            if Here.stopped:
                raise KeyboardInterrupt
            task = attempt("a task", lambda: pickle.loads(packed))
            if isinstance(task, Failure):  # a package of the user's that is not here
                return "result", task
            return "result", attempt(task.what, lambda: task.work(*task.arguments))
        except SystemExit as error:
            return "result", failure_of("a task", error)
        except KeyboardInterrupt as where:
            if str(where):
                say(where)
            return "stopped", None


def tell(content: Any) -> None:
    """Send something short to the `hear` of the process that started this one."""
    Here.lines.send("event", content)
