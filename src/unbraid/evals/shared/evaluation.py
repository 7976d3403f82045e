"""The contract of evals, and the harness that runs them: it loops, skips, times and stores.

An eval is a module `evals/<name>.py` with a function `<name>(run) -> list[Score]`, a `VERSION` to raise whenever its
numbers change, and a `DEFINITIONS` text per metric, which the report prints. An eval that compares a run with others
also has a function `peers(run) -> list[Run]`: it is called as `<name>(run, peers)` with those that can be read, and its
results are computed anew when the peers change. An eval that needs more of a source than a few held-out rows has a
function `lacks(source) -> str`: the reason why runs on that source cannot be scored, known before any is trained. One
that stores more than numbers has a function `files(run) -> Mapping[str, bytes]`, called after the scores; and one that
is run only when it is named sets `BY_DEFAULT = False`.

Each run and eval fails alone, whatever it raises: the failure is stored with its reason, and the others continue.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from unbraid.runs.in_memory import InMemory, NoRunFolder
from unbraid.runs.results import FILES, ScoreKind, check_files, read_result, result_path, write_result
from unbraid.runs.run import Run
from unbraid.runs.siblings import left_out, read_once, readable
from unbraid.sources.base import NoHeldOut, Source, few_rows
from unbraid.sources.truth import NoTruth
from unbraid.system.each import Failure, attempt, failure_of
from unbraid.system.sharing import sharing


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number that an eval gives a run; NaN stays NaN."""

    metric: str
    """Name of the metric: fvu, l0, mcc, …"""
    value: float
    better: Literal["higher", "lower", "neither"]
    params: Mapping[str, float | str] = field(default_factory=dict)
    """Parameters that distinguish several scores of one metric: {"k": 5}, {"split": "eval"}."""
    kind: ScoreKind = "measured"
    """measured: of the run. chance, ceiling: the metric's value without training, and at best. reference: of directions
    other than the run's, to compare with."""


class NotApplicable(ValueError):
    """The eval does not apply to this run (for instance: the source has no ground truth).

    Reported as 'not applicable', not as an error.
    """


@dataclass(frozen=True)
class Eval:
    """An eval: its function, version and definitions."""

    name: str
    version: int
    definitions: Mapping[str, str]
    """One sentence per metric."""
    score: Callable[..., list[Score]]
    """Called with the run, and if `peers` is set, with those peers that can be read."""
    peers: Callable[[Run], list[Run]] | None = None
    """The other runs that the scores depend on."""
    lacks: Callable[[Source], str] = few_rows
    """The reason why a source cannot be scored by this eval, with the remedy; empty when it can."""
    files: Callable[[Run], Mapping[str, bytes]] | None = None
    """What is stored besides the scores, by the part of the file's name that follows the eval's."""
    by_default: bool = True
    """Whether a run is scored by it when no eval is named."""


ResultCallback = Callable[[Run, Eval, str], None]
"""Called with each run, each eval, and its status: kept, how long it took, or why it failed."""


def evaluate(
    runs: Sequence[Run],
    evals: Sequence[Eval],
    *,
    force: bool = False,
    on_result: ResultCallback | None = None,
    notice: Callable[[str], None] | None = None,
) -> int:
    """Score every run by every eval into `<run>/results/<eval>.json`; return how many evals failed.

    A result of the same version is kept unless `force`. A failure is stored with its message, and the others continue.
    Runs of one source are scored together, as they share much of the work.
    `on_result` is called with the status of each; `notice` with a message for each unreadable run that was left out.
    """
    failures, noticed = 0, set[str]()
    with read_once(), sharing():
        for run in by_source(runs):
            for item in evals:
                found = attempt(run.path.name, lambda run=run, item=item: update_result(run, item, force))
                # A Failure here means that not even the result could be written.
                status, failed = (found.typed, True) if isinstance(found, Failure) else found
                failures += failed
                if on_result is not None:
                    on_result(run, item, status)
            for name, reason in unreadable_siblings(run, evals).items() if notice is not None else ():
                if notice is not None and name not in noticed:
                    noticed.add(name)
                    notice(f"left out of comparisons between runs: {name}: {reason}")
    return failures


