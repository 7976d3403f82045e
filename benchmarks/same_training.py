"""Dense, sparse and bfloat16 steps train the same dictionary: loss curves over 2,000 steps, FVU and MCC after them.

    python -m benchmarks.same_training --out docs/results/same-training.json --figure runs/same-training.html

The same experiment three times a seed, with whole matrices (`training.dense_above` 0), with active pairs alone (1), and
with pairs that a product in bfloat16 proposes; a TopK of which a quarter is active with whole matrices in float32 and
in bfloat16. They differ by rounding, and proposals also by the pairs that they miss; rounding grows as training goes
on, so what is compared is a difference with the spread of three seeds.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.evals.fidelity import fidelity
from unbraid.evals.recovery import recovery
from unbraid.experiment.experiment import Experiment, Training
from unbraid.objective.objective import Objective
from unbraid.report.library import plotly_js
from unbraid.runs.run import Run
from unbraid.sources.world.world import World
from unbraid.system.files import write_json, write_text
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.training.loop import train

WORLD = World(factors=512, d_in=64, l0=8.0, roots=64)
ACTIVATIONS: dict[str, Activation] = {"topk": TopK(8), "batchtopk": BatchTopK(8), "topk-quarter": TopK(256)}
BATCH, STEPS = 512, 2000
TRAINING = Training(tokens=BATCH * STEPS, batch_size=BATCH, lr=2e-3, dead_after=100_000, score_every=0)
WAYS: dict[str, Training] = {
    "dense": replace(TRAINING, dense_above=0.0),
    "sparse": replace(TRAINING, dense_above=1.0),
    "bfloat16": replace(TRAINING, dense_above=1.0, matmul="bfloat16"),
    "dense-bfloat16": replace(TRAINING, dense_above=0.0, matmul="bfloat16"),
}
SEEDS = (0, 1, 2)
TICKS = (10, 20, 50, 100)
COLOURS = {"dense": "#1b6ca8", "sparse": "#c8553d", "bfloat16": "#5a8f29", "dense-bfloat16": "#7b5ea7"}
Row = dict[str, Any]


def ways(activation: str) -> list[str]:
    """Those in which it is trained: where a quarter is active, with whole matrices."""
    return ["dense", "dense-bfloat16"] if activation.endswith("-quarter") else ["dense", "sparse", "bfloat16"]


def experiment(activation: str, way: str, seed: int) -> Experiment:
    """One of the experiments that should come out alike."""
    return Experiment(
        name=f"{activation}-{way}",
        source=WORLD,
        objective=Objective(reconstruction=Reconstruction(), penalties={"aux_k": AuxK()}),
        dictionary=DictionaryConfig(d_sae=1024, activation=ACTIVATIONS[activation]),
        training=WAYS[way],
        seed=seed,
    )


def trained(activation: str, way: str, seed: int, folder: Path) -> Row:
    """Train one and return its scores and its loss, step by step."""
    (home,) = train([experiment(activation, way, seed)], folder)
    run = Run.open(home)
    scores = {score.metric: score.value for score in fidelity(run)}
    mcc = next(s.value for s in recovery(run) if s.metric == "mcc" and s.kind == "measured" and not s.params)
    logged = [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]
    losses = [
        [line["step"], round(line["losses/reconstruction"], 5)] for line in logged if "losses/reconstruction" in line
    ]
    return {
        "activation": activation, "way": way, "seed": seed, "steps": STEPS, "fvu": scores["fvu"], "mcc": mcc,
        "losses": losses,
    }  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """A row an activation and score: means over seeds, and the largest difference by seed beside the seeds."""
    others = [way for way in WAYS if way != "dense"]
    names = ["", "score", *WAYS, *(f"{way} − dense" for way in others), "seeds, dense"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for activation, score in product(ACTIVATIONS, ("fvu", "mcc")):
        found = {way: [r[score] for r in rows if (r["activation"], r["way"]) == (activation, way)] for way in WAYS}
        means = [f"{sum(values) / len(values):.4g}" if values else "" for values in found.values()]
        apart = [
            span([a - b for a, b in zip(found[way], found["dense"], strict=True)]) if found[way] else ""
            for way in others
        ]
        lines.append("| " + " | ".join([activation, score, *means, *apart, span(found["dense"])]) + " |")
    return "\n".join(lines)


def span(values: Sequence[float]) -> str:
    return f"{min(values):.4g} to {max(values):.4g}"


def page(rows: Sequence[Row]) -> str:
    """A page of the loss curves, one panel an activation, all seeds; it needs nothing but a browser."""
    figures = []
    for activation in ACTIVATIONS:
        lines = [
            {
                "x": [step for step, _ in row["losses"]], "y": [loss for _, loss in row["losses"]], "mode": "lines",
                "name": row["way"], "legendgroup": row["way"], "showlegend": row["seed"] == SEEDS[0],
                "line": {"color": COLOURS[row["way"]], "width": max(1, 3 - list(WAYS).index(row["way"]))},
            }
            for row in rows if row["activation"] == activation
        ]  # fmt: skip
        axes = {
            "xaxis": {"title": {"text": "step"}},
            "yaxis": {"title": {"text": "squared error"}, "type": "log", "tickvals": TICKS},
        }
        title = {"text": f"{type(ACTIVATIONS[activation]).__name__}{', a quarter active' * ('-' in activation)}"}
        figures.append({"data": lines, "layout": {"title": title, "width": 460, "height": 320, **axes}})
    drawn = "".join(f"<div id=p{i}></div>" for i in range(len(figures)))
    calls = "".join(
        f'{{const f={json.dumps(figure)};Plotly.newPlot("p{i}",f.data,f.layout,{{staticPlot:true}})}}'
        for i, figure in enumerate(figures)
    )
    return (
        '<!doctype html><meta charset="utf-8"><title>The same training</title><style>body{display:flex;margin:0}'
        f"</style>{drawn}<script>{plotly_js()}</script><script>{calls}</script>"
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="rows; those that are there are kept")
    parser.add_argument("--figure", type=Path, help="the page to write")
    options = parser.parse_args()
    rows: list[Row] = json.loads(options.out.read_text()) if options.out.exists() else []
    there = {(row["activation"], row["way"], row["seed"]) for row in rows}
    for key in product(ACTIVATIONS, WAYS, SEEDS):
        if key not in there and key[1] in ways(key[0]):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(trained(*key, Path(folder)))
            write_json(options.out, rows)
            print(*key, {name: round(rows[-1][name], 5) for name in ("fvu", "mcc")}, flush=True)
    print(table(rows))
    if options.figure is not None:
        write_text(options.figure, page(rows))


if __name__ == "__main__":
    main()
