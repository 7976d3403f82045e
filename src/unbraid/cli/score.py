"""The commands that score and report: eval, with our own evals or SAEBench's, and report."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unbraid.cli.arguments import BrowseFlags, EvalFlags, ReportFlags, SaeBench, StudyFlags
from unbraid.cli.calls import Call
from unbraid.cli.crews import crew_of
from unbraid.cli.named_runs import finished_runs, report_unread
from unbraid.cli.resolve import packages, permissions, run_folders, use_threads
from unbraid.cli.tally import Tally
from unbraid.cli.train import evals_named
from unbraid.cli.worker_process import Task, tell
from unbraid.cli.workers import Crew, in_background
from unbraid.evals.shared.evaluation import by_source, evaluate
from unbraid.experiment.experiment import Experiment
from unbraid.objective.l0_control import shortfall
from unbraid.runs.run import Run
from unbraid.system.each import Failure, attempt, counted, each
from unbraid.system.sharing import share_to_the_end
from unbraid.system.terminal import name as on_one_line
from unbraid.system.terminal import say

PARTS = 4
"""Tasks a worker is given in turn: few, so that what runs share is made seldom; several, so that all end together."""
SENT = 1000
"""Letters of a status that a worker tells."""


@dataclass(frozen=True)
class Scoring:
    """The settings of our own evals."""

    packages: tuple[str, ...]
    permissions: tuple[str, ...] = ()
    evals: tuple[str, ...] = ()
    """Those that were named; all that apply when none was."""
    force: bool = False
    verbose: bool = False

    @staticmethod
    def of(options: EvalFlags | StudyFlags) -> "Scoring":
        force = isinstance(options, EvalFlags) and options.force
        return Scoring(packages(options), permissions(options), options.evals, force, options.verbose)


def run_eval(call: Call[EvalFlags]) -> int:
    """Score the finished runs among those named; the exit code."""
    options = call.options
    done = finished_runs(options.runs)
    if options.suite == "saebench":
        if options.ray or options.workers > 1:
            raise ValueError("--workers and --ray are of our own evals; leave them out, or run SAEBench by a study")
        return run_saebench(done, options, options.evals)
    if options.plan:
        raise ValueError("--plan is of --suite saebench; our own evals say what they take as they go")
    use_threads(options.threads)
    with crew_of(options, sorted({path.absolute().parent for path in done})) as crew:
        return score_all(done, Scoring.of(options), crew)


def open_runs(folders: Sequence[Path], scoring: Scoring) -> tuple[list[Run], list[Failure]]:
    """The runs that can be read, and why others cannot."""
    return each(folders, lambda folder: Run.open(folder, scoring.packages, scoring.permissions))


def say_notes(runs: Sequence[Run]) -> None:
    """Print what is to be known of runs: their notes, and which did not arrive at their L0."""
    for run in runs:
        for text in run.notes:
            say(f"note: {text}", file=sys.stderr)
        if short := attempt(run.path.name, lambda run=run: shortfall(run.facts.provenance)):
            say(f"note: {on_one_line(run.path.name)} {short}", file=sys.stderr)


def summed_up(failed: int, total: int) -> int:
    """Say at the end of a command how many of its items failed; its exit code."""
    if failed:
        say(f"{counted(failed, total)}; the reasons are above, and in the results of those scored", file=sys.stderr)
    return 1 if failed else 0


# ---- our own evals ------------------------------------------------------------------------------------------


def score_all(folders: Sequence[Path], scoring: Scoring, crew: Crew) -> int:
    """Score runs by our own evals, here or, where it is of several, by a crew; the exit code."""
    names = [item.name for item in evals_named(scoring.evals, scoring.packages)]
    runs, unread = open_runs(folders, scoring)
    report_unread(unread)
    if not runs:
        return 2
    say_notes(runs)
    # Evals that were named say why they do not apply, others only that they do not.
    tally = Tally(len(runs) * len(names), verbose=bool(scoring.evals) or scoring.verbose)
    notes = set[str]()

    def note(text: str) -> None:
        if text not in notes:
            notes.add(text)
            say(f"note: {text}", file=sys.stderr)

    failures = (
        evaluate(
            runs, evals_named(scoring.evals, scoring.packages), force=scoring.force,
            on_result=lambda run, item, status: tally(run.path, item.name, status), notice=note,
        )
        if not crew.helps(len(runs))
        else score_in_workers([run.path for run in by_source(runs)], scoring, (tally, note), crew)
    )  # fmt: skip
    if summary := tally.summary():
        say(summary)
    return summed_up(failures + len(unread) * len(names), len(folders) * len(names))


def score_in_workers(folders: Sequence[Path], scoring: Scoring, heard: Any, crew: Crew) -> int:
    """Have a crew score runs; how many results failed. `heard`: the tally, and what notes are given to."""
    tally, note = heard
    parts = min(len(folders), crew.workers * PARTS)
    tasks = [
        Task(", ".join(folder.name for folder in part), score_part, (part, scoring))
        for part in (folders[len(folders) * i // parts : len(folders) * (i + 1) // parts] for i in range(parts))
    ]
    hear = lambda event: tally(*event[1:]) if event[0] == "scored" else note(event[1])
    with in_background(tasks, crew, hear=hear) as work:
        pass
    for one in work.failures:
        say(f"error: {one}", file=sys.stderr)
    lost = sum(len(tasks[place].arguments[0]) for place, found in work.results.items() if isinstance(found, Failure))
    return lost + sum(found for found in work.results.values() if not isinstance(found, Failure))


def score_part(folders: Sequence[Path], scoring: Scoring) -> int:
    """Score some runs in a worker, and tell how each went; how many results failed."""
    share_to_the_end()  # a worker's next part is mostly of the same source
    runs, unread = open_runs(folders, scoring)
    return len(unread) + evaluate(
        runs, evals_named(scoring.evals, scoring.packages), force=scoring.force,
        on_result=lambda run, item, status: tell(("scored", run.path, item.name, status[:SENT])),
        notice=lambda text: tell(("note", text[:SENT])),
    )  # fmt: skip


# ---- SAEBench -----------------------------------------------------------------------------------------------


def saebench_environment(options: SaeBench, *, make: bool = True) -> Any:
    """The environment that has SAEBench, made on first use; None when there is none and none is to be made."""
    from unbraid.saebench import environment

    if options.python:
        return environment.from_interpreter(options.python)
    if not make:
        return environment.find(options.cache)
    return environment.make(options.cache, lambda text: say(text, flush=True))


def bench_of(options: EvalFlags | StudyFlags) -> Any:
    """The settings of SAEBench. Raises ValueError for files that are named and cannot be used."""
    from unbraid.saebench import bench, environment
    from unbraid.system.devices import check_device

    check_device(options.device, "--device")
    how = bench.Bench(
        environment=saebench_environment(options, make=False) or environment.NOT_MADE, work=options.cache / "work",
        device=options.device, threads=max(1, options.threads), limit=60 * options.limit_minutes, size=options.size,
        text=options.text, labelled=tuple(options.labelled), ravel=options.ravel, environ=bench.own_environ(os.environ),
    )  # fmt: skip
    how.check()
    return how


def environment_to_make(options: SaeBench) -> Path | None:
    """The folder in which SAEBench's environment is still to be made; None when there is one."""
    from unbraid.saebench import environment

    return None if saebench_environment(options, make=False) else environment.folder_of(options.cache)


