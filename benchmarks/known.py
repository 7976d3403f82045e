"""Probes of known factors in cached activations of the language: AUROC by group of factors, with the model's own pairs.

    unbraid cache known_model --to known-smollm2
    python -m benchmarks.known known-smollm2 --out docs/results/known-smollm2-probes.json

Probes are fitted on words of the train split and scored on held-out ones; a factor counts if it is active in ten of
these. `followed`: variables of which the other text of a minimal pair raises the odds of the words it makes likelier.
"""

import json
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.language_model.check import detection
from unbraid.evals.shared.pair_readings import follows, prepared, reader_of_language
from unbraid.metrics.linear_probes import logistic
from unbraid.sources.cached import Cached
from unbraid.sources.synthetic_language.pairs import VARIABLES
from unbraid.sources.truth import Truth
from unbraid.system.files import write_json

TRAINED, SCORED = 32_768, 32_768
FEWEST = 10
FOUND = 0.9
L2 = 10.0


def main(cache: tyro.conf.Positional[Path], out: Path, pairs: bool = True) -> None:
    """Probe a cache of activations of the language. pairs: also ask which variables the model follows."""
    source = Cached(folder=str(cache))
    report: dict[str, Any] = probed(source.truth())
    model = reader_of_language(source)
    if pairs and model is not None:
        tables = {variable: prepared(model, variable).scored for variable in VARIABLES}
        report["followed"] = {variable: follows(seen) for variable, seen in tables.items()}
        report["total variation"] = {
            v: round(float(s.readouts.distance(s.predicted, s.predicted_other).mean()), 4) for v, s in tables.items()
        }
    write_json(out, report)
    print(json.dumps(report, indent=1))


@torch.no_grad()
def probed(truth: Truth) -> dict[str, Any]:
    """Fit a probe of each factor and score it, by group: the variable that a factor is a value of."""
    trained, held = truth.labelled(TRAINED, split="train"), truth.labelled(SCORED, split="eval")
    probes = logistic(trained, l2=L2)
    logits, present = held.x @ probes.weights.T + probes.bias, held.dense() > 0
    enough = (present.sum(0) >= FEWEST) & logits.isfinite().all(0)
    found: dict[str, list[dict[str, float]]] = {}
    for factor in enough.nonzero()[:, 0].tolist():
        group = truth.names[int(factor)].partition("=")[0]
        found.setdefault(group, []).append(detection(logits[:, factor], present[:, factor]))
    every = [one for group in found.values() for one in group]
    return {
        "words": {"trained": len(trained.x), "scored": len(held.x)},
        "factors": {"of": len(truth.names), "scored": len(every)},
        "all": means(every),
        "groups": {group: means(ones) for group, ones in found.items()},
    }


def means(found: list[dict[str, float]]) -> dict[str, float]:
    """The number of factors, their mean AUROC and F1, the least AUROC, and the share found."""
    aurocs = [one["auroc"] for one in found]
    return {
        "count": len(found),
        "auroc": round(sum(aurocs) / len(found), 4),
        "least": min(aurocs),
        "found": round(sum(auroc >= FOUND for auroc in aurocs) / len(found), 4),
        "f1": round(sum(one["f1"] for one in found) / len(found), 4),
    }


if __name__ == "__main__":
    tyro.cli(main)
