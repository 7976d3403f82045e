"""A fit that is killed or broken off goes on where it was, bit for bit, and is not made twice (fault 17)."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.callbacks import AtFit, AtProgress
from tests.causal.test_runs import fitted
from tests.test_train import assert_equal_runs

from unbraid.experiment.experiment import Experiment
from unbraid.steering import jacobian
from unbraid.steering.base import SliceFit
from unbraid.steering.exponential_dct import ExponentialDct
from unbraid.steering.linear_dct import LinearDct
from unbraid.steering.melbo import Melbo
from unbraid.steering.quadratic_dct import QuadraticDct
from unbraid.training.interrupt import Interrupted
from unbraid.training.loop import train

FITS: dict[str, SliceFit] = {
    "melbo sequential": Melbo(steps=3),
    "melbo joint": Melbo(orthogonality="joint", steps=6),
    "melbo repelled": Melbo(orthogonality="repelled", steps=6),
    "melbo free": Melbo(orthogonality="none", steps=6, p=4.0, axis="neurons"),
    "linear full": LinearDct(),
    "linear projected": LinearDct(form="projected", rows=40),
    "linear power": LinearDct(form="power", rounds=6),
    "quadratic": QuadraticDct(rounds=5),
    "exponential kernel": ExponentialDct(steps=6),
    "exponential kernel from jacobian": ExponentialDct(steps=4, start="jacobian", rows=40),
    "exponential ogi": ExponentialDct(solver="ogi", steps=5),
    "exponential sogi": ExponentialDct(solver="sogi", steps=5, start="jacobian", rows=40),
}


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def assert_equal_fits(left: Path, right: Path) -> None:
    assert_equal_runs(left, right)
    ours, theirs = (load_file(folder / "fit.safetensors") for folder in (left, right))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def told(experiment: Experiment, root: Path, at: int = 0, then: Callable[[], object] = lambda: None) -> list[int]:
    """The steps of the fit that were made; `then` happens at the `at`-th of them."""
    seen: list[int] = []

    def fitting(name: str, done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == at:
            then()

    train([experiment], root, resume=True, checkpoint_steps=1, callbacks=[AtFit(fitting)])
    return seen


def die() -> None:
    raise Killed


@pytest.mark.parametrize("where", ["middle", pytest.param("ends", marks=pytest.mark.slow)])
@pytest.mark.parametrize("init", FITS.values(), ids=FITS)
def test_fault_17_a_fit_killed_twice_goes_on_bit_for_bit(tmp_path, monkeypatch, init, where):
    monkeypatch.setattr(jacobian, "COPIES", 4)  # a Jacobian of 16 dimensions in four parts
    made = fitted(init)
    every = told(made, tmp_path / "whole")
    for at in sorted({"middle": {len(every) // 2}, "ends": {1, 2, len(every)}}[where]):
        root = tmp_path / str(at)
        for when in (at, 1):
            with pytest.raises(Killed):
                told(made, root, when, die)
        told(made, root)
        assert_equal_fits(tmp_path / "whole" / made.folder, root / made.folder)
        assert not (root / made.folder / "checkpoints").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_fault_17_a_fit_that_is_broken_off_keeps_all_but_the_step_it_was_at(tmp_path, how):
    made = fitted(Melbo(steps=5))
    every = told(made, tmp_path / "whole")
    with pytest.raises(Interrupted, match=f"stopped in the initialisation of {made.label}; continue with --resume"):
        # The time between checkpoints is long: what is kept is kept because of the signal.
        train(
            [made], tmp_path / "cut", checkpoint_seconds=1e6,
            callbacks=[AtFit(lambda name, done, total: os.kill(os.getpid(), how) if done == 37 else None)],
        )  # fmt: skip
    assert told(made, tmp_path / "cut") == every[36:]
    assert_equal_fits(tmp_path / "whole" / made.folder, tmp_path / "cut" / made.folder)


def test_fault_17_members_whose_fit_is_done_are_not_fitted_again(tmp_path):
    first, second = (replace(fitted(Melbo(steps=3)), name=name) for name in ("first", "second"))
    trained = replace(fitted(Melbo(steps=2), tokens=1600, frozen=("W_dec",)), name="trained")
    cohort, seen = [first, trained, second], []
    train(cohort, tmp_path / "whole")

    def fitting(name: str, done: int, total: int) -> None:
        seen.append(name)
        if name == "second-l0_3" and done == 4:
            raise Killed

    with pytest.raises(Killed):
        train(cohort, tmp_path / "cut", callbacks=[AtFit(fitting)])
    seen.clear()
    with pytest.raises(Killed):
        train(cohort, tmp_path / "cut", resume=True, checkpoint_steps=1, callbacks=[AtFit(fitting)])
    assert {*seen} == {"second-l0_3"}
    seen.clear()

    def watch(tokens: int, total: int) -> None:
        if tokens == 800:
            raise Killed

    with pytest.raises(Killed):
        train(
            cohort,
            tmp_path / "cut",
            resume=True,
            checkpoint_steps=2,
            callbacks=[AtProgress(watch), AtFit(lambda *a: seen.append(a[1]))],
        )
    assert seen[0] == 4, "it goes on from the third step"
    seen.clear()
    for folder in train(cohort, tmp_path / "cut", resume=True, callbacks=[AtFit(lambda *told: seen.append(told))]):
        assert_equal_fits(tmp_path / "whole" / folder.name, folder)
    assert not seen, "training goes on, and no fit is made again"


def test_fault_17_a_damaged_checkpoint_of_a_fit_is_told_and_fitted_again(tmp_path, caplog):
    made = fitted(Melbo(steps=2))
    told(made, tmp_path / "whole")
    with pytest.raises(Killed):
        told(made, tmp_path / "cut", 5, die)
    path = tmp_path / "cut" / made.folder / "checkpoints" / "fit.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    told(made, tmp_path / "cut")
    assert_equal_fits(tmp_path / "whole" / made.folder, tmp_path / "cut" / made.folder)
    assert "fit.safetensors is damaged" in (err := caplog.text) and "starts anew" in err
