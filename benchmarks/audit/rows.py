"""The rows of the audit: every score of every dictionary, in one file that is written as they come.

    {"evals": {"recovery": 3, ...},  "testbeds": {"forest": {"scores": {"recovery.f1": "higher", ...},
     "rows": [["equal", "topk-l0_4", 0, 0, 1.0, [0.66, ...]], ...]}}}

A row is a case and its scores in the order of the testbed's names.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.audit.panel import Case
from unbraid.system.files import write_text

DIGITS = 5
"""Significant digits that are kept."""
PARTS = {
    "precision_by_level", "recall_by_level", "f1_by_level", "precision_by_frequency", "recall_by_frequency",
    "f1_by_frequency", "description_length", "interchange_cause_by_variable", "latents_per_factor_slope",
    "explained_variance", "novel", "restated",
}  # fmt: skip
"""Metrics left out: parts of another by level, band or distortion, those that only sets of runs have, and mirror
images (explained variance is 1 - FVU)."""
SAID_ELSEWHERE = ("matching", "by", "above")
"""Params with one value on a testbed."""
SWAPPED = {"directions": "latents", "n": 4.0, "error": "kept"}
"""Params of the scores of interchange that are audited: the headline's."""


@dataclass
class Rows:
    """The rows of one testbed."""

    better: dict[str, str] = field(default_factory=dict)
    """By score, the direction that is better."""
    scores: dict[Case, dict[str, float]] = field(default_factory=dict)


def audited(result: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """Return the scores of a result that are audited: by name the better direction and the value, NaN for none."""
    found = {}
    for row in result.get("scores", []):
        params = {key: value for key, value in row["params"].items() if key not in SAID_ELSEWHERE}
        swap = "directions" in params and params != SWAPPED
        if row["kind"] != "measured" or row["better"] == "neither" or row["metric"] in PARTS or swap:
            continue
        shown = "" if "directions" in params else " ".join(str(value) for value in params.values())
        value = math.nan if row["value"] is None else row["value"]
        found[f"{result['eval']}.{row['metric']}" + (f" {shown}" if shown else "")] = (row["better"], value)
    return found


def read(path: Path) -> dict[str, Rows]:
    """Read the rows of every testbed; none where there is no file."""
    data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"testbeds": {}}
    return {name: rows_from(node) for name, node in data["testbeds"].items()}


def check_versions(path: Path, versions: Mapping[str, int]) -> None:
    """Raise ValueError where a file has rows of other versions of the evals: one file states one version of each."""
    stored = json.loads(path.read_text(encoding="utf-8"))["evals"] if path.is_file() else versions
    if other := sorted(name for name in {*stored, *versions} if stored.get(name) != versions.get(name)):
        raise ValueError(f"{path} has rows of other versions of {', '.join(other)}: name another --out, or remove it")


def rows_from(node: Mapping[str, Any]) -> Rows:
    """Return the rows that JSON holds."""
    names = list(node["scores"])
    scores = {
        Case(*case): {n: math.nan if v is None else v for n, v in zip(names, values, strict=True)}
        for *case, values in node["rows"]
    }
    return Rows(dict(node["scores"]), scores)


def write(path: Path, versions: Mapping[str, int], testbeds: Mapping[str, Rows]) -> None:
    """Write the rows of every testbed, a line a row."""
    parts = []
    for name, rows in testbeds.items():
        names = sorted(rows.better)
        lines = [json.dumps([*case, [rounded(own.get(n)) for n in names]]) for case, own in sorted(rows.scores.items())]
        better = json.dumps({n: rows.better[n] for n in names})
        parts.append(f'"{name}": {{"scores": {better},\n"rows": [\n' + ",\n".join(lines) + "\n]}")
    evals = json.dumps(dict(sorted(versions.items())))
    write_text(path, f'{{"evals": {evals},\n"testbeds": {{\n' + ",\n".join(parts) + "\n}}\n")


def rounded(value: float | None) -> float | None:
    """Return a value with the digits that are kept; None for none."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")


def add(rows: Rows, case: Case, results: Sequence[Mapping[str, Any]]) -> None:
    """Add the row of a case from the results of its evals."""
    found = {name: one for result in results for name, one in audited(result).items()}
    rows.better |= {name: better for name, (better, _) in found.items()}
    rows.scores[case] = {name: value for name, (_, value) in found.items()}
