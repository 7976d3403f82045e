"""Made-up scores of a factorial study: its real experiments, with planted effects, as if they had been trained."""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from unbraid.comparison.stored_scores import StoredRun, StoredScores
from unbraid.config.serialise import to_json
from unbraid.experiment.experiment import Experiment

LEVELS = {"f1": 0.4, "absorption_full": 0.3, "fvu": 0.1, "l2_ratio": 1.0, "recall_by_frequency": 0.5}
"""Scores of BatchTopK."""
BETTER = {"f1": "higher", "absorption_full": "lower", "fvu": "lower", "recall_by_frequency": "higher"}
EVALS = {"f1": "recovery", "absorption_full": "absorption", "recall_by_frequency": "recovery"}
CONTROLS = {
    "untrained": {"f1": 0.05, "absorption_full": 0.6, "fvu": 0.9},
    "truth": {"f1": 1.0, "absorption_full": 0.0, "fvu": 0.05},
    "probes": {"f1": 0.9, "absorption_full": 0.01, "fvu": 0.06},
}
MATRYOSHKA = {"f1": 0.03, "absorption_full": -0.12, "fvu": 0.02}
"""What it differs by from BatchTopK."""
SD = 0.006

Effect = Callable[[Experiment], Mapping[str, float]]


def scored(
    experiments: Iterable[Experiment], effect: Effect = lambda _: {}, *, finished: str = "2026-01-02T03:04:05Z",
    version: str = "0.1.0", without: Callable[[Experiment], bool] = lambda _: False,
) -> StoredScores:  # fmt: skip
    """Scores of experiments: BatchTopK's level, what is planted, and noise, part of which a seed's runs share."""
    runs, records = [], []
    for experiment in experiments:
        if without(experiment):
            continue
        run = StoredRun(
            Path(experiment.folder), to_json(experiment),
            {"summary": asdict(experiment.summary), "finished": finished, "unbraid": version, "git": "abc"},
            {"d_sae": experiment.dictionary.d_sae}, {},
        )  # fmt: skip
        runs.append(run)
        for metric, value in values(experiment, effect).items():
            records.append({
                "run": run.run, "name": run.name, "method": run.method, "seed": run.seed, "control": run.control,
                "eval": EVALS.get(metric, "fidelity"), "version": 1, "metric": metric, "kind": "measured",
                "value": value, "better": BETTER.get(metric, "neither"), "params": {}, "d_sae": run.d_sae,
                "source": run.source, "l0_requested": run.requested_l0, "architecture": "",
            })  # fmt: skip
    return StoredScores(tuple(runs), tuple(records), (), (), (), ())


def values(experiment: Experiment, effect: Effect) -> dict[str, float]:
    """The scores of one experiment."""
    control = next((levels for name, levels in CONTROLS.items() if experiment.name.startswith(name)), None)
    found = LEVELS | (control or {})
    if control is None:
        added = MATRYOSHKA if experiment.base == "matryoshka" else {}
        planted = effect(experiment)
        found = {m: v + added.get(m, 0.0) + planted.get(m, 0.0) for m, v in found.items()}
    noise = lambda key: random.Random(key).gauss(0, SD)
    folder = experiment.folder  # a hash of all its settings
    return {"l0": experiment.requested_l0 or 5.0} | {
        m: v + 2 * noise(f"{m}{experiment.seed}") + noise(f"{m}{folder}") for m, v in found.items()
    }
