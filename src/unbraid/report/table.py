"""The table: one row per method and sparsity setting, a column per headline metric, mean and half-width over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unbraid.comparison.compare import Method, Quantity, Scores
from unbraid.comparison.curves import clusters
from unbraid.comparison.intervals import t_interval
from unbraid.comparison.stored_scores import Hole, StoredRun
from unbraid.comparison.wording import listed, mean_half, plural

Reasons = dict[tuple[str, str], str]
"""Why a run has no scores of an eval, by run and eval."""


@dataclass(frozen=True)
class Cell:
    text: str
    sort: float
    """NaN sorts last."""
    note: str = ""
    """What is missing, and why."""
    short: str = ""
    """The same in a few words."""
    best: bool = False


@dataclass(frozen=True)
class Row:
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
    """Whether all its runs missed the L0 asked for: it is never the best."""


def table(scores: Scores, columns: Sequence[Quantity], holes: Sequence[Hole]) -> tuple[list[Row], list[Row]]:
    """Rows of methods, by L0, and of controls."""
    reasons = {(hole.run, hole.eval): f"{hole.kind}: {hole.reason}" for hole in holes}
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
    l0 = cell(scores, runs, scores.l0, reasons) if scores.l0 is not None else Cell("not scored", math.nan)
    if lost := [run.seed for run in runs if run in scores.missed]:
        asked = f"{runs[0].target_l0:g}"
        note = f"seeds {listed([str(s) for s in lost])} missed the L0 of {asked}: compared with nothing"
        l0 = replace(l0, note="; ".join(filter(None, (l0.note, note))), short=f"missed: {asked} asked for")
    cells = [cell(scores, runs, column, reasons) for column in columns]
    seeds = len({run.seed for run in runs})
    missed = len(lost) == len(runs)
    return Row(method.name, method.role, method.d_sae, runs[0].requested_l0, l0, seeds, cells, -1, missed)


def cell(scores: Scores, runs: Sequence[StoredRun], column: Quantity, reasons: Reasons) -> Cell:
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
    """NaN, error, damaged, n/a or not scored: never a blank."""
    kinds = (": NaN", "NaN"), (": error", "error"), (": damaged", "damaged"), (": not applicable", "n/a")
    return next((shown for mark, shown in kinds if any(mark in reason for reason in missing)), "not scored")


def nearest_group(l0: float, centres: Sequence[float]) -> int:
    if not math.isfinite(l0) or l0 <= 0 or not centres:
        return -1
    return min(range(len(centres)), key=lambda i: abs(math.log(l0 / centres[i])))


def mark_best(rows: list[Row], columns: Sequence[Quantity]) -> list[Row]:
    """The best mean of each column among rows of comparable L0, where there are several to choose from."""
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


def requested_text(row: Row) -> str:
    return f"{row.requested:g}" if math.isfinite(row.requested) else "—"
