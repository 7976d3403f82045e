"""Held-out scores while training: their values, when they are measured, and that training does not notice them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.small import WORLD, experiment
from tests.test_train import assert_equal_runs, train_until
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.normaliser import Normaliser
from unbraid.experiment.experiment import Experiment, Training
from unbraid.runs.run import Run
from unbraid.sources.base import NoHeldOut
from unbraid.sources.cached import Cached, write_cache
from unbraid.terms.sparsity.l1 import L1
from unbraid.training.held_out_scores import HeldOutScores
from unbraid.training.loop import train
from unbraid.training.schedule import passes_multiple

NAMES = {"heldout/fvu", "heldout/l0", "heldout/dead"}


def scored(name: str = "scored", every: int = 1600, **settings) -> Experiment:
    base = experiment(name, **settings)
    return replace(base, training=replace(base.training, score_every=every))


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_scores_are_logged_every_so_many_tokens(tmp_path: Path):
    (folder,) = train([scored()], tmp_path)
    rows = {row["tokens"]: row for row in log(folder) if row.keys() & NAMES}
    assert list(rows) == [1600, 3200, 4800, 6400]
    assert all(rows[6400].keys() >= NAMES for _ in rows)
    assert rows[6400]["heldout/fvu"] < rows[1600]["heldout/fvu"] < 1
    assert rows[6400]["heldout/l0"] == pytest.approx(3, rel=0.2) and 0 <= rows[6400]["heldout/dead"] < 1


def test_the_last_scores_are_those_of_the_run_that_is_saved(tmp_path: Path):
    (folder,) = train([scored(activation=TopK(3))], tmp_path)
    x, dictionary = WORLD.held_out_sample(4096), Run.open(folder).dictionary()
    with torch.no_grad():
        error = (dictionary(x) - x).square().sum() / (x - x.mean(0)).square().sum()
        active = (dictionary.encode(x) > 0).float()
    last = log(folder)[-1]
    assert last["heldout/fvu"] == pytest.approx(float(error), rel=1e-4)
    assert last["heldout/l0"] == pytest.approx(float(active.sum(1).mean()), rel=1e-4)
    assert last["heldout/dead"] == pytest.approx(float((active.sum(0) == 0).float().mean()), abs=1e-6)


@pytest.mark.parametrize("activation", [BatchTopK(3), TopK(3), JumpReLU(), ReLU()])
def test_training_is_the_same_with_and_without_scores(tmp_path: Path, activation):
    base = scored(activation=activation, every=0, sparsity=L1(weight=0.01), tokens=3200)
    (without,) = train([base], tmp_path)
    (folder,) = train([replace(base, training=replace(base.training, score_every=320))], tmp_path)
    assert_equal_runs(without, folder)
    plain = lambda rows: [{key: row[key] for key in row.keys() - NAMES} for row in rows]
    assert plain(log(folder)) == log(without) and not any(row.keys() & NAMES for row in log(without))


def test_a_killed_run_that_is_resumed_logs_the_same_scores(tmp_path: Path):
    import signal

    (whole,) = train([scored()], tmp_path / "whole")
    assert train_until(signal.SIGKILL, [scored()], tmp_path / "cut", step=23, every=8) == -signal.SIGKILL
    (folder,) = train([scored()], tmp_path / "cut", resume=True)
    assert_equal_runs(whole, folder)
    assert log(whole) == log(folder)


def test_a_source_without_held_out_rows_is_trained_without_scores(tmp_path: Path):
    write_cache(WORLD, tmp_path / "cache", blocks=10, splits=["train"], seed=0)
    source = Cached(folder=str(tmp_path / "cache"))
    (folder,) = train([replace(scored(), source=source)], tmp_path / "runs")
    assert not any(row.keys() & NAMES for row in log(folder))


def test_rows_are_read_once_and_only_when_scores_are_due(monkeypatch: pytest.MonkeyPatch):
    reads: list[int] = []
    read = type(WORLD).held_out_sample
    monkeypatch.setattr(type(WORLD), "held_out_sample", lambda self, n: reads.append(n) or read(self, n))
    block = WORLD.block(0, split="train", seed=0)
    assert block is not None
    scores = HeldOutScores(WORLD, block.rows.x, "cpu")
    assert not reads
    dictionary = experiment().dictionary.build(block.rows.x, seed=0)
    identity = Normaliser(torch.zeros(16), torch.ones(()))
    assert scores(dictionary, identity).keys() == scores(dictionary, identity).keys() == NAMES
    assert reads == [4096]


def test_scores_are_due_once_a_multiple_is_passed():
    training = Training(batch_size=160, score_every=400)
    assert [index for index in range(10) if passes_multiple(training, training.score_every, index)] == [2, 4, 7, 9]
    assert not any(passes_multiple(training, 0, index) for index in range(10))
    assert all(passes_multiple(training, 1, index) for index in range(10)), "never more than once a step"


def test_no_held_out_rows_are_an_error_of_their_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(type(WORLD), "block", lambda self, index, *, split, seed: None)
    with pytest.raises(NoHeldOut, match="no eval data"):
        WORLD.held_out_sample(10)