def by_source(runs: Sequence[Run]) -> list[Run]:
    """Return runs of one source one after another, so that what they share need not be kept for long."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        source = attempt(run.path.name, lambda run=run: run.source)
        groups.setdefault(run if isinstance(source, Failure) else source, []).append(run)
    return [run for group in groups.values() for run in group]


def update_result(run: Run, item: Eval, force: bool) -> tuple[str, bool]:
    """Keep the stored result or compute it anew; return its status, and True if it failed."""
    why = "" if force else attempt(run.path.name, lambda: stale(run, item))
    if isinstance(why, Failure):
        why = f"made again: {why.reason}"
    elif not why and not force:
        return "kept", False
    result, files = with_files(run, item, score(run, item))
    write_result(run.path, item.name, result, files)
    status = result.get("error") or result.get("not_applicable") or f"{result['seconds']:.1f} s"
    return (f"{status} ({why})" if why.startswith("made again") else status), "error" in result


def stale(run: Run, item: Eval) -> str:
    """The reason why a stored result is out of date; empty if it is not. Raises ValueError when it is damaged."""
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
        return "the runs it compares with have changed"
    waiting = [peer for peer in peers if peer.path.name in result.get("left_out", {})]
    if readable(waiting)[0]:
        return "runs it left out can be read"
    return missing_files(run, item, result)


def missing_files(run: Run, item: Eval, result: Mapping[str, Any]) -> str:
    """The reason why what was stored besides the scores is not whole; empty when it is, or there is none."""
    if item.files is None or "scores" not in result:
        return ""
    if FILES not in result:
        return "it has no files yet"
    check_files(run.path, result)
    return ""


def peers_of(run: Run, item: Eval) -> list[Run]:
    """The other runs that an eval of this run depends on."""
    return [] if item.peers is None or isinstance(run, InMemory) else item.peers(run)


def unreadable_siblings(run: Run, evals: Sequence[Eval]) -> dict[str, str]:
    """The sibling runs that cannot be read, with the reason, if any of the evals compares runs."""
    found = attempt(run.path.name, lambda: left_out(run)) if any(item.peers for item in evals) else {}
    return {} if isinstance(found, Failure) else found


def score(run: Run, item: Eval) -> dict[str, Any]:
    """Compute one result as JSON: the scores, or the reason why there are none."""
    head: dict[str, Any] = {"eval": item.name, "version": item.version, "definitions": dict(item.definitions)}
    started = time.monotonic()
    try:
        if run.facts.weights:
            head["weights"] = run.facts.weights
        if item.peers is None:
            scores = item.score(run)
        else:
            peers = peers_of(run, item)
            usable, unread = readable(peers)
            head |= {"peers": [peer.path.name for peer in peers]} if peers else {}
            head |= {"left_out": dict(unread)} if unread else {}
            scores = item.score(run, usable)
        rows = rows_of(scores)
    except (NotApplicable, NoRunFolder, NoTruth, NoHeldOut) as reason:
        return {**head, "not_applicable": str(reason)}
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of libraries written in Rust are no Exception
        failure = failure_of(run.path.name, error)
        return {**head, "error": failure.typed, "traceback": list(failure.trace)}
    return {**head, "seconds": round(time.monotonic() - started, 3), "scores": rows}


def with_files(run: Run, item: Eval, result: dict[str, Any]) -> tuple[dict[str, Any], Mapping[str, bytes]]:
    """Return a result and the files that belong to it; a failure in place of both when they cannot be made."""
    make = item.files
    if make is None or "scores" not in result:
        return result, {}
    made = attempt(run.path.name, lambda: make(run))
    if not isinstance(made, Failure):
        return result, made
    head = {key: value for key, value in result.items() if key not in ("scores", "seconds")}
    return {**head, "error": made.typed, "traceback": list(made.trace)}, {}


def rows_of(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Convert scores to the rows of a result."""
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
