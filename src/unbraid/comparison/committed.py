"""Committed rows: scores of finished runs, a row a run, from which the same verdicts and report come as from the runs.

The rows of docs/results are written by `python -m benchmarks.judge collect`. A row has the testbed's name (world), the
method, the requested L0, width and seed, and scores by short name, of five digits; what runs of factorial studies say
of their design is a row's summary. Rows of before say none: what is compared is then taken to be BatchTopK with a term,
unless another base is named.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Scores, arrange
from unbraid.comparison.stored_scores import StoredRun, StoredScores, params_text
from unbraid.comparison.wording import listed
from unbraid.dictionary.initialisation import Claim
from unbraid.system.files import read_json

SCORES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "fvu": ("fidelity", "fvu", {}),
    "l0": ("fidelity", "l0", {}),
    "alive": ("fidelity", "alive", {}),
    "l2_ratio": ("fidelity", "l2_ratio", {}),
    "cosine": ("fidelity", "max_decoder_cosine", {}),
    "mcc": ("recovery", "mcc", {}),
    "f1": ("recovery", "f1", {}),
    "labelled_l0": ("recovery", "labelled_l0", {}),
    "labelled_fvu": ("recovery", "labelled_fvu", {}),
    "f1_latents": ("recovery", "f1_latents", {}),
    "absorption": ("absorption", "absorption_full", {}),
    "recall_child": ("absorption", "parent_recall_given_child", {}),
    "recall_rarest": ("recovery", "recall_by_frequency", {}),
    "recall_alone": ("absorption", "parent_recall_alone", {}),
    "latents_per_factor": ("splitting", "latents_per_factor", {}),
    "represented": ("splitting", "represented", {}),
    "infom": ("disentanglement", "infom", {}),
    "mig": ("disentanglement", "mig", {}),
    "isolation": ("controllability", "isolation", {}),
    "modularity": ("controllability", "modularity", {}),
    "overlap": ("controllability", "overlap", {}),
    "interaction": ("controllability", "interaction", {}),
    "effect": ("controllability", "effect", {}),
    "hit": ("controllability", "hit", {}),
    "atom_overlap": ("controllability", "atom_overlap", {}),
    "additive_r2": ("controllability", "additive_r2", {}),
    "context_ceiling": ("controllability", "context_ceiling", {}),
    "pw_mcc": ("agreement", "pw_mcc", {}),
    "products": ("memorisation", "product_latents", {}),
    "product_share": ("memorisation", "product_share", {}),
    "interchange": ("interchange", "interchange", {"directions": "latents", "error": "kept", "n": 4}),
    "loss_recovered": ("fidelity", "loss_recovered", {"against": "mean"}),
    "bits": ("description_length", "bits_per_token", {}),
    "ce_loss_score": ("saebench_core", "ce_loss_score", {}),
    "kl_div_score": ("saebench_core", "kl_div_score", {}),
    "ev_reported": ("saebench_core", "explained_variance_reported", {}),
    "dose": ("dose", "dose", {}),
    "probe_k1": ("saebench_sparse_probing", "probe_accuracy", {"k": 1.0, "reads": "latents"}),
    "probe_k5": ("saebench_sparse_probing", "probe_accuracy", {"k": 5.0, "reads": "latents"}),
    "first_letter": ("saebench_absorption", "first_letter_absorption_full", {}),
    "first_letter_fraction": ("saebench_absorption", "first_letter_absorption_fraction", {"definition": "0.6.0"}),
    "ravel": ("saebench_ravel", "ravel_disentanglement", {}),
    "meta": ("saebench_meta_structure", "decoder_variance_explained", {}),
    "tpp": ("saebench_tpp", "tpp", {"n": 20.0}),
    "scr": ("saebench_scr", "scr", {"n": 20.0}),
}
LOWER = (
    "fvu", "cosine", "absorption", "latents_per_factor", "overlap", "interaction", "products", "product_share",
    "bits", "labelled_fvu", "first_letter", "first_letter_fraction",
)  # fmt: skip
"""Scores of which less is better."""
NEITHER = ("l0", "labelled_l0", "l2_ratio", "hit", "atom_overlap", "context_ceiling", "ev_reported", "meta")
PARAMS = "params"
"""The key of a row under which params of scores stand."""
BASELINE = "batchtopk"
STANDARD = (BASELINE, "topk", "relu", "matryoshka", "jumprelu", "mdl")
CEILINGS = ("truth", "probes")
UNTRAINED = ("untrained", "random", "pca", "random-directions")
KNOBS = (
    "effect", "effect-blocks", "effect-functional", "effect-head", "effect-interaction", "effect-repulsion", "melbo",
    "melbo-hinge", "sketch", "interaction", "readback", "end-to-end", "frozen-end-to-end", "functional", "jacobian",
)  # fmt: skip
"""Methods that are evidence for claim 2."""

Row = dict[str, Any]
LEVELS = ("chance", "ceiling")
"""Keys of a row under which levels to compare with stand, by short name."""


def finite(value: float | None) -> float | None:
    """A number that is finite; None for what is none."""
    return value if value is not None and math.isfinite(value) else None


def is_rows(path: Path) -> bool:
    """True for a file that may hold committed rows."""
    return path.suffix == ".json" and path.is_file()


def read_committed(path: Path) -> StoredScores:
    """Read a file of committed rows. Raises ValueError when it is none, with what is missing."""
    found = read_json(path, list, remedy=REMEDY)
    if not found or not all(isinstance(row, dict) for row in found):
        raise ValueError(f"{path} holds no rows; {REMEDY}")
    for at, row in enumerate(found):
        if missing := [key for key in NEEDED if key not in row]:
            raise ValueError(f"row {at} of {path} lacks {listed(missing)}; write it by benchmarks.judge collect")
        if wrong := [key for key in SCORES if not isinstance(row.get(key), int | float | None)]:
            raise ValueError(f"row {at} of {path} has a {wrong[0]} that is no number; write it again")
    return stored_of_rows(found)


REMEDY = "name run folders, or a file of rows such as docs/results/language.json"
NEEDED = ("world", "method", "asked", "d_sae", "seed", "control")


def scores_of_rows(rows: Sequence[Row], *, base: str = "batchtopk") -> Scores:
    """Arrange rows of one testbed for judging, as if their runs had been read."""
    return arrange(stored_of_rows(rows, base=base))


def stored_of_rows(rows: Sequence[Row], *, base: str = "batchtopk") -> StoredScores:
    """Return rows as if their runs had been read."""
    params = {short: text for row in rows for short, text in row.get(PARAMS, {}).items()}
    quantities = {short: quantity_of(short, params.get(short)) for short in SCORES if any(short in row for row in rows)}
    runs = [run_of(row, base) for row in rows]
    records = []
    for row, run in zip(rows, runs, strict=True):
        for short, q in quantities.items():
            if row.get(short) is not None:
                records.append(record(run, q, float(row[short])))
            records += [
                record(run, Quantity(q.eval, q.metric, "", q.better, kind), float(row[kind][short]))
                for kind in LEVELS
                if short in row.get(kind, {})
            ]
    return StoredScores(tuple(runs), tuple(records), (), (), (), ())


def record(run: StoredRun, quantity: Quantity, value: float) -> Mapping[str, Any]:
    """One number as reading a run gives it."""
    return {
        "run": run.run, "name": run.name, "method": run.method, "l0_requested": run.requested_l0, "seed": run.seed,
        "control": run.control, "eval": quantity.eval, "version": None, "d_sae": run.d_sae,
        "architecture": run.architecture, "source": run.source, "base": run.summary.base, "term": run.summary.term,
        "strength": run.summary.strength, "geometry": run.summary.geometry, "metric": quantity.metric, "value": value,
        "better": quantity.better, "kind": quantity.kind, "params": parsed(quantity.params),
    }  # fmt: skip


def parsed(params: str) -> dict[str, str]:
    """Params from their text, each as text."""
    pairs = [part.rpartition(" ") for part in params.split(", ") if part]
    return {name: value for name, _, value in pairs}


def quantity_of(short: str, said: str | None = None) -> Quantity:
    """The quantity of a short name; said: its params as rows have them."""
    eval_name, metric, params = SCORES[short]
    better = "lower" if short in LOWER else "neither" if short in NEITHER else "higher"
    return Quantity(eval_name, metric, said or params_text(dict(sorted(params.items()))), better)


def run_of(row: Row, base: str) -> StoredRun:
    """A run as its row describes it."""
    name, control = row["method"], bool(row["control"])
    if "summary" in row:
        target = {"target_l0": {"l0": row["target_l0"]}} if row.get("target_l0") else {}
        training = {"tokens": row["tokens"]} if row.get("tokens") is not None else {}
        experiment = {"name": name, "seed": row["seed"], "control": control, "source": {"type": row["world"]},
                      "objective": target, "dictionary": {}, "training": training}  # fmt: skip
        provenance = {"summary": row["summary"], "finished": row["finished"], "unbraid": row["version"]}
        provenance |= {key: row[key] for key in ("fall", "seconds", "tokens") if row.get(key) is not None}
        return StoredRun(Path(row["run"]), experiment, provenance, {"d_sae": row["d_sae"]}, {})
    standard = name in STANDARD and not control
    claim: Claim = 2 if name in KNOBS else 1
    summary = {
        "method": name, "l0": row["asked"], "standard": standard, "claim": claim,
        "trivial": control and name in UNTRAINED, "sees_truth": name in CEILINGS,
        "base": name if standard else None if control else base, "term": None if standard or control else name,
    }  # fmt: skip
    experiment = {
        "name": name, "seed": row["seed"], "control": control, "source": {"type": row["world"]},
        "objective": {"target_l0": {"l0": row["asked"]} if row["asked"] else None}, "dictionary": {}, "training": {},
    }  # fmt: skip
    folder = Path(f"{name}-l0_{row['asked']}-w{row['d_sae']}-s{row['seed']}")
    return StoredRun(folder, experiment, {"summary": summary}, {"d_sae": row["d_sae"]}, {})
