"""What a step of a small dictionary costs: python -m benchmarks.small_shapes --before TREE --out FILE

Checkouts of this repository, a process and a thread each, make ten steps each in turn, as training makes them (some 200
of a run are logged), and so does the floor: the encoder's product and the fused optimiser alone. Core-seconds (user and
system), median and range over rounds. All start from the same numbers and see the same batches; `equal` says whether
what they have trained is the same bit for bit. `--tokens` also trains the members of the demo's world as one cohort,
for so many tokens, saved. Rows so far are written after every one. Without `--before` this checkout is measured alone.
"""

import argparse
import hashlib
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

NOW = Path(__file__).parents[1]
SHAPES = {
    "demo": (64, 96, 5, 512), "wider": (64, 192, 5, 512), "language": (64, 512, 8, 1024), "many": (64, 512, 8, 2048),
}  # fmt: skip
"""d_in, latents, active latents and rows of a batch, by name."""
KINDS = ("topk", "batchtopk", "jumprelu", "matryoshka")
AT_ONCE, WARM_UP, STEPS, BATCHES = 10, 30, 20_000, 8

# ---- in a process of its own, on either checkout: only names that both have


def steps_of(shape: Sequence[int], kind: str) -> tuple[Callable[[], None], Callable[[], str]]:
    """Return a function that makes one step of a standard SAE, and one that says what it has trained."""
    from unbraid.experiment.experiment import Training
    from unbraid.experiment.study import Study, of_methods
    from unbraid.objective.step_data import ExtraInputs
    from unbraid.sources.base import Batch
    from unbraid.sources.world.world import World
    from unbraid.studies.methods import standard
    from unbraid.training.learner import Learner

    d_in, d_sae, k, rows = shape
    source = World(factors=max(d_sae, 128), d_in=d_in, l0=float(k))
    x = source.labelled(BATCHES * rows, split="train").x
    number = torch.arange(len(x))
    batches = [Batch(*part) for part in zip(*(c.split(rows) for c in (x, number, number, number)), strict=True)]
    training = Training(tokens=STEPS * rows, batch_size=rows, lr=3e-3, dead_after=50_000)
    members = of_methods(standard(k), (kind,))
    (experiment,) = Study(source=source, d_sae=d_sae, training=training, seeds=(0,), members=members).experiments()
    learner, done = Learner(experiment, x[:4096]), [0]
    told = "logged" in inspect.signature(Learner.step).parameters

    def step() -> None:
        index = done[0]
        logged: dict[str, Any] = {"logged": index % (STEPS // 200) == 0} if told else {}
        learner.step(batches[index % BATCHES], index, ExtraInputs(source, 0, index), **logged)
        done[0] += 1

    def trained() -> str:
        parts = sorted(learner.state().items())
        return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for _, tensor in parts)).hexdigest()

    return step, trained


def floor_of(shape: Sequence[int]) -> tuple[Callable[[], None], Callable[[], str]]:
    """Return a function that makes the encoder's product and the optimiser's update alone."""
    d_in, d_sae, _, rows = shape
    x, bias = torch.randn(rows, d_in), torch.zeros(d_sae)
    parameters = [torch.randn(size, requires_grad=True) for size in ((d_sae, d_in), (d_sae, d_in), (d_sae,), (d_in,))]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    reader, codes = parameters[0].detach().t(), torch.empty(rows, d_sae)
    adam = torch.optim.AdamW(parameters, fused=True)

    def step() -> None:
        torch.addmm(bias, x, reader, out=codes)
        adam.step()

    return step, lambda: ""


def cohort_seconds(tokens: int) -> float:
    """Return the core-seconds of training the members of the demo's world as one cohort."""
    from unbraid.studies.world import demo_world
    from unbraid.training.loop import train

    study = demo_world()
    study = replace(study, seeds=(0,), training=replace(study.training, tokens=tokens))
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        train(study.experiments(), folder)
        return time.process_time() - start


