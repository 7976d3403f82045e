"""What `make bench` measures besides training steps: terms that look through layers, evals, and reading a model.

Each is a script of its own, with its own command line, run here in a process of one thread; its rows become rows of the
bench, with `regime`, `run`, `who` and core-seconds as those of training steps have them.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median_high
from typing import Any

from benchmarks import peers

Row = dict[str, Any]
TRAINED = {"demo_world": "batchtopk-l0_5", "demo_language": "batchtopk-l0_8"}
"""Studies, and the member whose dictionaries are scored."""
SEEDS = ("0", "1", "2")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
"""The environment of a process that is to use one thread."""


@dataclass(frozen=True)
class Part:
    """A script, what it is asked in a whole run and in a quick one, and how its rows are read."""

    module: str
    whole: tuple[str, ...]
    quick: tuple[str, ...]
    read: Callable[[Any], list[Row]]
    trains: bool = False
    """Whether it needs dictionaries, which are trained first."""


def of_slices(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return a row for the plain step, for what each term adds when it is due, for all, and for harvesting the rows."""
    rows = []
    for one in found:
        head = {"bench": one["model"], "d_sae": one["d_sae"], "batch": one["batch"], "every": one["every"]}
        whos = [name.removesuffix("_ms") for name in one if name.endswith("_ms")]
        rows += [{**head, "who": who, "cpu_seconds": one[f"{who}_ms"] / 1000} for who in whos]
    return rows


def of_evals(found: Mapping[str, Any]) -> list[Row]:
    """Return a row for each eval on the first run of a source, which pays for what all share, and on later ones."""
    return [
        {
            "bench": row["source"],
            "d_sae": row["d_sae"],
            "who": row["eval"],
            "place": row["run"],
            "cpu_seconds": mean(row["after"]),
        }
        for row in found["rows"]
        if row["after"]  # where one dictionary is scored, there is no later one
    ]


def of_harvest(found: Mapping[str, Any]) -> list[Row]:
    """Return a row for each way of reading, by precision."""
    return [
        {
            "bench": row["dtype"],
            "who": row["arm"],
            "tokens_per_second": median_high(row["tokens_a_core_second"]),
        }
        for row in found["rows"]
    ]


PARTS = {
    "slice": Part("slice_cost", (), ("--only", "embedded", "--d-sae", "512", "--batch", "512"), of_slices),
    "harvest": Part("harvest", (), ("--rounds", "1", "--block", "2048"), of_harvest),
    "evals": Part("eval_cost", ("--most", "3"), ("--most", "1", "--evals", "fidelity", "recovery"), of_evals, True),
}


def measure(name: str, folder: Path, *, quick: bool) -> list[Row]:
    """Return the rows of a part. `folder`: where trained dictionaries are kept. Raises SystemExit where it fails."""
    part = PARTS[name]
    asked = list(part.quick if quick else part.whole)
    if part.trains:
        asked = [*(str(trained(study, folder, quick=quick)) for study in TRAINED), *asked]
    with tempfile.TemporaryDirectory() as made:
        out = Path(made) / "rows.json"
        run_alone([f"benchmarks.{part.module}", *asked, "--out", str(out)])
        return [{"regime": name, **row} for row in part.read(json.loads(out.read_text()))]


def trained(study: str, folder: Path, *, quick: bool) -> Path:
    """Train the dictionaries of a study that are to be scored, but those that are there, and return their folder."""
    out = folder / study
    which = [study, "--only", TRAINED[study], "--seeds", *SEEDS]
    settings = ["--training.tokens", "20000"] if quick else []
    run_alone(["unbraid", "train", *which, *settings, "--out", str(out), "--resume"])
    return out


def run_alone(command: Sequence[str]) -> None:
    """Run a module with its arguments, on one thread. Raises SystemExit where it fails."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=peers.ROOT, env={**os.environ, **ONE_THREAD})
    if done.returncode:
        raise SystemExit(f"python -m {' '.join(command)} failed (exit {done.returncode}); what it says is above")
