"""A check of what the embedded model knows: loss, probes of factors by layer, steering along mean differences.

    python -m benchmarks.language_model.check --out docs/results/language-model.json

Steering adds, at the last word of a text, the difference of means of the factors that the other text of a minimal pair
has there and this one has not, less that of those it loses, once and four times. `moved` is how far that moves
the next word towards the exact one of the other text, as a share of how far the other text itself does (1 is as far);
`others` the probability it moves to words that betray a change in another variable.
"""

import json
from pathlib import Path
from typing import Any

import torch
import tyro
from sklearn.metrics import roc_auc_score
from torch import Tensor

from unbraid.evals.shared.pair_readings import Read, follows, prepared
from unbraid.metrics.linear_probes import difference_of_means, logistic
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import EMBEDDED, located
from unbraid.sources.synthetic_language.documents import read
from unbraid.sources.synthetic_language.factors import FACTORS, active
from unbraid.sources.synthetic_language.pairs import VARIABLES

TRAINED, SCORED = 48_000, 24_000
FOUND = 0.9
SCALES = (1, 4)
"""Times the difference of means, which is over all places where a factor is active, most of them unlike this one."""


def main(out: Path, model: str = EMBEDDED) -> None:
    card = json.loads((Path(located(model)) / "training.json").read_text())
    print(f"held-out loss {card['held_out_loss']}; {card['corpus']}")
    layers = [
        at_layer(LanguageModel(model=model, layer=n, text="language://4000?seed=11", eval_share=0.4)) for n in range(5)
    ]
    best = {f.name: max(layer["probes"].get(f.name, {"auroc": 0.0})["auroc"] for layer in layers) for f in FACTORS}
    report = {"model": card, "layers": layers, "share of factors with AUROC >= 0.9 at some layer": share(best)}
    out.write_text(json.dumps(report, indent=1) + "\n")
    print("at some layer", report["share of factors with AUROC >= 0.9 at some layer"])


def share(scores: dict[str, float]) -> float:
    return sum(score >= FOUND for score in scores.values()) / len(scores)


@torch.no_grad()
def at_layer(source: LanguageModel) -> dict[str, Any]:
    truth = source.truth()
    trained, scored = truth.labelled(TRAINED, split="train"), truth.labelled(SCORED, split="eval")
    probes = logistic(trained, l2=10.0)
    logits, present = scored.x @ probes.weights.T + probes.bias, scored.dense() > 0
    found = {name: detection(logits[:, i], present[:, i]) for i, name in enumerate(truth.names) if present[:, i].any()}
    aurocs, f1s = ({n: s[k] for n, s in found.items()} for k in ("auroc", "f1"))
    directions = difference_of_means(trained, truth.parents)
    steered = {}
    for variable in VARIABLES:
        seen = prepared(source, variable).scored
        if follows(seen):
            steered[variable] = {str(scale): steer(seen, scale * directions) for scale in SCALES}
    print(
        f"layer {source.layer}: AUROC >= .9 for {share(aurocs):.0%}, F1 >= .9 for {share(f1s):.0%} of factors; moved "
        + ", ".join(f"{v} {[row['moved'] for row in rows.values()]}" for v, rows in steered.items())
    )
    return {"layer": source.layer, "probes": found, "steering": steered}


def detection(logits: Tensor, present: Tensor) -> dict[str, float]:
    fired = logits > 0
    both = float((fired & present).sum())
    f1 = 2 * both / float(fired.sum() + present.sum())
    return {"auroc": round(float(roc_auc_score(present.numpy(), logits.numpy())), 4), "f1": round(f1, 4)}


def steer(seen: Read, directions: Tensor) -> dict[str, Any]:
    acts, last = seen.base.clone(), seen.windows.attention.sum(1) - 1
    for i, pair in enumerate(seen.pairs):
        here, there = active(read(pair.base)[-1]), active(read(pair.changed)[-1])
        change = directions[sorted(there - here)].sum(0) - directions[sorted(here - there)].sum(0)
        acts[i, last[i]] += change
    found = seen.reader.last(seen.windows, acts).double().softmax(-1).cpu()
    other = seen.predicted_other
    here, there, moved = (seen.readouts.distance(p, other).sum() for p in (seen.predicted, other, found))
    others: dict[str, list[float]] = {}
    for i, pair in enumerate(seen.pairs):
        extra = found[i] - torch.maximum(seen.predicted[i], seen.predicted_other[i])
        for name, words in pair.betraying.items():
            others.setdefault(name, []).append(max(0.0, float(extra[list(words)].sum())))
    leaked = {name: round(sum(values) / len(values), 4) for name, values in others.items()}
    return {"moved": round(float((here - moved) / (here - there)), 4), "others": leaked}


if __name__ == "__main__":
    tyro.cli(main)
