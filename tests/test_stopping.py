"""Asked to stop, everything says so at once, stops soon, and goes on bit for bit (fault 17)."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.small import experiment, seeded
from tests.test_train import assert_equal_runs
from unbraid.cli import train as commands
from unbraid.cli.main import main
from unbraid.evals.shared import evaluation
from unbraid.experiment.experiment import Experiment
from unbraid.objective.objective import Step, Term, TermOutput
from unbraid.sources.world.world import World
from unbraid.system.stopping import StopRequest, stopping
from unbraid.training import loop as training
from unbraid.training import saving
from unbraid.training.checkpoint import steps_saved
from unbraid.training.interrupt import Interrupted
from unbraid.training.loop import train

ASKED: dict[float, Callable[[], object]] = {}
"""What one member does when so much of training is over."""


@dataclass(frozen=True, kw_only=True)
class Asks(Term):
    """Nothing, but what is to happen at a step of this member."""

    mine: bool = False

    def __call__(self, step: Step) -> TermOutput:
        if self.mine and step.progress in ASKED:
            ASKED[step.progress]()
        return TermOutput(0 * step.z.values.mean())


def cohort(who: int = 1) -> list[Experiment]:
    return [seeded(experiment(f"m{n}", asks=Asks(mine=n == who)), n) for n in range(4)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[Path]:
    """A cohort whose members do nothing but train: what all others must equal."""
    return train(cohort(-1), tmp_path_factory.mktemp("whole"))


def signal_once(number: signal.Signals) -> Callable[[], object]:
    def send() -> None:
        ASKED.clear()
        os.kill(os.getpid(), number)

    return send


OTHERS = (signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("who", [0, 1, 3])
@pytest.mark.parametrize("number", [signal.SIGINT, *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)])
def test_fault_17_a_cohort_stops_between_two_members_and_goes_on_bit_for_bit(tmp_path, whole, capfd, who, number):
    members = cohort(who)
    ASKED[0.5] = signal_once(number)
    with pytest.raises(Interrupted, match="stopped at step 21 of 40; continue with --resume"):
        train(members, tmp_path / "cut")
    assert "stopping after this step …" in capfd.readouterr().err
    saved = [steps_saved(tmp_path / "cut" / member.folder) for member in members]
    assert saved == [[21] if n <= who else [20] for n in range(4)], "those after it were not waited for"
    for left, right in zip(whole, train(members, tmp_path / "cut", resume=True), strict=True):
        assert_equal_runs(left, right)
        assert (left / "metrics.jsonl").read_bytes() == (right / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_fault_17_stopped_again_and_again_nothing_is_lost(tmp_path, whole, every):
    members = cohort(1)
    for at in range(1, 36, every):
        ASKED[at / 40] = signal_once(signal.SIGTERM)
        with pytest.raises(Interrupted, match=f"stopped at step {at + 1} of 40"):
            train(members, tmp_path / "cut", resume=True)
    for left, right in zip(whole, train(members, tmp_path / "cut", resume=True), strict=True):
        assert_equal_runs(left, right)


def test_fault_17_asked_while_activations_are_read_it_does_not_wait_for_them(tmp_path, monkeypatch, capfd):
    members = [seeded(experiment("plain"), n) for n in range(2)]
    whole = train(members, tmp_path / "whole")
    real, blocks = World.block, []

    def block(self, index, *, split, seed):
        blocks.append(index)
        if index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            blocks.append("not reached")
        return real(self, index, split=split, seed=seed)

    monkeypatch.setattr(World, "block", block)
    with pytest.raises(Interrupted, match=r"stopped at step \d+ of 40; continue"):
        train(members, tmp_path / "cut")
    assert "not reached" not in blocks
    monkeypatch.undo()
    steps = [steps_saved(tmp_path / "cut" / member.folder) for member in members]
    assert steps[0] == steps[1] and len(steps[0]) == 1
    for left, right in zip(whole, train(members, tmp_path / "cut", resume=True), strict=True):
        assert_equal_runs(left, right)


def test_asked_before_the_first_step_it_stops_there(tmp_path, monkeypatch):
    def sample(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not reached")

    monkeypatch.setattr(training, "fitting_sample", sample)
    with pytest.raises(Interrupted, match="stopped; continue with --resume"):
        train([experiment()], tmp_path)


def test_asked_while_runs_are_saved_it_saves_them_first(tmp_path, monkeypatch, capfd):
    real = saving.save_run

    def save(*given):
        if not list(tmp_path.glob("*/provenance.json")):
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*given)

    monkeypatch.setattr(saving, "save_run", save)
    with pytest.raises(Interrupted, match="what was trained is saved"):
        train([seeded(experiment(), n) for n in range(2)], tmp_path)
    assert len(list(tmp_path.glob("*/provenance.json"))) == 2 and "stopping once" in capfd.readouterr().err


def test_asked_twice_it_ends_anywhere():
    stop = StopRequest()
    with pytest.raises(KeyboardInterrupt), stop.gently("stopping"):
        stop.ask(signal.SIGINT, None)
        stop.ask(signal.SIGTERM, None)  # the same request, as a terminal and a parent both make it
        stop._when -= 10
        stop.ask(signal.SIGINT, None)


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_fault_17_evals_stop_at_once_with_130_and_one_sentence(tmp_path, monkeypatch, capsys, number):
    (run,) = train([experiment()], tmp_path)

    def score(run, item):
        os.kill(os.getpid(), number)
        raise AssertionError("not reached")

    monkeypatch.setattr(evaluation, "score", score)
    assert main(["eval", str(run), "--evals", "fidelity"]) == 130
    said = capsys.readouterr().err
    assert said == "stopped; results that were finished are kept, run it again for the others\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["plan", "world"], "stopped"),
        (["train", "world", "--out", "OUT"], "stopped; continue with --resume"),
        (["cache", "world", "--to", "OUT"], "stopped; shards that were finished are kept, run it again for the others"),
    ],
)
def test_fault_17_reading_activations_stops_at_once_with_130_and_one_sentence(
    tmp_path, monkeypatch, capsys, command, said
):
    def block(self, index, *, split, seed):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not reached")

    monkeypatch.setattr(World, "block", block)
    assert main([word.replace("OUT", str(tmp_path / "out")) for word in command]) == 130
    assert capsys.readouterr().err == f"{said}\n"


def test_fault_17_the_command_line_ends_in_130_and_trains_no_further_cohort(tmp_path, monkeypatch, capfd):
    begun: list[int] = []

    def stopped(cohort, *given, **settings):
        begun.append(len(cohort))
        raise Interrupted("stopped at step 1 of 2")

    monkeypatch.setattr(commands, "train", stopped)
    assert main(["sweep", "world", "--cross", "training.data_seed=0,1", "--out", str(tmp_path)]) == 130
    assert begun == [1] and capfd.readouterr().err == "stopped at step 1 of 2; continue with --resume\n"
