"""Rows of earlier studies as rows of the audit: what they allow of the first two lenses, and both ends of the third.

SAEBench's scores stand in docs/results/comparison.json, with eleven terms, standard SAEs and controls on the embedded
model; docs/results/objectives.json has every term on the forest and its twin.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.audit.panel import Case
from benchmarks.audit.rows import Rows
from unbraid.comparison.committed import CEILINGS, LOWER, NEITHER, PARAMS, SCORES, UNTRAINED, Row

ROOT = Path(__file__).parents[2] / "docs" / "results"
SAEBENCH = ("ce_loss_score", "probe_k1", "probe_k5", "tpp", "scr")
"""SAEBench's scores that have a better direction, by their names in the rows."""


@dataclass(frozen=True)
class Earlier:
    """Rows of one study at one sparsity and width."""

    title: str
    file: str
    where: Mapping[str, Any]
    truths: tuple[str, ...]
    """What is known to be true there, by its name in the rows."""


ON_LANGUAGE = tuple(
    Earlier(f"L0 {l0}", "comparison.json", {"asked": float(l0)}, ("f1", "interchange")) for l0 in (4, 8, 16)
)
ON_WORLDS = tuple(
    Earlier(world, "objectives.json", {"world": world, "d_sae": 384, "asked": 4.0}, ("f1", "mcc", "isolation"))
    for world in ("forest", "twin")
)


def committed(study: Earlier, scores: Sequence[str] = ()) -> Rows:
    """Return the rows of a study. scores: of which, the truths besides; none: all that rows have but SAEBench's."""
    rows = json.loads((ROOT / study.file).read_text(encoding="utf-8"))
    own = [row for row in rows if all(row[key] == value for key, value in study.where.items())]
    known = {key for row in own for key in row if key != PARAMS}
    wanted = scores or [name for name in SCORES if name in known and name not in (*SAEBENCH, *NEITHER)]
    better = {name: "lower" if name in LOWER else "higher" for name in dict.fromkeys([*wanted, *study.truths])}
    found = Rows(better)
    for row in own:
        if (case := case_of(row)) is not None:
            found.scores[case] = {name: number(row.get(name)) for name in better}
    return found


def number(value: float | None) -> float:
    return math.nan if value is None else value


def case_of(row: Row) -> Case | None:
    """Return the case that a row is of: what was trained, and the untrained; None for other controls."""
    method = row["method"]
    if method in CEILINGS or (method in UNTRAINED and method != "untrained"):
        return None
    return Case("control" if method == "untrained" else "equal", f"{method}-l0_{row['asked']:g}", 0, row["seed"])
