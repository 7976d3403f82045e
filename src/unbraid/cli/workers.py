"""Tasks done in other processes, at the same time as ours: their lines are shown among ours, each fails by itself.

A worker begins afresh (spawn), runs nothing of the working folder, and ends with this process, however that ends.
Stopped, it ends as a command does: what must not be broken off is finished first.
"""

import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
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
"""Letters of a line that are sent at once: what fits into a pipe's atom is never mixed with another worker's."""
ABRUPT = "the process that worked on it ended abruptly, as when memory runs out; free some, or use fewer --workers"


@dataclass(frozen=True)
class Task:
    """A function of a module with its arguments, both of which can be pickled."""

    what: str
    """Its name, for messages."""
    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass(eq=False)
class Background(threading.Thread):
    """The tasks at work, and what became of them."""

    tasks: Sequence[Task]
    workers: int
    threads: int
    hear: Callable[[Any], None]
    """Called with each event that a worker tells."""
    results: dict[int, Any] = field(default_factory=dict)
    """By the task's place: what it returned, a Failure, or nothing where it was stopped."""
    stopped: bool = False

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.lock, self.begun = threading.Lock(), set[int]()
        self.alive: Connection | None = None

    @property
    def failures(self) -> list[Failure]:
        """The failures, in order."""
        return [found for _, found in sorted(self.results.items()) if isinstance(found, Failure)]

    def run(self) -> None:
        """Do all tasks. When a worker ends abruptly, those it may have worked on are done again one by one, to find
        the one that ends it."""
        left = set(range(len(self.tasks)))
        while left and not self.stopped:
            suspects = self.attempt(left, self.workers)
            for one in sorted(suspects):
                if not self.stopped and self.attempt({one}, 1):
                    self.results[one] = Failure(self.tasks[one].what, "Killed", ABRUPT, ())
            left = left - set(self.results) if suspects else set()

    def attempt(self, places: set[int], workers: int) -> set[int]:
        """Do some tasks; those that were at work when a worker ended abruptly, or all when none had begun."""
        here, there = SPAWN.Pipe(duplex=False)
        watched, alive = SPAWN.Pipe(duplex=False)
        with self.lock:
            self.alive = alive
            if self.stopped:
                alive.close()
        self.begun = set()
        reader = threading.Thread(target=self.read, args=(here,), daemon=True)
        reader.start()
        broken = False
        with safe_path(), ProcessPoolExecutor(
            min(workers, len(places)), SPAWN, begin, (there, watched, self.threads)
        ) as pool:  # fmt: skip
            futures = {pool.submit(do, place, self.tasks[place]): place for place in sorted(places)}
            for done in as_completed(futures):
                broken |= self.settle(futures[done], done)
        for end in (there, watched, alive):
            end.close()
        reader.join()
        unsettled = places - set(self.results)
        return (unsettled & self.begun or unsettled) if broken else set()

    def settle(self, place: int, done: "Future[Any]") -> bool:
        """Keep a task's result; True when it has none because a worker ended abruptly."""
        error = done.exception()
        if isinstance(error, BrokenProcessPool):
            return True
        if error is None:
            self.results[place] = done.result()
        elif not isinstance(error, KeyboardInterrupt):
            self.results[place] = failure_of(self.tasks[place].what, error)
        return False

    def read(self, here: Connection) -> None:
        """Show the workers' lines, and hear of their events, until the last of them has ended."""
        with suppress(EOFError, OSError):
            while True:
                kind, content = here.recv()
                if kind == "begun":
                    self.begun.add(content)
                elif kind == "line":
                    say(f"  | {content}", flush=True)
                else:
                    self.hear(content)
        here.close()

    def stop(self) -> None:
        """Ask the workers to stop."""
        with self.lock:
            self.stopped = True
            if self.alive is not None:
                self.alive.close()


@contextmanager
def in_background(
    tasks: Sequence[Task], *, workers: int = 1, threads: int = 1, hear: Callable[[Any], None] = lambda content: None
) -> Iterator[Background]:
    """Do tasks in other processes meanwhile; waited for at the end, and stopped when what is done here fails or is
    interrupted. `threads`: CPU threads of each."""
    work = Background(tasks, workers, threads, hear)
    work.start()
    try:
        yield work
        work.join()
    except BaseException:
        work.stop()
        try:
            work.join()
        except BaseException:  # interrupted again: nothing is waited for
            for process in multiprocessing.active_children():
                process.kill()
            raise
        raise


@contextmanager
def safe_path() -> Iterator[None]:
    """Within, a Python that is started leaves the working folder out of its path."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        restore(SAFE_PATH, before)


# ---- in a worker --------------------------------------------------------------------------------------------


class LineSender(io.TextIOBase):
    """A stream whose lines are sent to the process that started this one."""

    encoding = "utf-8"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self, there: Connection) -> None:
        self.there, self.kept, self.lock = there, "", threading.Lock()

    def write(self, text: str) -> int:
        with self.lock:
            *lines, self.kept = (self.kept + text).split("\n")
            for line in (line.rpartition("\r")[2] for line in lines):  # of a bar that was drawn again, the last
                for start in range(0, max(1, len(line)), PIECE):
                    self.send("line", line[start : start + PIECE])
        return len(text)

    def send(self, kind: str, content: Any) -> None:
        self.there.send((kind, content))


class Worker:
    """The state of a worker, one per process."""

    lines: LineSender
    stopped = False


def begin(there: Connection, watched: Connection, threads: int) -> None:
    """Set a worker up: a session of its own, so that Ctrl-C comes once, from the process that started it."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # torch reads it when it is imported
    with suppress(AttributeError, OSError):
        os.setsid()
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)  # while nothing is done; `stopping` answers while something is
    Worker.lines = LineSender(there)
    sys.stdout = sys.stderr = Worker.lines
    threading.Thread(target=watch, args=(watched,), daemon=True).start()


def watch(watched: Connection) -> None:
    """Stop what is done when the other end is closed, and end when the process that started this one has ended."""
    with suppress(EOFError, OSError):
        watched.recv()
    Worker.stopped = True
    os.kill(os.getpid(), signal.SIGTERM)
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def do(place: int, task: Task) -> Any:
    """A task's result, or its Failure."""
    Worker.lines.send("begun", place)
    with shown(), stopping():
        if Worker.stopped:
            raise KeyboardInterrupt
        try:
            return attempt(task.what, lambda: task.work(*task.arguments))
        except KeyboardInterrupt as where:
            if str(where):
                say(where)
            raise


def tell(content: Any) -> None:
    """Send something short to the `hear` of the process that started this one."""
    with Worker.lines.lock:
        Worker.lines.send("event", content)