def serve() -> None:
    """Answer each line of stdin, a list of JSON, with one of stdout."""
    torch.set_num_threads(1)
    found: dict[tuple[str, str], tuple[Callable[[], None], Callable[[], str]]] = {}
    for line in sys.stdin:
        what, shape, kind, count = json.loads(line)
        if what == "cohort":
            answer: float | str = cohort_seconds(count)
        else:
            if (shape, kind) not in found:
                sizes = SHAPES[shape]
                found[shape, kind] = floor_of(sizes) if kind == "floor" else steps_of(sizes, kind)
            step, trained = found[shape, kind]
            start = time.process_time()
            for _ in range(count):
                step()
            answer = (time.process_time() - start) / max(1, count) if what == "steps" else trained()
        print(f"answer {json.dumps(answer)}", flush=True)


# ---- rows


class Side:
    """A checkout in a process of its own."""

    def __init__(self, tree: Path):
        env = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: str, shape: str = "", kind: str = "", count: int = 0) -> Any:
        """Return the answer. Raises ConnectionError where the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([what, shape, kind, count]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise ConnectionError(f"the process of a checkout ended at {what} {shape} {kind}; what it wrote says why")


def rows_of(sides: Mapping[str, Side], shape: str, rounds: int) -> Iterator[dict[str, Any]]:
    """Measure a shape; yield a row for each kind of dictionary."""
    lanes = [("floor", "after"), *((kind, side) for kind in KINDS for side in sides)]
    for kind, side in lanes:
        sides[side].ask("steps", shape, kind, WARM_UP)
    seconds: dict[tuple[str, str], list[float]] = {lane: [] for lane in lanes}
    for _ in range(rounds):
        for kind, side in lanes:
            seconds[kind, side].append(sides[side].ask("steps", shape, kind, AT_ONCE))
    floor = statistics.median(seconds["floor", "after"])
    sizes = dict(zip(("d_in", "d_sae", "k", "batch"), SHAPES[shape], strict=True))
    for kind in KINDS:
        row: dict[str, Any] = {"shape": shape, "kind": kind, **sizes, "rounds": rounds, "floor_ms": ms(floor)}
        for side in sides:
            of = seconds[kind, side]
            row |= {f"{side}_ms": [ms(min(of)), ms(statistics.median(of)), ms(max(of))]}
            row[f"{side}_over_floor"] = round(statistics.median(of) / floor, 2)
        if "before" in sides:
            pairs = zip(seconds[kind, "before"], seconds[kind, "after"], strict=True)
            row["before_over_after"] = round(statistics.median(b / a for b, a in pairs), 2)
            row["equal"] = len({side.ask("trained", shape, kind) for side in sides.values()}) == 1
        yield row


def ms(seconds: float) -> float:
    """Milliseconds."""
    return round(1e3 * seconds, 3)


def main(argv: Sequence[str] | None = None) -> None:
    from unbraid.system.files import write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="another checkout of this repository")
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=0, help="of the cohort of the demo's world; 0 leaves it out")
    parser.add_argument("--out", type=Path, help="also write the rows to this JSON file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if chosen.serve:
        serve()
        return
    trees = {"before": chosen.before, "after": NOW} if chosen.before else {"after": NOW}
    sides = {side: Side(tree) for side, tree in trees.items()}
    rows: list[dict[str, Any]] = []
    for shape in chosen.shapes:
        for row in rows_of(sides, shape, chosen.rounds):
            rows.append(row)
            print(json.dumps(row), flush=True)
            if chosen.out:
                write_json(chosen.out, rows)
    if chosen.tokens:
        taken = {f"{side}_seconds": round(of.ask("cohort", count=chosen.tokens), 1) for side, of in sides.items()}
        rows.append({"shape": "cohort of the demo's world", "tokens": chosen.tokens, **taken})
        print(json.dumps(rows[-1]))
    if chosen.out:
        write_json(chosen.out, rows)


if __name__ == "__main__":
    main()
