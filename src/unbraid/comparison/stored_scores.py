"""Run folders in, tidy rows out: one row per stored number, and a stated reason for every number that is not there."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    "params", "d_sae", "architecture", "source",
]  # fmt: skip
"""name: the method and the sparsity asked for; kind: measured, chance, ceiling or reference; params: as text."""
LOG = "metrics.jsonl"
EVERY_EVAL = "all evals"
LOG_BYTES = 2**28
"""Largest log that is read."""


@dataclass(frozen=True)
class StoredRun:
    """What the report needs of a finished run besides its scores."""

    folder: Path
    experiment: Mapping[str, Any]
    provenance: Mapping[str, Any]
    cfg: Mapping[str, Any]
    seals: Seals

    @property
    def run(self) -> str:
        return self.folder.name

    @cached_property
    def summary(self) -> Summary:
        """What training stored of it; of folders written before training stored it, worked out from their
        experiment."""
        if SUMMARY in self.provenance:
            return stored(self.provenance[SUMMARY])
        return summarise(self.experiment)

    @property
    def name(self) -> str:
        """The method and the sparsity asked for: its runs differ in seed alone, or in width."""
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
        return describe(self.experiment["source"])

    @property
    def method(self) -> str:
        return self.summary.method

    @property
    def requested_l0(self) -> float:
        """The L0 asked for; NaN when none was."""
        return math.nan if self.summary.l0 is None else self.summary.l0

    @property
    def target_l0(self) -> float:
        """The L0 that training was to reach by moving a weight; NaN when it was not."""
        return float((self.experiment["objective"].get("target_l0") or {}).get("l0") or math.nan)

    @property
    def stored_l0(self) -> float:
        """The L0 that training measured at its end; NaN where it stored none."""
        return float(self.provenance.get("l0_reached") or math.nan)

    @property
    def imported(self) -> Mapping[str, Any]:
        """Where an SAE that others trained came from; empty for our own."""
        init = self.experiment["dictionary"].get("init") or {}
        return init if class_name(init) == "Imported" else {}

    def log(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl; a last line cut short by a crash is left out. Empty where it is damaged."""
        return [] if isinstance(self._log, Failure) else self._log

    @property
    def log_fault(self) -> str:
        """Why metrics.jsonl cannot be read; empty when it can, or there is none."""
        return self._log.reason if isinstance(self._log, Failure) else ""

    @cached_property
    def _log(self) -> list[dict[str, Any]] | Failure:
        return attempt(LOG, lambda: read_log(self.folder, self.seals))


def read_log(folder: Path, seals: Seals) -> list[dict[str, Any]]:
    """Raises ValueError for another file than training wrote."""
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
class Hole:
    """A result that holds no scores, or not of all runs it could compare, and why."""

    run: str
    eval: str
    kind: Literal["error", "not applicable", "damaged", "left out"]
    reason: str


@dataclass(frozen=True)
class Definition:
    eval: str
    version: str
    metric: str
    text: str
    """Empty when the eval gave none."""
    better: str


@dataclass(frozen=True)
class Study:
    """Everything read: the only input of the rest of the report."""

    runs: tuple[StoredRun, ...]
    records: tuple[Mapping[str, Any], ...]
    """A row a stored number, by column."""
    holes: tuple[Hole, ...]
    skipped: tuple[tuple[str, str], ...]
    """Folders left out, with the reason: unfinished, or among the damaged."""
    damaged: tuple[Failure, ...]
    """Those that cannot be read."""
    definitions: tuple[Definition, ...]

    @cached_property
    def rows(self) -> pd.DataFrame:
        told = [{**row, "params": params_text(row["params"])} for row in self.records]
        return pd.DataFrame(told, columns=COLUMNS).astype({"value": "float64", "l0_requested": "float64"})

    def of(self, source: str) -> "Study":
        """The part that concerns one source."""
        runs = tuple(run for run in self.runs if run.source == source)
        names = {run.run for run in runs}
        rows = tuple(row for row in self.records if row["source"] == source)
        seen = {(row["eval"], row["metric"]) for row in rows}
        definitions = tuple(d for d in self.definitions if (d.eval, d.metric) in seen)
        return Study(
            runs, rows, tuple(h for h in self.holes if h.run in names), self.skipped, self.damaged, definitions
        )


def collect(runs: Sequence[Path]) -> pd.DataFrame:
    """Stored scores of finished runs, one row a number, in an order that does not depend on the order of `runs`."""
    return read_study(runs).rows


