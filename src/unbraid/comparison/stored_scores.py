"""Reading of stored scores: run folders in, one tidy row per number out, and a reason for every missing result."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from unbraid.experiment.summary import SUMMARY, Summary, label, stored, summarise
from unbraid.runs.failure import failure
from unbraid.runs.results import read_result, results_of
from unbraid.runs.run_folder import finished, is_run, read_facts
from unbraid.system.each import Failure, attempt, each
from unbraid.system.files import check_plain, reading, write_text
from unbraid.system.sealing import PROVENANCE, REMEDY, Seals, check_sealed

COLUMNS = [
    "run", "name", "method", "l0_requested", "seed", "control", "eval", "version", "metric", "kind", "value", "better",
    "params", "d_sae", "architecture", "source", "base", "term", "strength", "geometry",
]  # fmt: skip
"""The columns of `collect`. name: method and requested sparsity; kind: measured, chance, ceiling or reference; params:
as text; source: the testbed (`StoredRun.source`); term and strength: of what was added to the base, empty for the base
itself."""
NUMBERS = ("value", "l0_requested", "strength")
"""The columns that are numbers with a fraction, NaN where there is none."""
LOG = "metrics.jsonl"
EVERY_EVAL = "all evals"
LOG_BYTES = 2**28
"""Largest log that is read, in bytes."""


@dataclass(frozen=True)
class StoredRun:
    """A finished run as read from its folder: everything that a report needs besides its scores."""

    folder: Path
    experiment: Mapping[str, Any]
    provenance: Mapping[str, Any]
    cfg: Mapping[str, Any]
    seals: Seals

    @property
    def run(self) -> str:
        """The name of the run folder."""
        return self.folder.name

    @cached_property
    def summary(self) -> Summary:
        """The summary that training stored; for folders without one, derived from their experiment."""
        if SUMMARY not in self.provenance:
            return summarise(self.experiment)
        found = stored(self.provenance[SUMMARY])
        if found.sees_truth is None:
            return replace(found, sees_truth=summarise(self.experiment).sees_truth)
        return found

    @property
    def name(self) -> str:
        """The method and the requested sparsity; runs of one name differ only in seed or width."""
        return label(self.summary.method, self.summary.l0)

    @property
    def seed(self) -> int:
        return int(self.experiment["seed"])

    @property
    def control(self) -> bool:
        return bool(self.experiment.get("control", False))

    @property
    def d_sae(self) -> int:
        return int(self.cfg.get("d_sae") or self.experiment["dictionary"]["d_sae"])

    @property
    def architecture(self) -> str:
        return str(self.cfg.get("architecture", "unknown"))

    @cached_property
    def source(self) -> str:
        """The testbed that the run belongs to: its source on one line, in which a seed that the experiment's own drew
        is the word `drawn`. So worlds that differ in nothing but what their experiments' seeds drew are one testbed."""
        node = self.experiment["source"]
        return describe({**node, "seed": "drawn"} if self.experiment.get("draws_source") is True else node)

    @property
    def method(self) -> str:
        return self.summary.method

    @property
    def requested_l0(self) -> float:
        """The requested L0; NaN when none was requested."""
        return math.nan if self.summary.l0 is None else self.summary.l0

    @property
    def target_l0(self) -> float:
        """The L0 that training should reach by controlling a weight; NaN without such control."""
        return float((self.experiment["objective"].get("target_l0") or {}).get("l0") or math.nan)

    @property
    def stored_l0(self) -> float:
        """The L0 that training measured at its end; NaN when it stored none."""
        return float(self.provenance.get("l0_reached") or math.nan)

    @property
    def imported(self) -> Mapping[str, Any]:
        """The origin of an imported SAE; empty for runs trained by Unbraid."""
        init = self.experiment["dictionary"].get("init") or {}
        return init if class_name(init) == "Imported" else {}

    def log(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, without a last line cut short by a crash; empty when the file is damaged."""
        return [] if isinstance(self._log, Failure) else self._log

    @property
    def log_fault(self) -> str:
        """The reason why metrics.jsonl cannot be read; empty when it can, or does not exist."""
        return self._log.reason if isinstance(self._log, Failure) else ""

    @cached_property
    def _log(self) -> list[dict[str, Any]] | Failure:
        return attempt(LOG, lambda: read_log(self.folder, self.seals))


def read_log(folder: Path, seals: Seals) -> list[dict[str, Any]]:
    """Read metrics.jsonl. Raises ValueError when it is not the file that training wrote."""
    path = folder / LOG
    if not path.exists() and LOG not in seals:
        return []
    check_plain(path, REMEDY, links=False, most=LOG_BYTES)
    check_sealed(folder, LOG, seals)
    rows = []
    with reading(path, REMEDY), path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                break
            if not isinstance(row, dict) or not all(isinstance(v, int | float) for v in row.values()):
                raise ValueError(f"{path} holds a line that is no object of numbers; {REMEDY}")
            rows.append(row)
    return rows


@dataclass(frozen=True)
class MissingResult:
    """A result without scores, or one that had to leave out runs it compares with, and the reason."""

    run: str
    eval: str
    kind: Literal["error", "not applicable", "damaged", "left out"]
    reason: str


@dataclass(frozen=True)
class Definition:
    """The definition of one metric of one version of an eval."""

    eval: str
    version: str
    metric: str
    text: str
    """Empty when the eval gave none."""
    better: str


@dataclass(frozen=True)
class StoredScores:
    """Everything read from run folders: the only input of comparisons and reports."""

    runs: tuple[StoredRun, ...]
    records: tuple[Mapping[str, Any], ...]
    """One row per stored number, by column."""
    missing_results: tuple[MissingResult, ...]
    skipped: tuple[tuple[str, str], ...]
    """Folders left out, with the reason: unfinished or damaged."""
    damaged: tuple[Failure, ...]
    """Folders that cannot be read."""
    definitions: tuple[Definition, ...]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """All stored numbers as a table with COLUMNS."""
        shown = [{**row, "params": params_text(row["params"])} for row in self.records]
        return pd.DataFrame(shown, columns=COLUMNS).astype(dict.fromkeys(NUMBERS, "float64"))

    def of(self, source: str) -> "StoredScores":
        """The part of one testbed, by `StoredRun.source`."""
        runs = tuple(run for run in self.runs if run.source == source)
        names = {run.run for run in runs}
        rows = tuple(row for row in self.records if row["source"] == source)
        seen = {(row["eval"], row["metric"]) for row in rows}
        definitions = tuple(d for d in self.definitions if (d.eval, d.metric) in seen)
        return StoredScores(
            runs,
            rows,
            tuple(h for h in self.missing_results if h.run in names),
            self.skipped,
            self.damaged,
            definitions,
        )


def collect(runs: Sequence[Path]) -> pd.DataFrame:
    """Return the stored scores of finished runs, one row per number; the order of `runs` does not matter."""
    return read_scores(runs).rows


def scores_json(rows: pd.DataFrame, path: Path) -> None:
    """Write `rows` to `path` as a JSON list, NaN as null."""
    data = [{column: plain_value(row[column]) for column in COLUMNS} for row in records(rows)]
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dicts of plain values."""
    return [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]


def plain_value(value: Any) -> Any:
    """Return a value as JSON holds it: no NumPy scalars, None for NaN and infinity."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_scores(folders: Sequence[Path]) -> StoredScores:
    """Read the scores of runs. Raises ValueError when no folder is given, one is not a run, or none can be read."""
    if not folders:
        raise ValueError("no run folder given; name some, such as runs/*")
    finished_ones, skipped = [], []
    for folder in sorted({Path(f).resolve() for f in folders}):
        if not is_run(folder):
            raise ValueError(f"{folder} is not a run folder (no experiment.json); name folders of runs, such as runs/*")
        if finished(folder):
            finished_ones.append(folder)
        else:
            why = attempt(folder.name, lambda folder=folder: failure(folder))
            skipped.append((folder.name, str(why) or "not finished (no provenance.json): train it to the end"))
    runs, damaged = each(finished_ones, read_run, lambda folder: folder.name)
    left = [*skipped, *((found.what, found.reason) for found in damaged)]
    if not runs:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left[:5])
        raise ValueError(f"none of the {len(left)} runs given is finished and whole: nothing to report ({reasons})")
    runs.sort(key=lambda run: (run.source, run.name, run.seed, run.run))
    rows, missing, definitions = read_results(runs)
    ordered = tuple(sorted(definitions, key=lambda d: (d.metric, d.eval, d.version)))
    return StoredScores(tuple(runs), tuple(rows), tuple(missing), tuple(left), tuple(damaged), ordered)


def read_run(folder: Path) -> StoredRun:
    """Read one run without its scores. Raises ValueError unless its files are intact, agree and are complete."""
    facts = read_facts(folder)
    path = folder / "experiment.json"
    missing = sorted({"name", "seed", "source", "objective", "dictionary", "training"} - set(facts.experiment))
    if missing:
        raise ValueError(f"{path} lacks {missing}; it was not written by a training run")
    if fault := fault_of(facts.experiment):
        raise ValueError(f"{path} {fault}; it was not written by a training run")
    run = StoredRun(folder, facts.experiment, facts.provenance, facts.cfg, facts.seals)
    # Read here, so that what cannot be read is this run's failure and not the report's.
    try:
        _ = (run.d_sae, run.architecture, run.summary)
    except ValueError as error:
        raise ValueError(f"{folder / PROVENANCE} holds {error}") from error
    return run


def fault_of(experiment: Mapping[str, Any]) -> str:
    """Describe what is wrong with the structure of an experiment, as far as a report reads it; empty if nothing is."""
    for key, kind_of, word in (("name", str, "text"), ("seed", int, "a whole number")):
        if not isinstance(experiment[key], kind_of):
            return f"has a {key} that is not {word}"
    objective, dictionary = experiment["objective"], experiment["dictionary"]
    if not all(isinstance(experiment[key], dict) for key in ("source", "objective", "dictionary", "training")):
        return "holds something else than an object where it describes what was trained"
    terms = [objective.get("reconstruction"), *(objective.get("penalties") or {}).values()]
    optional = [objective.get("target_l0"), dictionary.get("activation"), dictionary.get("init")]
    if not all(isinstance(node, dict) for node in [*terms, *(node for node in optional if node)]):
        return "holds something else than objects for its terms, its activation or its start"
    return "" if isinstance(dictionary.get("frozen") or [], list) else "has a list of frozen parameters that is none"


def read_results(runs: Iterable[StoredRun]) -> tuple[list[dict[str, Any]], list[MissingResult], set[Definition]]:
    """Read all results of these runs: rows, results without scores, and definitions."""
    rows: list[dict[str, Any]] = []
    missing: list[MissingResult] = []
    definitions: set[Definition] = set()
    for run in runs:
        paths = attempt("results", lambda run=run: results_of(run.folder))
        if isinstance(paths, Failure):
            missing.append(MissingResult(run.run, EVERY_EVAL, "damaged", paths.reason))
            continue
        for path in paths:
            result = attempt(path.stem, lambda run=run, path=path: result_of(run, path))
            if isinstance(result, Failure):
                missing.append(MissingResult(run.run, path.stem, "damaged", result.reason))
            elif "error" in result:
                missing.append(MissingResult(run.run, path.stem, "error", result["error"]))
            elif "not_applicable" in result:
                missing.append(MissingResult(run.run, path.stem, "not applicable", result["not_applicable"]))
            else:
                rows += result_rows(run, path.stem, result)
                definitions |= set(result_definitions(path.stem, result))
                missing += [
                    MissingResult(run.run, path.stem, "left out", f"{other}: {why}") for other, why in left_out(result)
                ]
        if run.log_fault:
            missing.append(MissingResult(run.run, LOG, "damaged", run.log_fault))
    return rows, missing, definitions


def left_out(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the runs that an eval could not compare with, and why."""
    found = result.get("left_out")
    return [(str(name), str(why)) for name, why in found.items()] if isinstance(found, dict) else []


def result_of(run: StoredRun, path: Path) -> dict[str, Any]:
    """Read a result. Raises ValueError when it was computed from other weights than the run's."""
    result, weights = read_result(path), run.seals.get("sae_weights.safetensors", {}).get("sha256")
    if weights is not None and result.get("weights") != weights:
        raise ValueError(f"{path} scored other weights than the folder holds now; score the run again")
    return result


def result_rows(run: StoredRun, name: str, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per score of a result."""
    about = {
        "run": run.run, "name": run.name, "method": run.method, "l0_requested": run.requested_l0, "seed": run.seed,
        "control": run.control, "eval": name, "version": result.get("version"), "d_sae": run.d_sae,
        "architecture": run.architecture, "source": run.source, "base": run.summary.base, "term": run.summary.term,
        "strength": run.summary.strength, "geometry": run.summary.geometry,
    }  # fmt: skip
    return [
        {
            **about,
            "metric": str(score["metric"]),
            "value": math.nan if score["value"] is None else float(score["value"]),
            "better": str(score.get("better", "neither")),
            "kind": str(score["kind"]),
            "params": dict(sorted((score.get("params") or {}).items())),
        }
        for score in result["scores"]
    ]


def params_text(params: Mapping[str, Any]) -> str:
    """Format params, as in "directions latents, n 4"."""
    return ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in params.items())


def result_definitions(name: str, result: Mapping[str, Any]) -> list[Definition]:
    """Return one definition per metric; an eval may define its metrics one by one or all in one text."""
    texts, whole = result.get("definitions") or {}, str(result.get("definition") or "")
    better = {str(score["metric"]): str(score.get("better", "neither")) for score in result["scores"]}
    version = str(result.get("version"))
    return [Definition(name, version, m, str(texts.get(m, whole)), direction) for m, direction in better.items()]


def describe(node: Any) -> str:
    """Format configuration on one line, as in World(d_in=64, factors=128). Equal text means equal configuration."""
    if isinstance(node, Mapping):
        fields = ", ".join(f"{key}={describe(value)}" for key, value in node.items() if key != "type")
        return f"{class_name(node)}({fields})" if "type" in node else "{" + fields + "}"
    if isinstance(node, list | tuple):
        return "[" + ", ".join(describe(value) for value in node) + "]"
    return f"{node:g}" if isinstance(node, float) else str(node)


def class_name(node: Mapping[str, Any]) -> str:
    """Return the class that a node of configuration names, without its module."""
    return str(node.get("type", "")).rpartition(":")[2] or "unknown"
