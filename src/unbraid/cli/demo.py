"""The demo: two studies trained, scored, shown in pages and reported, their streams shared out among processes.

A stream is one seed of a study: what is trained on it is scored by the process that trained it. The longest come first,
so that all processes end together.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from unbraid import catalog
from unbraid.cli.arguments import DemoFlags, TrainFlags
from unbraid.cli.calls import Call
from unbraid.cli.named_runs import report_unread
from unbraid.cli.resolve import packages
from unbraid.cli.score import Scoring, open_runs, report_on, say_notes, score_part, write_pages
from unbraid.cli.shards import Shard
from unbraid.cli.study import trained_folders, worst
from unbraid.cli.tally import Tally
from unbraid.cli.train import evals_named, preflight
from unbraid.cli.train_shards import JointProgress, ShardSettings, say_failures, train_and_tell
from unbraid.cli.worker_process import Task
from unbraid.cli.workers import cores, crew_here, in_background
from unbraid.experiment.experiment import Experiment
from unbraid.experiment.study import Study, cohorts
from unbraid.system.each import Failure, attempt
from unbraid.system.locks import held
from unbraid.system.terminal import say
from unbraid.training.loop import folders_of

EVALS = {
    "demo_language": ("fidelity", "recovery", "absorption", "splitting", "interchange"),
    "demo_world": ("fidelity", "recovery", "absorption", "splitting", "controllability"),
}
"""What the demo's minutes allow, by study, the longest first; `unbraid eval runs/demo/*` makes the rest."""
BROWSERS = {"demo_language": "browser", "demo_world": "browser-world"}
"""Folders of pages next to the demo's report, which links to the one called browser."""
BROWSED = ("batchtopk", "matryoshka")
"""Methods whose latents the demo shows side by side, of the first seed."""
SHOWN_BY = ("examples", "causal_cards")
"""Evals of what is shown: the first of all that is, the second, half a minute a language model's dictionary, of one."""


@dataclass(frozen=True)
class DemoStream:
    """One of the demo's tasks: a stream of a study."""

    study: str
    number: int
    """Of the stream, from 0."""
    shown: bool = False
    """Whether pages show two of its dictionaries."""

    @property
    def experiments(self) -> list[Experiment]:
        return streams(self.study)[self.number]

    @property
    def place(self) -> str:
        """The study and the stream, for messages."""
        return f"{self.study}, stream {self.number + 1} of {len(streams(self.study))}"

    @property
    def results(self) -> int:
        """The number of results that scoring gives."""
        more = sum(len(self.shown_by(name)) for name in SHOWN_BY) if self.shown else 0
        return len(self.experiments) * len(EVALS[self.study]) + more

    def shown_by(self, eval_name: str) -> list[Experiment]:
        """The experiments that pages show, by one of the evals that they are made of."""
        found = {experiment.name: experiment for experiment in self.experiments if experiment.name in BROWSED}
        ordered = [found[method] for method in BROWSED if method in found]
        return ordered[:1] if eval_name == SHOWN_BY[1] else ordered


def parts_of(seeds: tuple[int, ...]) -> list[DemoStream]:
    """The tasks of these seeds, of all when none is named; the longest first. Raises ValueError for a seed that the
    studies do not have."""
    found: list[DemoStream] = []
    for name in EVALS:
        by_seed = {cohort[0].seed: number for number, cohort in enumerate(streams(name))}
        if unknown := [seed for seed in seeds if seed not in by_seed]:
            there = ", ".join(map(str, by_seed))
            raise ValueError(f"--seeds names {unknown[0]}, and the demo has seeds {there}; name some of these")
        numbers = sorted(by_seed[seed] for seed in set(seeds or by_seed))
        found += [DemoStream(name, number, shown=number == numbers[0]) for number in numbers]
    return found


def run_demo(call: Call[DemoFlags]) -> int:
    """Train, score, show and report two studies by a process a core; the exit code."""
    options = call.options
    parts = parts_of(options.seeds)
    experiments = [experiment for part in parts for experiment in part.experiments]
    folders = folders_of(experiments, options.out)
    workers = min(cores(), len(parts))
    say(f"{len(folders)} dictionaries on two worlds, {workers} processes; the whole takes a few minutes", flush=True)
    shards = [Shard(tuple(part.experiments), part.place) for part in parts]
    tasks = [Task(part.place, demo_stream, (number, part, options)) for number, part in enumerate(parts)]
    with held([options.out]):
        with JointProgress(shards) as progress:
            hear = heard(progress, Tally(sum(part.results for part in parts), alone=False))
            with in_background(tasks, crew_here(workers, 1), hear=hear) as work:
                pass
        failed = worst(work) or (1 if say_failures(folders) else 0)
        made = trained_folders(options.out, experiments)
        return report_on(made, options.out / "report.html", options.out / "scores.json") or failed


def heard(progress: JointProgress, tally: Tally) -> Callable[[Any], None]:
    """Return what hears the events of workers: it shows trained tokens as progress, and counts results."""

    def hear(event: tuple[Any, ...]) -> None:
        if event[0] == "scored":
            tally(*event[1:])
        elif event[0] == "note":
            say(f"note: {event[1]}", file=sys.stderr)
        else:
            progress.hear(event)

    return hear


@cache
def streams(name: str) -> list[list[Experiment]]:
    """The experiments of a study by stream, the same objects each time: they hold the model that they have read."""
    return cohorts(demo_experiments(name))


def demo_experiments(name: str) -> list[Experiment]:
    study = catalog.make(catalog.experiments()[name])
    assert isinstance(study, Study)
    return study.experiments()


# ---- in a worker --------------------------------------------------------------------------------------------


def demo_stream(number: int, part: DemoStream, options: DemoFlags) -> int:
    """Train and score what is on a stream, and show the first one's; the exit code."""
    allowed, experiments = packages(options), part.experiments
    how = TrainFlags(out=options.out, package=options.package, resume=True, threads=1)
    if refused := preflight(how, experiments, evals_named(EVALS[part.study], allowed)):
        return refused
    shared = ShardSettings(options.out, how.checkpoint_seconds, allowed)
    train_and_tell(number, part.place, experiments, shared)
    folders = trained_folders(options.out, experiments)
    runs, unread = open_runs(folders, Scoring(allowed))
    report_unread(unread)
    say_notes(runs)
    failed = score_part(folders, Scoring(allowed, evals=EVALS[part.study]))
    if part.shown:
        for name in SHOWN_BY:
            shown = trained_folders(options.out, part.shown_by(name))
            failed += score_part(shown, Scoring(allowed, evals=(name,)))
        browse_demo(part, options, options.out / BROWSERS[part.study])
    return 1 if failed else 0


def browse_demo(part: DemoStream, options: DemoFlags, pages: Path) -> None:
    """Write the pages of two dictionaries, or say why not; pages that are there are kept."""
    shown = trained_folders(options.out, part.shown_by(SHOWN_BY[0]))
    if pages.exists():
        say(f"pages: {pages / 'index.html'} (kept; remove the folder to have them written anew)")
    elif len(shown) == len(BROWSED):
        written = attempt(pages.name, lambda: write_pages(shown, packages(options), (), pages))
        if isinstance(written, Failure):
            say(f"note: no pages in {pages}: {written.reason}", file=sys.stderr)
    else:
        say(f"note: no pages in {pages}: {' and '.join(BROWSED)} of {part.study} are not finished", file=sys.stderr)
