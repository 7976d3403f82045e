"""Tasks done in other processes, at the same time as ours: their lines are shown among ours, each fails by itself.

A crew of workers does them one by one. A worker that ends abruptly is found, and its task is done once more.
"""

import os
import pickle
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any

from unbraid.cli.worker_process import LocalWorker, Task, Worker
from unbraid.system.each import Failure
from unbraid.system.terminal import say

ABRUPT = (
    "the process that worked on it ended abruptly, twice, as when memory runs out; free some, or use fewer --workers"
)
STOPPED = "the process that worked on it was stopped by a signal; what it had finished is kept"
NEVER_BEGAN = (
    "no process that could work on it stayed alive, as when memory runs out; free some, or use fewer --workers"
)


@dataclass(frozen=True)
class Crew:
    """The workers that tasks are given to."""

    workers: int
    hire: Callable[[], Worker]
    """Starts one."""
    remote: bool = False
    """They are on other machines. There a worker that ended abruptly is replaced at once. Here it most often ended for
    want of memory, so its task waits for another worker that is free."""

    def helps(self, parts: int) -> bool:
        """Tell whether work of so many parts is for the crew: this process does itself what one worker here would."""
        return parts > 0 and (self.remote or min(parts, self.workers) > 1)


def crew_here(workers: int, threads: int) -> Crew:
    """Processes of this machine, of so many CPU threads each; 0 shares the cores out."""
    return Crew(workers, lambda: LocalWorker(threads or max(1, cores() // workers)))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(eq=False)
class Hand:
    """A worker that has not ended, and what it does."""

    worker: Worker
    number: int
    ready: bool = False
    place: int | None = None
    """Of the task that it does."""
    ending: bool = False

    def stop(self) -> None:
        self.ending = True
        self.worker.stop()


@dataclass(eq=False)
class Background(threading.Thread):
    """The tasks at work, and what became of them."""

    tasks: Sequence[Task]
    crew: Crew
    hear: Callable[[Any], None]
    """Called with each event that a worker tells."""
    results: dict[int, Any] = field(default_factory=dict)
    """By the task's place: what it returned, a Failure, or nothing where it was stopped."""
    stopped: bool = False
    error: BaseException | None = None
    """A fault of ours, such as one that `hear` raised."""

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.inbox: SimpleQueue[tuple[Hand | None, str, Any]] = SimpleQueue()
        self.waiting = deque(range(len(self.tasks)))
        self.hands: list[Hand] = []
        self.hired, self.stillborn, self.again = 0, 0, set[int]()
        self.over = threading.Event()

    @property
    def failures(self) -> list[Failure]:
        """The failures, in order."""
        return [found for _, found in sorted(self.results.items()) if isinstance(found, Failure)]

    def wait(self) -> None:
        """Wait until all workers have ended. An interrupted `join` takes a thread for ended (bpo-45274)."""
        self.over.wait()

    def stop(self) -> None:
        """Ask the workers to stop."""
        self.inbox.put((None, "stop", None))

    def kill(self) -> None:
        """End all workers at once."""
        for hand in tuple(self.hands):
            hand.worker.kill()

    def run(self) -> None:
        """Do all tasks."""
        try:
            for _ in range(min(self.crew.workers, len(self.tasks))):
                self.hire()
            while self.hands:
                self.take(*self.inbox.get())
        except BaseException as error:
            self.error = error
            for hand in self.hands:
                hand.stop()
        finally:
            self.over.set()

    def hire(self) -> None:
        self.hired += 1
        hand = Hand(self.crew.hire(), self.hired)
        self.hands.append(hand)
        threading.Thread(target=self.listen, args=(hand,), daemon=True).start()

    def listen(self, hand: Hand) -> None:
        """Bring a worker's messages to where they are answered, one after another."""
        try:
            for kind, content in hand.worker.messages():
                self.inbox.put((hand, kind, content))
        finally:
            self.inbox.put((hand, "gone", None))

    def take(self, hand: Hand | None, kind: str, content: Any) -> None:
        """Answer a message of a worker, or a request to stop."""
        if hand is None:
            self.stopped = True
            for each in self.hands:
                each.stop()
        elif kind == "line":
            say(f"  {hand.number} | {content}" if self.crew.workers > 1 else f"  | {content}", flush=True)
        elif kind == "event":
            self.hear(content)
        elif kind == "gone":
            self.lose(hand)
        else:
            self.settle(hand, kind, content)

    def settle(self, hand: Hand, kind: str, content: Any) -> None:
        """Keep what became of a worker's task, and give it the next."""
        place, hand.place = hand.place, None
        if kind == "ready":
            hand.ready, self.stillborn = True, 0
        elif kind == "result":
            self.keep(place, content)
        elif not self.stopped:  # somebody else has stopped it
            self.keep(place, Failure("", "Stopped", STOPPED, ()))
        if self.stopped or not self.waiting:
            hand.stop()
        else:
            hand.place = self.waiting.popleft()
            hand.worker.give(pickle.dumps(self.tasks[hand.place]))
        self.rest()

    def keep(self, place: int | None, content: Any) -> None:
        assert place is not None, "a worker tells of the task that it was given"
        self.results[place] = replace(content, what=self.tasks[place].what) if isinstance(content, Failure) else content

    def lose(self, hand: Hand) -> None:
        """Go on without a worker that has ended. A task that it was at is done once more."""
        self.hands.remove(hand)
        if self.stopped:
            return
        if hand.place in self.again:
            self.keep(hand.place, Failure("", "Killed", ABRUPT, ()))
        elif hand.place is not None:
            self.again.add(hand.place)
            self.waiting.append(hand.place)
            what = self.tasks[hand.place].what
            say(f"note: {what}: the process that worked on it ended abruptly; it is gone on with", file=sys.stderr)
        self.stillborn += not (hand.ready or hand.ending)
        if self.stillborn > self.crew.workers:
            while self.waiting:
                self.keep(self.waiting.popleft(), Failure("", "Killed", NEVER_BEGAN, ()))
        busy = any(not each.ending for each in self.hands)
        if self.waiting and not hand.ending and (self.crew.remote or not busy):
            self.hire()
        self.rest()

    def rest(self) -> None:
        """Once nothing is left to do, have workers end that have not begun: a cluster may never have room for them."""
        if not self.waiting and all(hand.place is None for hand in self.hands):
            for hand in self.hands:
                hand.stop()


@contextmanager
def in_background(
    tasks: Sequence[Task], crew: Crew, *, hear: Callable[[Any], None] = lambda content: None
) -> Iterator[Background]:
    """Have a crew do tasks meanwhile; waited for at the end, and stopped when what is done here fails or is
    interrupted."""
    work = Background(tasks, crew, hear)
    work.start()
    try:
        yield work
        work.wait()
    except BaseException:
        work.stop()
        try:
            work.wait()
        except BaseException:  # interrupted again: nothing is waited for
            work.kill()
            raise
        raise
    if work.error is not None:
        raise work.error
