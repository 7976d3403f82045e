"""Siblings of a run: finished runs in the same folder, found by the settings they share. Unreadable ones are left out.

A folder is read once for all who ask within `read_once`, and runs are found by a key: asking for the seeds of each of n
runs takes n steps, not n squared.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbraid.config.serialise import to_json
from unbraid.dictionary.dictionary import Dictionary
from unbraid.experiment.experiment import Experiment
from unbraid.runs.run import Run
from unbraid.runs.run_folder import finished, is_run
from unbraid.system.each import each

Key = tuple[Path, tuple[str, ...], tuple[str, ...]]
"""A folder, and what runs in it may name and do."""


@dataclass
class Folder:
    """The finished runs of a folder."""

    runs: list[Run]
    left_out: dict[str, str]
    """By name, why a run that is there cannot be read."""
    by_key: dict[tuple[str, ...], dict[str, list[Run]]] = field(default_factory=dict)

    def alike(self, experiment: Experiment, apart: Sequence[str]) -> list[Run]:
        """The runs that equal `experiment` in all but the fields `apart`."""
        fields = tuple(apart)
        if fields not in self.by_key:
            groups: dict[str, list[Run]] = {}
            for run in self.runs:
                groups.setdefault(key_of(run.experiment, fields), []).append(run)
            self.by_key[fields] = groups
        return self.by_key[fields].get(key_of(experiment, fields), [])


_read: ContextVar[dict[Key, Folder] | None] = ContextVar("folders read", default=None)


@contextmanager
def read_once() -> Iterator[None]:
    """Read each folder once inside this context: siblings are those of the first look."""
    before = _read.set({})
    try:
        yield
    finally:
        _read.reset(before)


def alike(run: Run, *apart: str) -> list[Run]:
    """The other finished runs in the same folder that differ in these fields at most ("seed", "dictionary.d_sae"), by
    name."""
    own = run.path.absolute()
    return [other for other in folder_of(run).alike(run.experiment, apart) if other.path.absolute() != own]


def left_out(run: Run) -> dict[str, str]:
    """Siblings that cannot be read, and why, by name."""
    return {name: reason for name, reason in folder_of(run).left_out.items() if name != run.path.name}


def folder_of(run: Run) -> Folder:
    """Return the folder that holds the run and its siblings, read once within `read_once`."""
    held = _read.get()
    key = run.path.absolute().parent, run.packages, run.permissions
    if held is None:
        return read_folder(*key)
    if key not in held:
        held[key] = read_folder(*key)
    return held[key]


def read_folder(path: Path, packages: tuple[str, ...], permissions: tuple[str, ...]) -> Folder:
    there = [found for found in sorted(path.iterdir()) if is_run(found) and finished(found)]
    runs, failed = each(there, lambda found: Run.open(found, packages, permissions))
    return Folder(runs, {Path(failure.what).name: failure.reason for failure in failed})


def key_of(experiment: Experiment, apart: Sequence[str]) -> str:
    """Return the JSON of an experiment without the settings `apart`: equal for runs that differ only in those."""
    data = to_json(experiment)
    for name in apart:
        *parents, last = name.split(".")
        node: dict[str, Any] = data
        for parent in parents:
            node = node[parent]
        node.pop(last, None)  # one that came after files had been written is not always there
    return json.dumps(data, sort_keys=True)


def readable(runs: Sequence[Run]) -> tuple[list[Run], Mapping[str, str]]:
    """Return the runs whose dictionary can be read, and by name why the others' cannot."""

    def proved(run: Run) -> Run:
        _: Dictionary = run.dictionary()
        return run

    whole, failed = each(runs, proved, lambda run: run.path.name)
    return whole, {failure.what: failure.reason for failure in failed}