def plan_saebench(experiments: list[Experiment], options: StudyFlags) -> int:
    """Print what SAEBench will take for runs that are still to be trained."""
    from unbraid.saebench import cost, eval_specs, targets

    source, how = experiments[0].source, bench_of(options)
    target = targets.target_in(source.metadata(), source)
    chosen = eval_specs.chosen(list(options.saebench or ()))
    of = experiments[0]
    lines = [cost.estimate_one(one, target, how, runs=len(experiments), kept=0, of=of) for one in chosen]
    say("\n".join(["SAEBench", *cost.describe(lines, [], environment_to_make(options))]))
    return 0


def run_saebench(folders: Sequence[Path], options: EvalFlags | StudyFlags, names: Sequence[str]) -> int:
    """Score runs by SAEBench's evals of these names, or by all that need no key; the exit code."""
    from unbraid.saebench import bench, cost, eval_specs

    chosen, how = eval_specs.chosen(list(names)), bench_of(options)
    runs, unread = open_runs(folders, Scoring.of(options))
    report_unread(unread)
    if not runs:
        return 2
    lines, without = cost.estimate(runs, chosen, how)
    say("\n".join(cost.describe(lines, without, environment_to_make(options))))
    if options.plan:
        return 0
    force = isinstance(options, EvalFlags) and options.force
    if force or any(line.minutes for line in lines):
        how = replace(how, environment=saebench_environment(options))
    tally = Tally(len(runs) * len(chosen))
    failures = bench.evaluate(
        runs, chosen, how, force=force, on_result=lambda run, name, status: tally(run.path, name, status)
    )
    return summed_up(failures + len(unread) * len(chosen), len(folders) * len(chosen))


# ---- report -------------------------------------------------------------------------------------------------


def run_report(call: Call[ReportFlags]) -> int:
    options = call.options
    rows = len(options.runs) == 1 and options.runs[0].suffix == ".json" and options.runs[0].is_file()
    folders = options.runs if rows else run_folders(options.runs)
    return report_on(folders, options.out, options.scores, options.card)


def report_on(folders: Sequence[Path], out: Path, scores: Path | None, card: Path | None = None) -> int:
    """Write the report, judged by a claim card if there is one, and its rows where a file is named for them: 1 when
    runs could not be read, which are named."""
    from unbraid.report import scores_json, write_report

    unread: list[str] = []
    depart = lambda text: say(
        f"note: not as {card} was registered: {text}; its verdict is exploratory", file=sys.stderr
    )
    rows = write_report(folders, out, notice=unread.append, departed=depart, card=card)
    for text in unread:
        say(f"error: {text}", file=sys.stderr)
    if scores is not None:
        scores_json(rows, scores)
        say(f"scores: {scores}")
    say(f"report: {out}")
    return 1 if unread else 0


# ---- browser ------------------------------------------------------------------------------------------------


def run_browse(call: Call[BrowseFlags]) -> int:
    """Write the pages, and print where they begin."""
    options = call.options
    write_pages(run_folders(options.runs), packages(options), permissions(options), options.out)
    return 0


def write_pages(folders: Sequence[Path], packages: tuple[str, ...], permissions: tuple[str, ...], out: Path) -> None:
    """Write the pages of these runs into a new folder, and print where they begin."""
    from unbraid.browser import write_browser

    write_browser([Run.open(folder, packages, permissions) for folder in folders], out)
    say(f"pages: {out / 'index.html'}   open it in a web browser; no server and no network are needed")