def scores_json(rows: pd.DataFrame, path: Path) -> None:
    """Write `rows` as a JSON list, NaN as null."""
    data = [{column: plain_value(row[column]) for column in COLUMNS} for row in records(rows)]
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    columns = [rows[column].tolist() for column in rows.columns]
    return [dict(zip(rows.columns, values, strict=True)) for values in zip(*columns, strict=True)]


def plain_value(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_study(folders: Sequence[Path]) -> Study:
    """What can be read of these runs. Raises ValueError when no folder is given, one is not a run, or none can be
    read."""
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
    rows, holes, definitions = read_results(runs)
    ordered = tuple(sorted(definitions, key=lambda d: (d.metric, d.eval, d.version)))
    return Study(tuple(runs), tuple(rows), tuple(holes), tuple(left), tuple(damaged), ordered)


def read_run(folder: Path) -> StoredRun:
    """Raises ValueError unless its files are whole, and agree, and hold what a report reads."""
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
    """What is wrong with the shape of an experiment, as far as a report reads it; empty when nothing is."""
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


def read_results(runs: Iterable[StoredRun]) -> tuple[list[dict[str, Any]], list[Hole], set[Definition]]:
    rows: list[dict[str, Any]] = []
    holes: list[Hole] = []
    definitions: set[Definition] = set()
    for run in runs:
        paths = attempt("results", lambda run=run: results_of(run.folder))
        if isinstance(paths, Failure):
            holes.append(Hole(run.run, EVERY_EVAL, "damaged", paths.reason))
            continue
        for path in paths:
            result = attempt(path.stem, lambda run=run, path=path: result_of(run, path))
            if isinstance(result, Failure):
                holes.append(Hole(run.run, path.stem, "damaged", result.reason))
            elif "error" in result:
                holes.append(Hole(run.run, path.stem, "error", result["error"]))
            elif "not_applicable" in result:
                holes.append(Hole(run.run, path.stem, "not applicable", result["not_applicable"]))
            else:
                rows += result_rows(run, path.stem, result)
                definitions |= set(result_definitions(path.stem, result))
                holes += [Hole(run.run, path.stem, "left out", f"{other}: {why}") for other, why in left_out(result)]
        if run.log_fault:
            holes.append(Hole(run.run, LOG, "damaged", run.log_fault))
    return rows, holes, definitions


def left_out(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Runs that could not be compared with, and why."""
    found = result.get("left_out")
    return [(str(name), str(why)) for name, why in found.items()] if isinstance(found, dict) else []


def result_of(run: StoredRun, path: Path) -> dict[str, Any]:
    """A result, of the weights that the run holds."""
    result, weights = read_result(path), run.seals.get("sae_weights.safetensors", {}).get("sha256")
    if weights is not None and result.get("weights") != weights:
        raise ValueError(f"{path} scored other weights than the folder holds now; score the run again")
    return result


def result_rows(run: StoredRun, name: str, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    about = {
        "run": run.run, "name": run.name, "method": run.method, "l0_requested": run.requested_l0, "seed": run.seed,
        "control": run.control, "eval": name, "version": result.get("version"), "d_sae": run.d_sae,
        "architecture": run.architecture, "source": run.source,
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
    """directions latents, n 4"""
    return ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in params.items())


def result_definitions(name: str, result: Mapping[str, Any]) -> list[Definition]:
    """One per metric; an eval may define its metrics one by one or all in one text."""
    texts, whole = result.get("definitions") or {}, str(result.get("definition") or "")
    better = {str(score["metric"]): str(score.get("better", "neither")) for score in result["scores"]}
    version = str(result.get("version"))
    return [Definition(name, version, m, str(texts.get(m, whole)), direction) for m, direction in better.items()]


def describe(node: Any) -> str:
    """Configuration on one line: World(d_in=64, factors=128). Equal text means equal configuration."""
    if isinstance(node, Mapping):
        fields = ", ".join(f"{key}={describe(value)}" for key, value in node.items() if key != "type")
        return f"{class_name(node)}({fields})" if "type" in node else "{" + fields + "}"
    if isinstance(node, list | tuple):
        return "[" + ", ".join(describe(value) for value in node) + "]"
    return f"{node:g}" if isinstance(node, float) else str(node)


def class_name(node: Mapping[str, Any]) -> str:
    return str(node.get("type", "")).rpartition(":")[2] or "unknown"
