"""Training and scoring of the audit's dictionaries, each once: what a file of rows has is not made again."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.audit.damage import damaged
from benchmarks.audit.panel import Case, Trained, damaged_cases, redrawn_cases, trained
from benchmarks.audit.redraw import other_choices, other_rows
from benchmarks.audit.rows import Rows, add
from benchmarks.audit.testbeds import Testbed
from unbraid import catalog
from unbraid.evals.shared.evaluation import Eval, evaluate, score
from unbraid.experiment.study import cohorts
from unbraid.runs.in_memory import InMemory
from unbraid.runs.results import read_result, result_path
from unbraid.runs.run import Run
from unbraid.sources.base import Source
from unbraid.sources.world.world import World
from unbraid.system.progress import ProgressDisplay
from unbraid.system.sharing import sharing
from unbraid.training.callbacks import Progress
from unbraid.training.loop import train

Keep = Callable[[], None]
"""Called when rows were added."""
Results = Sequence[Mapping[str, Any]]


def measure(testbed: Testbed, rows: Rows, folder: Path, keep: Keep) -> None:
    """Train and score what the rows lack, and add it."""
    plan = list(trained(testbed))
    evals = list(catalog.default_evals().values())
    left = [one for one in plan if one.case not in rows.scores]
    if left:
        runs = trained_runs(plan, folder)
        score_runs([(one.case, runs[one.case]) for one in left], evals, rows, keep)
    in_memory = [c for c in (*redrawn_cases(testbed), *damaged_cases(testbed)) if c not in rows.scores]
    if in_memory:
        score_in_memory(in_memory, testbed, trained_runs(plan, folder), evals, rows, keep)


def trained_runs(plan: Sequence[Trained], folder: Path) -> dict[Case, Run]:
    """Train what is not yet trained; the runs by case. Runs of one experiment are one run."""
    experiments = list({one.experiment.folder: one.experiment for one in plan}.values())
    for cohort in cohorts(experiments):
        train(cohort, folder, resume=True, callbacks=Progress())
    return {one.case: Run.open(folder / one.experiment.folder) for one in plan}


def score_runs(runs: Sequence[tuple[Case, Run]], evals: Sequence[Eval], rows: Rows, keep: Keep) -> None:
    """Score runs into their folders, and add their rows."""
    with ProgressDisplay() as show:
        total, done = len(runs) * len(evals), 0

        def shown(run: Run, item: Eval, status: str) -> None:
            nonlocal done
            done += 1
            show("scoring runs", "evals", done, total)

        if failed := evaluate([run for _, run in runs], evals, on_result=shown):
            raise ValueError(f"{failed} evals failed; {runs[0][1].path.parent}/*/results/ say why")
    for case, run in runs:
        add(rows, case, [read_result(result_path(run.path, item.name)) for item in evals])
    keep()


def score_in_memory(
    cases: Sequence[Case], testbed: Testbed, runs: Mapping[Case, Run], evals: Sequence[Eval], rows: Rows, keep: Keep
) -> None:
    """Score damaged and redrawn dictionaries, a row at a time."""
    sources = {number: testbed.source(number) for number, _ in testbed.draws}
    with ProgressDisplay() as show, sharing():
        for index, case in enumerate(cases):
            show("scoring damaged and redrawn", "dictionaries", index, len(cases))
            add(rows, case, results_of(case, testbed, runs, sources[case.source], evals))
            keep()


def results_of(
    case: Case, testbed: Testbed, runs: Mapping[Case, Run], source: Source, evals: Sequence[Eval]
) -> Results:
    """Return the results of a damaged ceiling, or of a trained dictionary with other draws of the evals."""
    if case.kind == "damaged":
        whole = runs[Case("control", testbed.ceiling, case.source, case.seed)].dictionary()
        return scored(InMemory.of(damaged(whole, case.name, case.share, source, case.seed), source), evals)
    assert isinstance(source, World)
    draw = int(case.share)
    dictionary = runs[Case("equal", case.name, case.source, case.seed)].dictionary()
    with other_choices(evals, draw):
        return scored(InMemory.of(dictionary, other_rows(source, draw)), evals)


def scored(run: Run, evals: Sequence[Eval]) -> Results:
    """Score a dictionary in memory. Raises ValueError for an eval that fails."""
    results = [score(run, item) for item in evals]
    if failed := next((result for result in results if "error" in result), None):
        raise ValueError(f"{failed['eval']} failed: {failed['error']}\n{failed['traceback']}")
    return results
