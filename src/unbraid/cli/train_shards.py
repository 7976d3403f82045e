"""Training by a crew of workers: a shard for each, one progress display, failures named in the end.

Every worker goes on where a folder stands, so one that was lost costs what came after its last checkpoint. What is to
start anew has been cleared before.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbraid.cli.shards import Shard, shards
from unbraid.cli.worker_process import Task, tell
from unbraid.cli.workers import Background, Crew, in_background
from unbraid.config.serialise import from_json, to_json
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.study import cohorts
from unbraid.runs.failure import failure
from unbraid.system.locks import Held, held
from unbraid.system.progress import ProgressDisplay
from unbraid.system.terminal import say
from unbraid.training.callbacks import Callback
from unbraid.training.checks import check_finished
from unbraid.training.cohort import Failed, clear_finished, left_to_train, prepare_run_folder
from unbraid.training.interrupt import Interrupted
from unbraid.training.loop import folders_of, train

TOLD_EVERY = 0.5
"""Seconds between two events that say how far a shard is."""


@dataclass(frozen=True)
class ShardSettings:
    """The settings that all shards have in common."""

    out: Path
    checkpoint_seconds: float
    packages: tuple[str, ...]
    permissions: tuple[str, ...] = ()
    patience: float = 0.0
    """Seconds to wait for folders that another process holds: one that was lost with its machine lets go a little
    later."""


def train_by_crew(experiments: Sequence[Experiment], how: ShardSettings, crew: Crew, *, overwrite: bool = False) -> int:
    """Have a crew train what is left; the number that failed, which are named. `overwrite`: unfinished runs start
    anew."""
    folders = folders_of(experiments, how.out)
    check_finished(folders)
    clear_finished(list(folders))
    todo = left_to_train(folders, anew=overwrite)
    if overwrite:
        start_anew(todo)
    work = in_shards(list(todo.values()), how, crew)
    failed = say_failures(folders)
    for given_up in work.failures:
        say(f"error: {given_up}; what was saved of it is kept, for when you resume", file=sys.stderr)
    return failed + len(work.failures)


def say_failures(folders: Mapping[Path, Experiment]) -> int:
    """Print which trainings have failed, and why; how many."""
    reasons = {folder: reason for folder in folders if (reason := failure(folder))}
    if reasons:
        say(f"error: {len(reasons)} of {len(folders)} failed\n{Failed(reasons)}", file=sys.stderr)
    return len(reasons)


def start_anew(todo: Mapping[Path, Experiment]) -> None:
    """Clear the folders of unfinished runs, so that whoever goes on with them starts anew."""
    with held(todo):
        for folder, experiment in todo.items():
            prepare_run_folder(folder, experiment, resume=False)


def in_shards(todo: Sequence[Experiment], how: ShardSettings, crew: Crew) -> Background:
    """Have a crew train experiments; its work, whose failures are shards that were given up."""
    parts = shards(cohorts(todo), crew.workers)
    tasks = [
        Task(name_of(part), train_shard, (number, part.place, stored(part), how)) for number, part in enumerate(parts)
    ]
    say(f"{len(todo)} dictionaries in {len(parts)} shards, {min(crew.workers, len(parts))} at a time", flush=True)
    with JointProgress(parts) as progress, in_background(tasks, crew, hear=progress.hear) as work:
        pass
    return work


def name_of(shard: Shard) -> str:
    """A shard's place and members, for messages."""
    labels = ", ".join(dict.fromkeys(experiment.label for experiment in shard.experiments))
    return f"{shard.place} ({labels})" if shard.place else labels


def stored(shard: Shard) -> tuple[Any, ...]:
    """The experiments as JSON: by now the objects may hold what they have read, a language model."""
    return tuple(map(to_json, shard.experiments))


class JointProgress:
    """One display of how far all shards are; a context manager that gives itself."""

    def __init__(self, parts: Sequence[Shard]):
        self._tokens = [sum(e.training.tokens for e in part.experiments) for part in parts]
        self._done = [0.0] * len(parts)
        self._what = f"training {sum(len(part.experiments) for part in parts)}"
        self._display = ProgressDisplay()

    def hear(self, event: tuple[Any, ...]) -> None:
        """Show an event of a worker: how far a shard is, or a fit."""
        kind, *content = event
        if kind == "fit":
            label, done, total = content
            self._display(f"fitting {label}", "steps", done, total)
            return
        number, self._done[number] = content[0], content[1]
        done = sum(share * tokens for share, tokens in zip(self._done, self._tokens, strict=True))
        self._display(self._what, "tokens", round(done), max(1, sum(self._tokens)))

    def __enter__(self) -> "JointProgress":
        self._display.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.__exit__(None, None, None)


# ---- in a worker --------------------------------------------------------------------------------------------


class ProgressSender(Callback):
    """Tells the process that shows the progress how far a shard is."""

    def __init__(self, number: int):
        self._number, self._last = number, 0.0

    def on_fit(self, experiment: Experiment, done: int, total: int) -> None:
        self._tell(("fit", experiment.label, done, total), last=done == total)

    def on_progress(self, done_tokens: int, total_tokens: int) -> None:
        self._tell(("trained", self._number, done_tokens / total_tokens), last=done_tokens == total_tokens)

    def _tell(self, event: tuple[Any, ...], *, last: bool) -> None:
        """Tell it, unless something has just been sent."""
        now = time.monotonic()
        if last or now - self._last > TOLD_EVERY:
            self._last = now
            tell(event)


def train_shard(number: int, place: str, experiments: Sequence[Any], how: ShardSettings) -> None:
    """Train stored experiments on one stream, and tell how far they are."""
    cohort = [from_json(one, packages=how.packages, permissions=how.permissions) for one in experiments]
    train_and_tell(number, place, cohort, how)


def train_and_tell(number: int, place: str, cohort: Sequence[Experiment], how: ShardSettings) -> None:
    """Train experiments on one stream, and tell how far they are. Members that fail are marked in their folders."""
    many = "1 dictionary" if len(cohort) == 1 else f"{len(cohort)} dictionaries"
    say(f"{place}{': ' if place else ''}{many} on one stream", flush=True)
    seconds, sender = how.checkpoint_seconds, ProgressSender(number)
    work = lambda: train(cohort, how.out, resume=True, checkpoint_seconds=seconds, callbacks=sender)
    try:
        when_free(work, how.patience)
    except Interrupted as stop:
        raise KeyboardInterrupt(stop.where) from None
    except Failed:
        pass  # the process that started this one finds the marks
    tell(("trained", number, 1.0))


def when_free(work: Callable[[], object], patience: float) -> None:
    """Do what holds folders as soon as no other process holds them. Raises Held after so many seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            work()
            return
        except Held:
            if time.monotonic() >= until:
                raise
            time.sleep(1)
