"""Run folders as training and evals left them before classes had public names, with made-up numbers."""

import hashlib
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

DEFINITIONS = {
    "fidelity": {
        "l0": "mean number of non-zero latents a token",
        "fvu": "fraction of variance unexplained on held-out rows",
        "alive": "share of latents that fire at least once",
        "max_decoder_cosine": "mean over atoms of the largest |cosine| with another atom",
    },
    "recovery": {
        "mcc": "mean |cos| over the one-to-one matching of atoms and factors",
        "f1": "of matched latents as detectors",
    },
}
BETTER = {"l0": "neither", "fvu": "lower", "max_decoder_cosine": "lower"}
WORLD = {"type": "World", "d_in": 64, "factors": 512, "seed": 0}
TERMS = {"l1": "L1", "l0": "L0", "aux_k": "AuxK", "description_length": "DescriptionLength"}
EVALS = {"mcc": "recovery", "f1": "recovery", "bits_per_token": "description_length"}
"""Of metrics that are not fidelity's."""

MakeRun = Callable[..., Path]


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def term(name: str, weight: float) -> dict[str, Any]:
    return {"type": f"unbraid.terms.{name}:{TERMS.get(name, name.title())}", "weight": weight, "every": 1}


def make_run(
    root: Path,
    name: str,
    seed: int = 0,
    scores: Mapping[str, float] | None = None,
    *,
    penalties: Mapping[str, float] | None = None,
    control: bool = False,
    source: Mapping[str, Any] = WORLD,
    k: int | None = None,
    target: float | None = None,
    reached: float | None = None,
    d_sae: int = 1024,
    log: Sequence[Mapping[str, float]] = (),
    finished: bool = True,
    training: Mapping[str, Any] | None = None,
    version: int = 1,
    activation: Mapping[str, Any] | None = None,
    reconstruction: str = "reconstruction",
    init: str = "RandomAtoms",
    summary: Mapping[str, Any] | None = None,
) -> Path:
    """One run. `scores`: by metric; mcc and f1 become recovery's, others fidelity's. `penalties`: weights by name.
    `target`: the L0 it was to be trained to; `reached`: the one training stored. `summary`: what training says of the
    experiment, such as its base and term; runs of long ago say nothing."""
    experiment = {
        "type": "unbraid.experiment:Experiment",
        "name": name,
        "seed": seed,
        "control": control,
        "source": dict(source),
        "objective": {
            "type": "Objective",
            "reconstruction": term(reconstruction, 1.0),
            "penalties": {f"p_{n}": term(n, w) for n, w in (penalties or {}).items()},
            "ramp": 0.05,
            "target_l0": {"type": "TargetL0", "l0": target} if target else None,
        },
        "dictionary": {
            "type": "DictionaryConfig",
            "d_sae": d_sae,
            "activation": activation or ({"type": "TopK", "k": k} if k else {"type": "ReLU"}),
            "init": {"type": init},
            "frozen": ["W_dec"] if control else [],
        },
        "training": {"type": "Training", "tokens": 2_000_000, "batch_size": 2048, "lr": 0.001} | dict(training or {}),
    }
    fingerprint = hashlib.sha256(json.dumps(experiment, sort_keys=True).encode()).hexdigest()[:12]
    folder = root / f"{name.replace('/', '_')}-s{seed}-{fingerprint}"
    write_json(folder / "experiment.json", experiment)
    write_json(folder / "cfg.json", {"architecture": "topk" if k else "standard", "d_in": 64, "d_sae": d_sae})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log), encoding="utf-8")
    by_eval: dict[str, list[dict[str, Any]]] = {}
    for metric, value in (scores or {}).items():
        row = {"metric": metric, "value": value if math.isfinite(value) else None}
        row |= {"better": BETTER.get(metric, "higher"), "params": {"kind": "measured"} if metric == "mcc" else {}}
        by_eval.setdefault(EVALS.get(metric, "fidelity"), []).append(row)
    for eval_name, rows in by_eval.items():
        store(
            folder, eval_name, {"definitions": DEFINITIONS.get(eval_name, {}), "seconds": 1.5, "scores": rows}, version
        )
    if finished:
        stored = {} if reached is None else {"l0_target": target, "l0_reached": reached}
        stored |= {} if summary is None else {"summary": dict(summary)}
        about = {
            **stored,
            "git": "0123abc",
            "machine": "x86_64, 2 cores, 2 threads",
            "seconds": 41.5 + seed,
            "tokens": 2_000_896,
        }
        write_json(
            folder / "provenance.json", about | {"versions": {"torch": "2.13.0"}, "finished": "2026-01-02T03:04:05Z"}
        )
    return folder


def store(folder: Path, eval_name: str, result: Mapping[str, Any], version: int = 1) -> None:
    write_json(folder / "results" / f"{eval_name}.json", {"eval": eval_name, "version": version, **result})


