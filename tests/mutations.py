"""Damage to a run folder, by seed: bits, bytes, cut, grown, zeroed, other digits, other shapes, swaps, links, pipes.

`try_mutation` damages a copy of a run, uses it as a user would, and says in a word what came of it. What must not come
is a traceback, or a score of changed weights.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from unbraid import catalog
from unbraid.comparison.stored_scores import records
from unbraid.evals.shared.evaluation import evaluate
from unbraid.report import collect, write_report
from unbraid.runs.run import Run

Outcome = Literal["same", "refused", "traceback", "unnamed", "changed"]
"""same: weights and scores as they were; refused: a sentence that names the folder; the others are faults: an error
without a sentence, a sentence that names no file, changed weights or scores taken."""
FAULTS: tuple[Outcome, ...] = ("traceback", "unnamed", "changed")

SHAPES: tuple[Any, ...] = ({}, [], None, 3, "text", [1, [2]], {"type": 3}, {"type": "os:system"}, {"scores": 3}, True)
EVALS = ("fidelity",)


@dataclass(frozen=True)
class Mutation:
    """What is done to one file of a run folder."""

    file: str
    how: str
    seed: int

    def apply(self, folder: Path, others: Sequence[Path]) -> bool:
        """Damage `folder`; False where that leaves it as it was. `others`: folders to swap files with."""
        path, rng = folder / self.file, random.Random(self.seed)
        if self.how in PLACES:
            return PLACES[self.how](path, rng, others)
        before = path.read_bytes()
        after = CONTENTS[self.how](bytearray(before), rng)
        path.write_bytes(after)
        return bytes(after) != before


def flip(data: bytearray, rng: random.Random) -> bytes:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def some_bytes(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(8 if data else 0):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def head(data: bytearray, rng: random.Random) -> bytes:
    if data:
        data[rng.randrange(min(len(data), 200))] = rng.randrange(256)
    return bytes(data)


def truncate(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data) + 1)])


def insert(data: bytearray, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(5)
    return bytes(data)


def zeros(data: bytearray, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return bytes(data[:at]) + bytes(len(data) - at)


def digit(data: bytearray, rng: random.Random) -> bytes:
    places = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    if places:
        data[rng.choice(places)] = rng.choice(b"0123456789-e.")
    return bytes(data)


def other_shape(data: bytearray, rng: random.Random) -> bytes:
    """JSON with one of its values, or the whole of it, replaced by something of another shape."""
    try:
        whole = json.loads(data.decode())
    except ValueError:
        return json.dumps(rng.choice(SHAPES)).encode()
    places = [*places_in(whole)]
    if not places:
        return json.dumps(rng.choice(SHAPES)).encode()
    holder, key = rng.choice(places)
    holder[key] = rng.choice(SHAPES)
    return json.dumps(whole).encode()


def places_in(node: Any) -> Iterator[tuple[Any, Any]]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in [*pairs]:
        yield node, key
        yield from places_in(child)


def swap(path: Path, rng: random.Random, others: Sequence[Path]) -> bool:
    """The file of the same name from another run, or another file of this one."""
    there = [folder / path.name for folder in others] + [folder / "results" / path.name for folder in others]
    choices = [p for p in [*there, *path.parent.glob("*")] if p.is_file() and p.read_bytes() != path.read_bytes()]
    if choices:
        shutil.copyfile(rng.choice(sorted(choices)), path)
    return bool(choices)


def link(path: Path, rng: random.Random, others: Sequence[Path]) -> bool:
    path.unlink()
    path.symlink_to(rng.choice([*(folder / path.name for folder in others), Path("/nowhere/at/all"), path]))
    return True


def pipe(path: Path, rng: random.Random, others: Sequence[Path]) -> bool:
    path.unlink()
    os.mkfifo(path)
    return True


def folder(path: Path, rng: random.Random, others: Sequence[Path]) -> bool:
    path.unlink()
    path.mkdir()
    return True


def gone(path: Path, rng: random.Random, others: Sequence[Path]) -> bool:
    path.unlink()
    return True


def huge(path: Path, rng: random.Random, others: Sequence[Path]) -> bool:
    """A file of holes that says it has 60 GB."""
    path.unlink()
    with path.open("wb") as file:
        file.truncate(60 * 10**9)
    return True


CONTENTS: dict[str, Callable[[bytearray, random.Random], bytes]] = {
    "flip": flip, "bytes": some_bytes, "head": head, "truncate": truncate, "insert": insert, "zeros": zeros,
    "digit": digit, "shape": other_shape,
}  # fmt: skip
PLACES: dict[str, Callable[[Path, random.Random, Sequence[Path]], bool]] = {
    "swap": swap, "link": link, "pipe": pipe, "folder": folder, "gone": gone, "huge": huge,
}  # fmt: skip


def mutations(seed: int, files: Sequence[str], count: int) -> Iterator[Mutation]:
    """`count` mutations of these files, every file and every kind of damage in turn."""
    rng = random.Random(seed)
    hows = [*CONTENTS, *PLACES]
    for number in range(count):
        how = hows[number % len(hows)]
        yield Mutation(rng.choice(sorted(files)), how, rng.randrange(2**32))


def files_of(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())


def rows_of(run: Path) -> list[tuple[str, ...]]:
    """The scores a report shows of a run, without the seconds they took."""
    columns = ("name", "seed", "eval", "metric", "params", "value")
    return sorted(tuple(map(str, (row[column] for column in columns))) for row in records(collect([run])))


def try_mutation(mutation: Mutation, run: Path, work: Path, others: Sequence[Path] = ()) -> tuple[Outcome, str]:
    """What comes of opening, reporting on and scoring `run` with this damage: the worst outcome, and what was said.
    `run` is a finished run that was scored by EVALS; `work`, an empty folder that is removed again."""
    damaged = work / run.name
    shutil.copytree(run, damaged)
    try:
        if not mutation.apply(damaged, others):
            return "same", "nothing changed"
        found = [used(damaged, lambda: opened(damaged, run)), used(damaged, lambda: reported(damaged, run, work)),
                 used(damaged, lambda: scored(damaged, run))]  # fmt: skip
    finally:
        shutil.rmtree(work)
    order = ("same", "refused", "changed", "unnamed", "traceback")
    return max(found, key=lambda pair: order.index(pair[0]))


def used(damaged: Path, use: Callable[[], tuple[Outcome, str]]) -> tuple[Outcome, str]:
    try:
        return use()
    except ValueError as error:
        return ("refused" if names_it(str(error), damaged) else "unnamed"), str(error)
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"


def names_it(text: str, damaged: Path) -> bool:
    """Whether an error names a file in the folder, or the folder."""
    return damaged.name in text


def opened(damaged: Path, run: Path) -> tuple[Outcome, str]:
    ours, theirs = Run.open(run).dictionary(), Run.open(damaged).dictionary()
    pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
    same = type(ours.activation) is type(theirs.activation) and all(torch.equal(p, q) for p, q in pairs)
    return ("same" if same else "changed"), "weights"


def reported(damaged: Path, run: Path, work: Path) -> tuple[Outcome, str]:
    """A report shows the scores there were, or says that they are damaged or not there."""
    write_report([damaged], work / "report.html")
    found, expected = rows_of(damaged), rows_of(run)
    if found == expected:
        return "same", "report"
    page = (work / "report.html").read_text(encoding="utf-8")
    told = any(word in page for word in (">damaged</th>", ">not scored</th>"))
    return ("refused" if not found and told else "changed"), "report"


def scored(damaged: Path, run: Path) -> tuple[Outcome, str]:
    """Scores are those there were, made again where their file was damaged, or there are none."""
    known = catalog.evals()
    opened = Run.open(damaged)
    said: list[str] = []
    failed = evaluate([opened], [known[name] for name in EVALS], on_result=lambda run, item, how: said.append(how))
    if failed:
        return ("refused" if names_it(said[0], damaged) else "unnamed"), said[0]
    return ("same" if rows_of(damaged) == rows_of(run) else "changed"), said[0]
