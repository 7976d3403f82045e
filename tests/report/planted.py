"""A made-up study of bases, terms on each and controls, as training stores them, in which every effect is planted."""

import itertools
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.report.conftest import curve, make_run, store

BETTER = {"fvu": "lower", "absorption_full": "lower", "latents_per_factor": "lower", "l0": "neither"}
PARAMS = {"interchange": {"directions": "latents", "error": "kept", "n": 4}}
EVALS = {
    "fidelity": ("l0", "fvu", "alive", "l2_ratio"),
    "recovery": ("f1", "mcc", "recall_by_frequency"),
    "absorption": ("absorption_full", "parent_recall_given_child"),
    "splitting": ("latents_per_factor",),
    "controllability": ("isolation",),
    "interchange": ("interchange",),
}
TYPICAL = {
    "fvu": 0.2, "alive": 0.9, "l2_ratio": 0.95, "f1": 0.5, "mcc": 0.6, "recall_by_frequency": 0.6,
    "absorption_full": 0.3, "parent_recall_given_child": 0.5, "latents_per_factor": 3.0, "isolation": 0.5,
    "interchange": 0.5,
}  # fmt: skip
"""The scores of BatchTopK at L0 16."""
CHANCE = {"f1": 0.2, "mcc": 0.3, "absorption_full": 0.9, "isolation": 0.1}
Shift = Mapping[str, float]
BASES: dict[str, Shift] = {
    "batchtopk": {},
    "matryoshka": {
        "absorption_full": -0.15, "parent_recall_given_child": 0.1, "f1": 0.06, "fvu": 0.03, "isolation": 0.03,
    },
    "topk": {"fvu": 0.005, "f1": -0.02},
}  # fmt: skip
"""Standard SAEs, by what they have more than BatchTopK."""
WORST: dict[str, float] = {
    "fvu": 0.7, "f1": -0.25, "mcc": -0.25, "absorption_full": 0.4, "parent_recall_given_child": -0.4,
    "latents_per_factor": 3.0, "isolation": -0.35, "interchange": -0.4, "recall_by_frequency": -0.5,
}  # fmt: skip
TRUTH: dict[str, float] = {
    "fvu": 0.02, "f1": 0.4, "mcc": 0.38, "absorption_full": -0.28, "parent_recall_given_child": 0.4,
    "latents_per_factor": -1.9, "isolation": 0.4, "interchange": 0.4, "recall_by_frequency": 0.3,
}  # fmt: skip
CONTROLS: dict[str, Shift] = {"untrained": WORST, "truth": TRUTH}


def scores_of(seed: int, l0: int, shift: Shift, draw: random.Random, noise: float) -> dict[str, float]:
    """The scores of one run: typical ones moved by `shift`, a world that all runs of a seed share, and own noise."""
    world = random.Random(f"world {seed}")
    found = {"l0": l0 * (1 + 0.002 * draw.gauss(0, 1))}
    for metric, value in TYPICAL.items():
        trend = {"fvu": -0.04, "f1": 0.02}.get(metric, 0.01) * math.log2(l0 / 16)
        size = 4.0 if metric == "latents_per_factor" else 1.0
        found[metric] = value + trend + shift.get(metric, 0.0) + size * (
            0.03 * world.gauss(0, 1) + noise * draw.gauss(0, 1)
        )  # fmt: skip
    return found


def planted_run(
    root: Path, method: str, seed: int, l0: int, shift: Shift, *, noise: float = 0.01, log: bool = False,
    summary: Mapping[str, Any] | None = None, **about: Any,
) -> Path:  # fmt: skip
    """One run of a planted study."""
    draw = random.Random(f"{method} {seed} {l0}")
    scores = scores_of(seed, l0, shift, draw, noise)
    if summary is not None:
        summary = {"method": method, "l0": float(l0), "standard": False, "claim": 1, "trivial": False, **summary}
    rows = curve(draw, l0, scores["fvu"], scores["mcc"]) if log else ()
    folder = make_run(root, f"{method}-l0_{l0}", seed, k=l0, log=rows, summary=summary, **about)
    for name, metrics in EVALS.items():
        found = [row(m, scores[m], PARAMS.get(m, {})) for m in metrics]
        found += [row(m, CHANCE[m], {"kind": "chance"}) for m in metrics if m in CHANCE]
        store(folder, name, {"definitions": {m: f"what {m} means" for m in metrics}, "seconds": 1.0, "scores": found})
    return folder


def row(metric: str, value: float, params: Mapping[str, Any]) -> dict[str, Any]:
    """One stored number."""
    return {"metric": metric, "value": value, "better": BETTER.get(metric, "higher"), "params": dict(params)}


def planted(
    root: Path, terms: Mapping[str, Shift], *, on: Sequence[str] = ("batchtopk",), bases: Mapping[str, Shift] = BASES,
    controls: Mapping[str, Shift] = CONTROLS, knobs: Sequence[str] = (), seeds: Sequence[int] = range(8),
    l0s: Sequence[int] = (8, 16, 32), **about: Any,
) -> list[Path]:  # fmt: skip
    """A study of standard SAEs, of each term added to the bases in `on`, and of controls, at every L0 and seed.

    `knobs`: the terms that are about claim 2.
    """
    found = []
    for l0, seed in itertools.product(l0s, seeds):
        make = lambda name, shift, l0=l0, seed=seed, **more: found.append(
            planted_run(root, name, seed, l0, shift, **more, **about)
        )
        for base, shift in bases.items():
            make(base, shift, summary={"standard": True, "base": base})
            for term, extra in terms.items() if base in on else ():
                both = {k: shift.get(k, 0.0) + extra.get(k, 0.0) for k in {*shift, *extra}}
                said = {"base": base, "term": term, "claim": 2 if term in knobs else 1}
                make(term if len(on) == 1 else f"{base}-{term}", both, penalties={term: 1.0}, summary=said)
        for name, shift in controls.items():
            said = {"trivial": name != "truth", "sees_truth": name == "truth"}
            make(name, shift, control=True, training={"tokens": 0}, summary=said)
    return found


def change_scores(
    folders: Sequence[Path], method: str, eval_name: str, values: Mapping[str, float], *, seed: int | None = None
) -> None:
    """Write other values of scores into the folders of a method."""
    for folder in folders:
        experiment = json.loads((folder / "experiment.json").read_text())
        if not experiment["name"].startswith(f"{method}-l0_") or seed not in (None, experiment["seed"]):
            continue
        path = folder / "results" / f"{eval_name}.json"
        result = json.loads(path.read_text())
        for score in result["scores"]:
            if score["params"].get("kind") != "chance":
                score["value"] = values.get(score["metric"], score["value"])
        path.write_text(json.dumps(result))
