"""Work on many items, where one item's failure is named with its reason and the others continue."""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

PASSED_ON = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""Exceptions that are no failure of an item: they stop all work."""
FORESEEN = (ValueError, OSError)
"""Errors whose message is a full explanation; for others the type and the place are shown too."""
INNERMOST = 5
"""Calls of a traceback that are kept."""


@dataclass(frozen=True)
class Failure:
    """A failed item and the reason."""

    what: str
    kind: str
    """The exception's type."""
    message: str
    trace: tuple[str, ...]
    """The innermost calls, as file:line in function, innermost last."""
    foreseen: bool = True

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"

    @property
    def reason(self) -> str:
        """The message if it explains itself; else type, message and place."""
        if self.foreseen and self.message:
            return self.message
        place = f" ({self.trace[-1]})" if self.trace else ""
        return f"{self.kind}: {self.message}{place}" if self.message else f"{self.kind}{place}"

    @property
    def typed(self) -> str:
        """Type and reason, as a result stores it."""
        return f"{self.kind}: {self.message}" if self.foreseen else self.reason


def attempt(what: str, work: Callable[[], T]) -> T | Failure:
    """Return the result of `work`, or its failure, whatever it raised."""
    try:
        return work()
    except PASSED_ON:
        raise
    except BaseException as error:  # panics of libraries written in Rust are no Exception
        return failure_of(what, error)


def failure_of(what: str, error: BaseException) -> Failure:
    """Describe an exception as the failure of `what`."""
    calls = traceback.extract_tb(error.__traceback__)[-INNERMOST:]
    trace = tuple(f"{'/'.join(Path(call.filename).parts[-2:])}:{call.lineno} in {call.name}" for call in calls)
    return Failure(what, type(error).__name__, str(error), trace, isinstance(error, FORESEEN))


def each(things: Iterable[S], work: Callable[[S], T], name: Callable[[S], str] = str) -> tuple[list[T], list[Failure]]:
    """Apply `work` to each item; return the results in order, and the failures."""
    done: list[T] = []
    failed: list[Failure] = []
    for thing in things:
        found = attempt(name(thing), lambda thing=thing: work(thing))
        if isinstance(found, Failure):
            failed.append(found)
        else:
            done.append(found)
    return done, failed


def counted(failed: int, total: int) -> str:
    """Format the number of failures, as in "2 of 27 failed"."""
    return f"{failed} of {total} failed"