def curve(rng: random.Random, l0: float, fvu: float, mcc: float) -> list[dict[str, float]]:
    """A training log."""
    rows = []
    for step in range(0, 977, 8):
        share = math.exp(-step / 150)
        noise = 1 + 0.03 * rng.gauss(0, 1)
        rows.append(
            {
                "step": step,
                "tokens": (step + 1) * 2048,
                "lr": 1e-3,
                "losses/reconstruction": (fvu + (1 - fvu) * share) * 64 * noise,
                "metrics/l0": l0 * (1 + 3 * share) * noise,
                "metrics/reconstruction/fvu": (fvu + (1 - fvu) * share) * noise,
                "sparsity/dead": (1 - mcc) * 0.2 * (1 - share),
            }
        )
    return rows


METHODS: dict[str, dict[str, Any]] = {
    "relu": {"penalties": {"l1": 0.03}, "mcc": 0.58, "fvu": 1.25, "drift": 1.04},
    "topk": {"penalties": {"aux_k": 0.03}, "mcc": 0.63, "fvu": 1.0, "k": True},
    "orthogonality": {"penalties": {"aux_k": 0.03, "orthogonality": 10.0}, "mcc": 0.71, "fvu": 1.06, "k": True},
    "hsic": {"penalties": {"aux_k": 0.03, "hsic": 1.0}, "mcc": 0.632, "fvu": 1.004, "k": True},
    "untrained": {"control": True, "mcc": 0.31, "fvu": 3.2, "k": True},
    "frozen-decoder": {"control": True, "mcc": 0.32, "fvu": 2.1, "k": True},
    "pca": {"control": True, "mcc": 0.24, "fvu": 1.5, "k": True, "d_sae": 128},
}


def study(
    root: Path, *, seeds: Sequence[int] = (0, 1, 2), sparsities: Sequence[int] = (16, 32, 64), **changes: Any
) -> list[Path]:
    """Seven methods, three of them controls, with a winner on mcc (orthogonality) and a tie (hsic)."""
    runs = []
    for name, about in METHODS.items():
        for l0 in sparsities if not about.get("control") else sparsities[:2]:
            for seed in seeds:
                rng = random.Random(f"{name} {l0} {seed}")
                shared = random.Random(f"{l0} {seed}").gauss(0, 1)
                at = l0 * about.get("drift", 1.0) * (1 + 0.004 * rng.gauss(0, 1))
                fvu = about["fvu"] * 0.9 / math.sqrt(at) * (1 + 0.01 * shared + 0.004 * rng.gauss(0, 1))
                mcc = about["mcc"] - 0.04 * abs(math.log2(at / 32)) + 0.008 * shared + 0.004 * rng.gauss(0, 1)
                scores = {"l0": at, "fvu": fvu, "alive": min(1.0, mcc + 0.3), "max_decoder_cosine": 0.9 - mcc / 2}
                scores |= {"mcc": mcc, "f1": mcc - 0.1 + 0.01 * rng.gauss(0, 1)}
                own = {key: about[key] for key in ("penalties", "control", "d_sae") if key in about}
                own |= {"k": l0 if about.get("k") else None, "log": curve(rng, at, fvu, mcc)}
                runs.append(make_run(root, f"{name}-l0_{l0}", seed, scores, **own, **changes))
                chance = [{"metric": "mcc", "value": 0.3, "better": "higher", "params": {"kind": "chance"}}]
                path = runs[-1] / "results" / "recovery.json"
                result = json.loads(path.read_text())
                write_json(path, result | {"scores": result["scores"] + chance})
                store(runs[-1], "controllability", {"not_applicable": "needs a downstream map, which this world lacks"})
    return runs


def blemish(root: Path, runs: Sequence[Path]) -> list[Path]:
    """The same study with an error, a NaN and an unfinished run."""
    store(runs[1], "recovery", {"error": "RuntimeError: ran out of memory in <matching>"})
    path = runs[13] / "results" / "fidelity.json"
    result = json.loads(path.read_text())
    for score in result["scores"]:
        if score["metric"] == "max_decoder_cosine":
            score["value"] = None
    write_json(path, result)
    return [*runs, make_run(root, "topk-l0_128", 0, k=128, finished=False)]


@pytest.fixture
def run(tmp_path: Path) -> MakeRun:
    """Makes one run in a temporary folder."""
    return lambda *args, **kwargs: make_run(tmp_path / "runs", *args, **kwargs)


@pytest.fixture(scope="session")
def full_study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """To be read only: 54 finished runs and one unfinished, with an error, a NaN and an eval that does not apply."""
    root = tmp_path_factory.mktemp("study")
    return blemish(root, study(root))
