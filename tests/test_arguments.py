"""Arguments that cannot be are refused in one line before anything is written: on the command line and in Python."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.small import WORLD, experiment
from unbraid.cli.main import main
from unbraid.runs.run import Run
from unbraid.sources.cached import write_cache
from unbraid.sources.stream import Stream
from unbraid.steering.steer import steer
from unbraid.training.loop import train

FLAGS: list[tuple[str, str]] = [
    ("--training.batch-size", "-5"),
    ("--training.batch-size", "0"),
    ("--training.tokens", "-1"),
    ("--training.warmup", "2"),
    ("--training.warmup", "0.9"),
    ("--training.decay", "-1"),
    ("--training.clip", "0"),
    ("--training.dead-after", "-1"),
    ("--training.threshold-lr", "-1"),
    ("--training.lr", "nan"),
    ("--training.betas", "1 2"),
    ("--training.device", "gpu0"),
    ("--seed", "-1"),
    ("--name", "Not a folder"),
    ("--dictionary.d-sae", "0"),
    ("--dictionary.activation.k", "0"),
    ("--dictionary.min-cosine-to-init", "1"),
    ("--objective.ramp", "7"),
    ("--objective.penalties.aux-k.every", "0"),
    ("--source.noise", "-1"),
    ("--source.child-given-parent", "0.8 0.2"),
    ("--threads", "-1"),
    ("--threads", "100000"),
    ("--checkpoint-seconds", "nan"),
    ("--checkpoint-seconds", "-1"),
]


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a command that ends with code 2, in one line."""
    try:
        code = main(command)
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr().err.strip()
    assert code == 2 and said.startswith("error: ") and len(said.splitlines()) == 1, said
    return said


@pytest.mark.parametrize(("flag", "value"), FLAGS, ids=lambda text: text)
def test_fault_04_flags_that_cannot_be_end_in_one_line_and_leave_no_run(
    flag: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    refused(["train", "world", flag, *value.split(), "--out", str(tmp_path / "runs")], capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ["steer", "run", "--latent", "-1", "--prompt", "a"],
        ["steer", "run", "--latent", "0", "--prompt", "a", "--tokens", "-1"],
        ["steer", "run", "--latent", "0", "--prompt", "a", "--top", "0"],
        ["steer", "run", "--latent", "0", "--prompt", "a", "--scale", "nan"],
        ["import", "sae", "world", "--seed", "-1"],
        ["eval", "run", "--suite", "saebench", "--limit-minutes", "-1"],
        ["eval", "run", "--suite", "saebench", "--device", "gpu0"],
        ["eval", "run", "--threads", "2.5"],
    ],
    ids=" ".join,
)
def test_fault_23_arguments_of_commands_that_cannot_be_are_named(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "it must be" in refused(command, capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("asked", [{"checkpoint_seconds": v} for v in (math.nan, -1.0)] + [{"checkpoint_steps": -1}])
def test_fault_04_checkpoints_at_no_time_are_refused(asked: dict[str, Any], tmp_path: Path):
    with pytest.raises(ValueError, match=f"{next(iter(asked))} is .* it must be"):
        train([experiment()], tmp_path, **asked)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("asked", [{"tokens": -1}, {"tokens": 0}, {"top": 0}, {"top": -3}], ids=str)
def test_fault_04_steering_by_no_tokens_is_refused(asked: dict[str, Any], tmp_path: Path):
    with pytest.raises(ValueError, match=f"{next(iter(asked))} is .* it must be at least 1"):
        steer(Run(tmp_path), 0, "a prompt", **asked)


@pytest.mark.parametrize(
    "asked",
    [{"tokens": -1}, {"tokens": 0}, {"blocks": -2}, {"tokens": math.nan}, {"seed": -1}, {"splits": ()}],
    ids=str,
)
def test_fault_04_a_cache_of_nothing_is_refused(asked: dict[str, Any], tmp_path: Path):
    with pytest.raises(ValueError, match=f"{next(iter(asked))} is .* it must be"):
        write_cache(WORLD, tmp_path / "cache", **{"seed": 0, "blocks": 1, **asked})
    assert not list(tmp_path.iterdir())


def test_batches_of_no_rows_are_refused():
    with pytest.raises(ValueError, match="batch_size is -5; it must be at least 1"):
        Stream(WORLD, -5, seed=0)


OUTSIDE_OF_TESTS = """
from dataclasses import replace
from pathlib import Path
from tests.small import WORLD, experiment
from unbraid.sources.cached import write_cache
from unbraid.experiment.grid import cross
from unbraid.training.loop import train

base, there = experiment(), Path("there")
for ask in (
    lambda: cross(base, {"training.tokens": [True]}), lambda: cross(base, {"seed": ["one"]}),
    lambda: cross(base, {"seed": 3}), lambda: cross(base, {"training": [{}]}), lambda: cross(base, {"source": [None]}),
    lambda: cross(base, {"dictionary.activation.k": [2.0]}), lambda: replace(base.training, tokens="6400"),
    lambda: replace(base, training=None), lambda: replace(base, objective={}), lambda: train([base], there,
    checkpoint_seconds="soon"), lambda: train([base], there, checkpoint_steps=1.5),
    lambda: write_cache(WORLD, there, seed="0", blocks=1), lambda: write_cache(WORLD, there, seed=0, blocks=True),
):
    try:
        ask()
    except ValueError as error:
        print(error)
    else:
        raise SystemExit("taken")
raise SystemExit(there.exists())
"""


def test_fault_23_values_of_the_wrong_type_are_refused_where_nothing_else_looks_at_types(tmp_path: Path):
    """In a process of its own: within tests, jaxtyping would look first."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDE_OF_TESTS],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 13
