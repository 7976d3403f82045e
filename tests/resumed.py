"""Trainings that are stopped and resumed, beside the same ones never stopped."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.callbacks import AtProgress, Stopped
from tests.test_train import assert_equal_runs
from unbraid.experiment.experiment import Experiment
from unbraid.training.loop import train


def assert_resumed_equals_whole(members: Sequence[Experiment], root: Path, *, steps: int, every: int) -> list[Path]:
    """Train a cohort in one go, and again, stopped after so many steps and resumed from its last checkpoint, of one
    `every` so many: the weights are equal. The runs of the first."""
    tokens = steps * members[0].training.batch_size

    def stop(done: int, total: int) -> None:
        if done >= tokens:
            raise Stopped

    whole = train(members, root / "whole")
    with pytest.raises(Stopped):
        train(members, root / "stopped", checkpoint_steps=every, callbacks=[AtProgress(stop)])
    for left, right in zip(whole, train(members, root / "stopped", resume=True), strict=True):
        assert_equal_runs(left, right)
    return whole
