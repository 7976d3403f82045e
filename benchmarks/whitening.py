"""Whitened and raw activations under the same SAEs: testbed by testbed, paired by seed.

    python -m benchmarks.whitening forest-flat forest-half forest-real language synth --out docs/results/whitening.json
    python -m benchmarks.whitening known --cache known-smollm2 --out docs/results/whitening.json
    python -m benchmarks.whitening --out docs/results/whitening.json

ReLU, BatchTopK, Matryoshka and the Matryoshka of 2026 at one L0, each on raw (centred and scaled) activations, and
whitened by half and fully. A seed draws the world where there is one, the initialisation and the order of the data; in
all three geometries of a seed they are the same. Nothing is tuned: learning rates are the studies'. Run again to
resume; without a testbed it prints the tables of the rows that are there.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import unbraid
from benchmarks.judge import scores_of
from unbraid.comparison.intervals import t_interval
from unbraid.comparison.wording import mean_half
from unbraid.experiment.experiment import Training
from unbraid.experiment.study import Study, of_methods
from unbraid.sources.base import Source
from unbraid.sources.cached import Cached
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.synth import Synth
from unbraid.sources.world.world import World
from unbraid.studies.known import TRAINING
from unbraid.studies.methods import controls, matryoshkas, standard
from unbraid.system.files import write_text
from unbraid.training.loop import train

GEOMETRIES: dict[str, dict[str, Any]] = {
    "raw": {"normalise": "centre-scale"},
    "half": {"normalise": "whiten", "whiten_power": 0.5},
    "full": {"normalise": "whiten", "whiten_power": 1.0},
}
METHODS = ("relu", "batchtopk", "matryoshka")
EVALS = ("fidelity", "recovery", "absorption", "splitting", "interchange")
SHOWN = ("f1", "absorption", "latents_per_factor", "interchange", "fvu", "l0")
Row = dict[str, Any]


@dataclass(frozen=True)
class WhiteningTestbed:
    """What is trained on, how, and by which scores it is judged."""

    source: Callable[[int], Source]
    """By seed."""
    d_sae: int
    l0: int
    training: Training
    seeds: Sequence[int] = tuple(range(8))
    evals: Sequence[str] = EVALS[:4]

    def study(self, seed: int, geometry: str) -> Study:
        trained = of_methods(standard(self.l0), METHODS) | of_methods(matryoshkas(self.l0), ("matryoshka-2026",))
        untaught = of_methods(controls(self.l0), ("untrained",)) if geometry == "raw" else {}
        training = replace(self.training, score_every=0, **GEOMETRIES[geometry])
        return Study(
            source=self.source(seed), d_sae=self.d_sae, training=training, members=trained | untaught, seeds=(seed,)
        )


def forest(spectrum: float) -> WhiteningTestbed:
    """The forest of the factorial studies, 96 factors in 48 dimensions, at a spectrum from 0, flat, to 1."""
    world = lambda seed: World(factors=96, d_in=48, l0=4.0, roots=12, spectrum=spectrum, seed=seed)
    return WhiteningTestbed(world, 192, 4, Training(tokens=500_000, batch_size=512, lr=3e-3, dead_after=50_000))


def testbeds(cache: str) -> Mapping[str, WhiteningTestbed]:
    """All testbeds by name. cache: where the known language's activations are."""
    language = LanguageModel(text="language://6000", buffer_tokens=32_768)
    return {
        "forest-flat": forest(0.0),
        "forest-half": forest(0.5),
        "forest-real": forest(1.0),
        "language": WhiteningTestbed(
            lambda seed: language, 512, 8, Training(tokens=300_000, batch_size=1024, lr=2e-3, dead_after=50_000),
            evals=EVALS,
        ),
        "synth": WhiteningTestbed(
            lambda seed: Synth(seed=seed), 128, 4,
            Training(tokens=1_000_000, batch_size=512, lr=3e-3, dead_after=50_000),
        ),
        "known": WhiteningTestbed(lambda seed: Cached(folder=cache, epochs=7), 1024, 16, TRAINING, (0, 1, 2), EVALS),
    }  # fmt: skip


def measured(name: str, testbed: WhiteningTestbed, seed: int, geometry: str, runs: Path | None) -> list[Row]:
    """Train and score one cohort. runs: where its run folders are kept; None: nowhere."""
    with tempfile.TemporaryDirectory() if runs is None else nullcontext(runs / name) as folder:
        experiments = testbed.study(seed, geometry).experiments()
        found = []
        for home in train(experiments, folder, resume=True):
            unbraid.evaluate(home, testbed.evals)
            experiment = json.loads((home / "experiment.json").read_text())
            about = {"testbed": name, "geometry": geometry, "method": experiment["name"], "seed": seed}
            found.append(about | {"d_sae": testbed.d_sae, "asked": testbed.l0} | scores_of(home))
        return found


# ---- tables


def differences(rows: Sequence[Row], geometry: str, score: str) -> list[float]:
    """Whitened less raw, by seed, of the rows of one method."""
    sides = [{r["seed"]: r[score] for r in rows if r["geometry"] == g and r.get(score) is not None}
             for g in ("raw", geometry)]  # fmt: skip
    return [sides[1][seed] - sides[0][seed] for seed in sorted(sides[0].keys() & sides[1].keys())]


def table(rows: Sequence[Row], name: str) -> str:
    """A row a method: raw means, then what whitening by half and fully adds, with 95 % intervals over seeds."""
    own = [row for row in rows if row["testbed"] == name]
    shown = [score for score in SHOWN if any(row.get(score) is not None for row in own)]
    lines = [f"| {name} | | {' | '.join(shown)} |", "|---" * (len(shown) + 2) + "|"]
    for method in dict.fromkeys(row["method"] for row in own):
        these = [row for row in own if row["method"] == method]
        for geometry in GEOMETRIES:
            if geometry == "raw":
                values = [[r[s] for r in these if r["geometry"] == "raw" and r.get(s) is not None] for s in shown]
            else:
                values = [differences(these, geometry, score) for score in shown]
            if any(values):
                head = (method, "raw") if geometry == "raw" else ("", f"{geometry} − raw")
                lines.append(f"| {' | '.join([*head, *(mean_half(t_interval(v)) if v else '–' for v in values)])} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("testbeds", nargs="*", metavar="TESTBED")
    parser.add_argument("--cache", default="known-smollm2", help="`unbraid cache known_model --to known-smollm2`")
    parser.add_argument("--runs", type=Path, help="keep run folders here")
    parser.add_argument("--out", type=Path, required=True, help="rows; those that are there are kept")
    options = parser.parse_args()
    known = testbeds(options.cache)
    if wrong := [name for name in options.testbeds if name not in known]:
        parser.error(f"no testbed {wrong[0]!r}; there are {', '.join(known)}")
    torch.set_num_threads(1)
    rows: list[Row] = json.loads(options.out.read_text()) if options.out.exists() else []
    there = {(row["testbed"], row["seed"], row["geometry"]) for row in rows}
    asked = [
        (seed, name, geometry) for name in options.testbeds for seed in known[name].seeds for geometry in GEOMETRIES
    ]
    for seed, name, geometry in sorted(asked, key=lambda one: one[0]):  # so that rows cut short are of all testbeds
        if (name, seed, geometry) not in there:
            rows += measured(name, known[name], seed, geometry, options.runs)
            write_text(options.out, "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
            print(name, seed, geometry, flush=True)
    for name in dict.fromkeys(row["testbed"] for row in rows):
        print(table(rows, name), end="\n\n")


if __name__ == "__main__":
    main()
