"""Scores and how they are made: an eval is a function from a run to scores; the harness loops, skips, times and writes.

An eval is a module `evals/<name>.py` with a function `<name>(run) -> list[Score]`, a `VERSION` to raise whenever its
numbers change, and a `DEFINITIONS` text per metric, which the report prints. One that compares a run with others has
a function `peers(run) -> list[Run]` too: its results are made again when the peers change. One that needs more of a
source than a few held-out rows has a function `lacks(source) -> str`: why no run of it could be scored, known before
any is trained.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unbraid.files import read_json, write_json
from unbraid.run import Run
from unbraid.source import NoHeldOut, Source, few_rows
from unbraid.truth import NoTruth


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number. NaN stays NaN."""

    metric: str
    """fvu, l0, mcc, …"""
    value: float
    better: Literal["higher", "lower", "neither"]
    params: Mapping[str, float | str] = field(default_factory=dict)
    """What tells rows of one metric apart: {"k": 5}, {"split": "eval"}."""


class NotApplicable(ValueError):
    """This eval says nothing about this run, for the stated reason: a hole with a reason, not a failure."""


@dataclass(frozen=True)
class Eval:
    name: str
    version: int
    definitions: Mapping[str, str]
    """One sentence per metric."""
    score: Callable[[Run], list[Score]]
    peers: Callable[[Run], list[Run]] = lambda run: []
    """Other runs the scores depend on."""
    lacks: Callable[[Source], str] = few_rows
    """What a source it applies to lacks to be scored on, with the remedy; empty when it lacks nothing."""


def evaluate(
    runs: Sequence[Run],
    evals: Sequence[Eval],
    *,
    force: bool = False,
    watch: Callable[[Run, Eval, str], None] | None = None,
) -> int:
    """Score every run by every eval into `<run>/results/<eval>.json`; the number of evals that failed.

    A result of the same version is kept unless `force`. A failure is written with its message and the others go on.
    """
    failures = 0
    for run in runs:
        for item in evals:
            path = run.path / "results" / f"{item.name}.json"
            if not force and up_to_date(path, run, item):
                status = "kept"
            else:
                result = score(run, item)
                failures += "error" in result
                write_json(path, result)
                status = result.get("error") or result.get("not_applicable") or f"{result['seconds']:.1f} s"
            if watch is not None:
                watch(run, item, status)
    return failures


def up_to_date(path: Path, run: Run, item: Eval) -> bool:
    if not path.is_file():
        return False
    result = read_json(path)
    same = result.get("version") == item.version and result.get("peers", []) == peer_names(run, item)
    return same and "error" not in result


def peer_names(run: Run, item: Eval) -> list[str]:
    return [peer.path.name for peer in item.peers(run)]


def score(run: Run, item: Eval) -> dict[str, Any]:
    """The JSON of one result: scores, or why there are none."""
    head: dict[str, Any] = {"eval": item.name, "version": item.version, "definitions": dict(item.definitions)}
    if names := peer_names(run, item):
        head["peers"] = names
    started = time.monotonic()
    try:
        scores = item.score(run)
    except (NotApplicable, NoTruth, NoHeldOut) as reason:
        return {**head, "not_applicable": str(reason)}
    except (ValueError, RuntimeError, OSError) as error:
        return {**head, "error": f"{type(error).__name__}: {error}"}
    return {**head, "seconds": round(time.monotonic() - started, 3), "scores": rows_of(scores)}


def rows_of(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Scores as a result holds them."""
    return [
        {
            "metric": s.metric,
            "value": s.value if math.isfinite(s.value) else None,
            "better": s.better,
            "params": dict(s.params),
        }
        for s in scores
    ]
