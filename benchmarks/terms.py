"""What each term adds to a training step: python -m benchmarks.terms --only correlation,hsic --out terms.json

One dictionary with the term and one without take steps in turn, on one thread of one process; the figure is the median
CPU time of a step in which the term is due, less that of a plain step, over `every` and over the plain step. A term
that does more in some applications than in others (gate_kl) is averaged over them first.
Activations are a world's, documents are made up (64 tokens each), and slice terms look through the world's downstream
map, which is far cheaper than a language model's layers.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.run import names
from unbraid.catalog import terms
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.config import DictionaryConfig
from unbraid.experiment.experiment import Experiment, Training
from unbraid.objective.objective import Objective, Term
from unbraid.objective.step_data import ExtraInputs
from unbraid.sources.base import Batch
from unbraid.sources.world.world import World
from unbraid.system.files import write_json
from unbraid.terms.controls.masked import Masked
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.gate_kl import GateKl
from unbraid.training.learner import Learner

STEPS = 100_000
WARM_UP = 2
"""Pairs of steps: moving averages, banks and calibrations start in them."""
DOCUMENT = 64
NOT_PENALTIES = ("reconstruction", "nested_reconstruction", "sampled_prefixes", "next_token_kl")
"""Terms that are not measured: reconstructions, and what takes a language model, on whose size its cost depends."""
THRESHOLDS = ("l0", "quadratic_l0", "frequency", "gate_l1", "gate_reconstruction", "pre_activation")
"""Terms that need JumpReLU."""


@dataclass(frozen=True)
class Bench:
    d_in: int
    d_sae: int
    batch: int
    k: int

    def world(self) -> World:
        return World(factors=4 * self.d_in, d_in=self.d_in, l0=float(self.k), roots=self.d_in // 4)

    def batches(self, world: World, count: int) -> list[Batch]:
        x = world.labelled(count * self.batch, split="train").x
        index = torch.arange(len(x))
        rows = Batch(x, index, index // DOCUMENT, index % DOCUMENT)
        return [rows[i * self.batch : (i + 1) * self.batch] for i in range(count)]

    def learner(self, world: World, sample: torch.Tensor, penalties: dict[str, Term], jump: bool) -> Learner:
        activation = JumpReLU(initial_l0=self.k) if jump else BatchTopK(self.k)
        experiment = Experiment(
            name="bench", source=world,
            objective=Objective(reconstruction=Reconstruction(), penalties=penalties, ramp=0.0),
            dictionary=DictionaryConfig(d_sae=self.d_sae, activation=activation),
            training=Training(tokens=STEPS * self.batch, batch_size=self.batch),
        )  # fmt: skip
        return Learner(experiment, sample)


def given(extra: ExtraInputs, term: Term) -> None:
    """Draw what a source gives: not the term's own cost, since a cohort shares it."""
    extra.contexts()
    extra.counterfactuals()
    if isinstance(term, Masked):
        extra.corrupted(term.share)


def cycle(term: Term) -> int:
    """Applications after which the term's cost repeats."""
    return term.apart if isinstance(term, GateKl) else 1


def measure(
    bench: Bench, world: World, batches: Sequence[Batch], term: Term, repetitions: int, jump: bool
) -> tuple[float, float]:
    """Seconds of a plain step, and those that the term adds to a step on average."""
    sample = batches[0].x[:4096]
    asked = replace(term, start=0.0)
    learners = bench.learner(world, sample, {}, jump), bench.learner(world, sample, {"asked": asked}, jump)

    def pair(number: int) -> list[float]:
        """Seconds of a step without the term and of one in which it is due."""
        index, batch = number * asked.every, batches[number % len(batches)]
        extra, seconds = ExtraInputs(world, 0, index), []
        given(extra, asked)
        for learner in learners:
            before = time.process_time()
            learner.step(batch, index, extra)
            seconds.append(time.process_time() - before)
        return seconds

    for number in range(WARM_UP):
        pair(number)
    pairs = [pair(WARM_UP + number) for number in range(repetitions * cycle(asked))]
    cycles = [pairs[start : start + cycle(asked)] for start in range(0, len(pairs), cycle(asked))]
    base, due = (statistics.median(statistics.fmean(p[side] for p in each) for each in cycles) for side in (0, 1))
    return base, (due - base) / asked.every


def main(argv: Sequence[str] | None = None) -> None:
    found = {name: kind for name, kind in terms().items() if name not in NOT_PENALTIES}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: names(text, list(found)), default=list(found), help="terms")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--d-in", type=int, default=512)
    parser.add_argument("--d-sae", type=int, default=16_384)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--out", type=Path, help="also write the rows to this JSON file")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    bench = Bench(chosen.d_in, chosen.d_sae, chosen.batch, chosen.k)
    world = bench.world()
    batches = bench.batches(world, 3)
    print(f"{'term':<26}{'every':>6}{'plain ms':>10}{'added ms':>10}{'share':>8}")
    rows: list[dict[str, Any]] = []
    for name in chosen.only:
        term = found[name]()
        base, added = measure(bench, world, batches, term, chosen.repetitions, name in THRESHOLDS)
        print(f"{name:<26}{term.every:>6}{1e3 * base:>10.0f}{1e3 * added:>10.1f}{added / base:>8.1%}", flush=True)
        row = {"term": name, "every": term.every, "plain_seconds": base, "added_seconds": added, "share": added / base}
        rows.append({**row, **asdict(bench), "repetitions": chosen.repetitions})
        if chosen.out is not None:
            write_json(chosen.out, rows)


if __name__ == "__main__":
    main()
