"""Scores and how they are made: an eval is a function from a run to scores; the harness loops, skips, times and writes.

An eval is a module `evals/<name>.py` with a function `<name>(run) -> list[Score]`, a `VERSION` to raise whenever its
numbers change, and a `DEFINITIONS` text per metric, which the report prints. One that compares a run with others has
a function `peers(run) -> list[Run]` too: it is called as `<name>(run, peers)` with those that can be read, and its
results are made again when the peers change. One that needs more of a source than a few held-out rows has a function
`lacks(source) -> str`: why no run of it could be scored, known before any is trained.

Each run and eval fails by itself, whatever it raises: the failure is stored and named, and the others go on.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from unbraid.runs.results import ScoreKind, read_result, result_path, write_result
from unbraid.runs.run import Run
from unbraid.runs.siblings import left_out, read_once, readable
from unbraid.sources.base import NoHeldOut, Source, few_rows
from unbraid.sources.truth import NoTruth
from unbraid.system.each import Failure, attempt, failure_of


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number. NaN stays NaN."""

    metric: str
    """fvu, l0, mcc, …"""
    value: float
    better: Literal["higher", "lower", "neither"]
    params: Mapping[str, float | str] = field(default_factory=dict)
    """What tells rows of one metric apart: {"k": 5}, {"split": "eval"}."""
    kind: ScoreKind = "measured"
    """measured: of the run. chance, ceiling: what the same metric gives without training, and at best. reference: of
    other directions than the run's, to compare with."""


class NotApplicable(ValueError):
    """This eval says nothing about this run, for the stated reason: a hole with a reason, not a failure."""


@dataclass(frozen=True)
class Eval:
    name: str
    version: int
    definitions: Mapping[str, str]
    """One sentence per metric."""
    score: Callable[..., list[Score]]
    """Called with the run, and where there are `peers`, with those that can be read."""
    peers: Callable[[Run], list[Run]] | None = None
    """Other runs the scores depend on."""
    lacks: Callable[[Source], str] = few_rows
    """What a source it applies to lacks to be scored on, with the remedy; empty when it lacks nothing."""


Watch = Callable[[Run, Eval, str], None]


def evaluate(
    runs: Sequence[Run],
    evals: Sequence[Eval],
    *,
    force: bool = False,
    watch: Watch | None = None,
    notice: Callable[[str], None] | None = None,
) -> int:
    """Score every run by every eval into `<run>/results/<eval>.json`; the number of evals that failed.

    A result of the same version is kept unless `force`. A failure is written with its message and the others go on.
    `watch` is told how each went, `notice` of runs beside that were left out, once each.
    """
    failures, told = 0, set[str]()
    with read_once():
        for run in runs:
            for item in evals:
                found = attempt(run.path.name, lambda run=run, item=item: settle(run, item, force))
                # Not even its result could be written: there is nowhere but here to say so.
                status, failed = (found.typed, True) if isinstance(found, Failure) else found
                failures += failed
                if watch is not None:
                    watch(run, item, status)
            for name, reason in beside_unread(run, evals).items() if notice is not None else ():
                if notice is not None and name not in told:
                    told.add(name)
                    notice(f"left out of what is compared with runs beside: {name}: {reason}")
    return failures


def settle(run: Run, item: Eval, force: bool) -> tuple[str, bool]:
    """Keep the result there is or make it: how that went, and whether it failed."""
    why = "" if force else attempt(run.path.name, lambda: stale(run, item))
    if isinstance(why, Failure):
        why = f"made again: {why.reason}"
    elif not why and not force:
        return "kept", False
    result = score(run, item)
    write_result(run.path, item.name, result)
    status = result.get("error") or result.get("not_applicable") or f"{result['seconds']:.1f} s"
    return (f"{status} ({why})" if why.startswith("made again") else status), "error" in result


def stale(run: Run, item: Eval) -> str:
    """Why the stored result does not do; empty when it does. Raises ValueError when it is damaged."""
    path = result_path(run.path, item.name)
    if not path.exists():
        return "there is none"
    result = read_result(path)
    if "error" in result or result.get("version") != item.version:
        return "it failed, or is of another version"
    if result.get("weights", "") != run.facts.weights:
        return "made again: it scored other weights than the folder holds"
    peers = peers_of(run, item)
    if result.get("peers", []) != [peer.path.name for peer in peers]:
        return "the runs it compares with are others"
    waiting = [peer for peer in peers if peer.path.name in result.get("left_out", {})]
    return "runs it left out can be read" if readable(waiting)[0] else ""


def peers_of(run: Run, item: Eval) -> list[Run]:
    return [] if item.peers is None else item.peers(run)


def beside_unread(run: Run, evals: Sequence[Eval]) -> dict[str, str]:
    """The runs beside that cannot be read, where any of the evals compares runs."""
    found = attempt(run.path.name, lambda: left_out(run)) if any(item.peers for item in evals) else {}
    return {} if isinstance(found, Failure) else found


def score(run: Run, item: Eval) -> dict[str, Any]:
    """The JSON of one result: scores, or why there are none."""
    head: dict[str, Any] = {"eval": item.name, "version": item.version, "definitions": dict(item.definitions)}
    started = time.monotonic()
    try:
        if run.facts.weights:
            head["weights"] = run.facts.weights
        if item.peers is None:
            scores = item.score(run)
        else:
            peers = item.peers(run)
            usable, unread = readable(peers)
            head |= {"peers": [peer.path.name for peer in peers]} if peers else {}
            head |= {"left_out": dict(unread)} if unread else {}
            scores = item.score(run, usable)
        rows = rows_of(scores)
    except (NotApplicable, NoTruth, NoHeldOut) as reason:
        return {**head, "not_applicable": str(reason)}
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of libraries written in Rust are no Exception
        failure = failure_of(run.path.name, error)
        return {**head, "error": failure.typed, "traceback": list(failure.trace)}
    return {**head, "seconds": round(time.monotonic() - started, 3), "scores": rows}


def rows_of(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Scores as a result holds them."""
    return [
        {
            "metric": s.metric,
            "value": s.value if math.isfinite(s.value) else None,
            "better": s.better,
            "params": dict(s.params),
            "kind": s.kind,
        }
        for s in scores
    ]
