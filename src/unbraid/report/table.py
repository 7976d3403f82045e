"""The table of scores: a row per method and sparsity setting, a column per headline metric, means over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unbraid.comparison.curves import clusters
from unbraid.comparison.intervals import t_interval
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Method, Scores
from unbraid.comparison.stored_scores import MissingResult, StoredRun
from unbraid.comparison.wording import listed, mean_half, plural

Reasons = dict[tuple[str, str], str]
"""The reason why a run has no scores of an eval, by run and eval."""


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the value to sort by, and notes on missing seeds."""

    text: str
    sort: float
    """The value to sort by; NaN sorts last."""
    note: str = ""
    """The missing seeds, and why."""
    short: str = ""
    """A short form of the note."""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One method at one sparsity setting."""

    method: str
    role: str
    d_sae: int
    requested: float
    l0: Cell
    seeds: int
    cells: list[Cell]
    group: int
    """Rows with the same number have comparable L0; -1 when L0 is not known."""
    missed: bool = False
    """True if all its runs missed their target L0: it is never marked as the best."""


def table(
    scores: Scores, columns: Sequence[Quantity], missing_results: Sequence[MissingResult]
) -> tuple[list[Row], list[Row]]:
    """Build the rows of methods, by L0, and those of controls."""
    reasons = {(result.run, result.eval): f"{result.kind}: {result.reason}" for result in missing_results}
    rows = [
        row(scores, method, runs, columns, reasons) for method in scores.methods for runs in method.settings.values()
    ]
    centres = clusters([r.l0.sort for r in rows if r.role != "control"])
    grouped = [replace(r, group=nearest_group(r.l0.sort, centres)) for r in rows]
    shown = [r for r in grouped if r.role != "control"]
    shown.sort(key=lambda r: (r.group < 0, r.group))  # stable: baselines stay first within a group
    return mark_best(shown, columns), [r for r in grouped if r.role == "control"]


def row(
    scores: Scores, method: Method, runs: Sequence[StoredRun], columns: Sequence[Quantity], reasons: Reasons
) -> Row:
    """Build the row of one method at one sparsity setting."""
    l0 = cell(scores, runs, scores.l0, reasons) if scores.l0 is not None else Cell("not scored", math.nan)
    if lost := [run.seed for run in runs if run in scores.missed]:
        target = f"{runs[0].target_l0:g}"
        note = f"seeds {listed([str(s) for s in lost])} missed the target L0 of {target}: compared with nothing"
        l0 = replace(l0, note="; ".join(filter(None, (l0.note, note))), short=f"missed the target {target}")
    cells = [cell(scores, runs, column, reasons) for column in columns]
    seeds = len({run.seed for run in runs})
    missed = len(lost) == len(runs)
    return Row(method.name, method.role, method.d_sae, runs[0].requested_l0, l0, seeds, cells, -1, missed)


def cell(scores: Scores, runs: Sequence[StoredRun], column: Quantity, reasons: Reasons) -> Cell:
    """Build a cell: mean and half-width over seeds, or why there is none."""
    by_seed: dict[int, list[float]] = {}
    missing: list[str] = []
    for run in runs:
        value = scores.value(run, column)
        if math.isfinite(value):
            by_seed.setdefault(run.seed, []).append(value)
        elif run.run in scores.values.get(column, {}):
            missing.append(f"seed {run.seed}: NaN")
        else:
            missing.append(f"seed {run.seed}: {reasons.get((run.run, column.eval), f'not scored by {column.eval}')}")
    found = t_interval([math.fsum(values) / len(values) for values in by_seed.values()])
    if found.n:
        short = f"{plural(found.n, 'seed')}; {len(missing)} {short_reason(missing)}" if missing else ""
        return Cell(mean_half(found), found.mean, "; ".join(missing), short)
    return Cell(short_reason(missing), math.nan, "; ".join(missing))


def short_reason(missing: Sequence[str]) -> str:
    """Name the kind of a missing value: NaN, error, damaged, n/a or not scored."""
    kinds = (": NaN", "NaN"), (": error", "error"), (": damaged", "damaged"), (": not applicable", "n/a")
    return next((shown for mark, shown in kinds if any(mark in reason for reason in missing)), "not scored")


def nearest_group(l0: float, centres: Sequence[float]) -> int:
    """The index of the nearest centre on a log scale; -1 for an L0 that is unknown."""
    if not math.isfinite(l0) or l0 <= 0 or not centres:
        return -1
    return min(range(len(centres)), key=lambda i: abs(math.log(l0 / centres[i])))


def mark_best(rows: list[Row], columns: Sequence[Quantity]) -> list[Row]:
    """Mark the best mean of each column among rows of comparable L0, where there are at least two."""
    marked = list(rows)
    for group in {r.group for r in rows if r.group >= 0}:
        for j, column in enumerate(columns):
            entries = [
                i for i, r in enumerate(rows) if r.group == group and not r.missed and math.isfinite(r.cells[j].sort)
            ]
            if column.sign == 0 or len(entries) < 2:
                continue
            best = max(column.sign * rows[i].cells[j].sort for i in entries)
            for i in entries:
                if column.sign * rows[i].cells[j].sort == best:
                    cells = list(marked[i].cells)
                    cells[j] = replace(cells[j], best=True)
                    marked[i] = replace(marked[i], cells=cells)
    return marked
