"""Callbacks: what they are called with, one that breaks, and the adapters to trackers (with fakes in their place)."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.callbacks import AtProgress, Stopped
from tests.small import experiment
from tests.test_failure import sick
from unbraid.experiment.experiment import Experiment
from unbraid.training.callbacks import Callback, Callbacks, Progress, TensorBoard, Trackio, WandB
from unbraid.training.cohort import Failed
from unbraid.training.loop import train


class Recorder(Callback):
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_start(self, experiments, steps):
        self.calls.append(("start", [e.name for e in experiments], steps))

    def on_step(self, experiment, step, tokens, metrics):
        self.calls.append(("step", experiment.name, step, tokens, dict(metrics)))

    def on_progress(self, done_tokens, total_tokens):
        self.calls.append(("progress", done_tokens, total_tokens))

    def on_end(self, experiment, folder):
        self.calls.append(("end", experiment.name, folder))

    def on_failure(self, experiment, reason):
        self.calls.append(("failure", experiment.name, reason))

    def on_close(self):
        self.calls.append(("close",))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] == kind]


def short(name: str = "short", **training: Any) -> Experiment:
    base = experiment(name, tokens=1600)
    return replace(base, training=replace(base.training, **training))


def test_callbacks_get_what_is_logged_and_the_end(tmp_path: Path):
    seen = Recorder()
    (folder,) = train([short()], tmp_path, callbacks=[seen])
    assert seen.calls[0] == ("start", ["short"], 10) and seen.calls[-2:] == [("end", "short", folder), ("close",)]
    assert seen.of("progress") == [("progress", 160 * n, 1600) for n in range(1, 11)]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row, (_, name, step, tokens, metrics) in zip(rows, seen.of("step"), strict=True):
        assert (name, step, tokens) == ("short", row["step"], row["tokens"])
        assert metrics == {key: row[key] for key in row.keys() - {"step", "tokens", "filtered"}}


def test_a_finished_run_calls_nothing(tmp_path: Path):
    train([short()], tmp_path)
    seen = Recorder()
    train([short()], tmp_path, callbacks=[seen])
    assert not seen.calls


def test_a_member_that_fails_is_told_of_and_the_others_end(tmp_path: Path):
    seen = Recorder()
    with pytest.raises(Failed):
        train([sick(at=0.1), short()], tmp_path, callbacks=[seen])
    ((_, name, reason),) = seen.of("failure")
    assert name == "sick" and "term 'breaks' gave nan" in reason
    assert [call[1] for call in seen.of("end")] == ["short"] and seen.calls[-1] == ("close",)


def test_a_callback_that_raises_is_switched_off_and_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    class Broken(Callback):
        def on_step(self, experiment, step, tokens, metrics):
            raise ConnectionError("no route to the tracker")

    seen = Recorder()
    train([short()], tmp_path, callbacks=[Broken(), seen])
    assert len(seen.of("step")) == 10
    told = "Broken raised ConnectionError in on_step and is switched off; training goes on without it: no route"
    assert caplog.text.count(told) == 1


def test_training_that_is_interrupted_closes_callbacks(tmp_path: Path):
    def stop(done: int, total: int) -> None:
        raise Stopped

    seen = Recorder()
    with pytest.raises(Stopped):
        train([short()], tmp_path, callbacks=[seen, AtProgress(stop)])
    assert seen.calls[-1] == ("close",) and not seen.of("end")


def test_one_callback_needs_no_list(tmp_path: Path):
    seen = Recorder()
    train([short()], tmp_path, callbacks=seen)
    assert seen.of("close")


@pytest.mark.parametrize("given", [[Recorder], ["wandb"], "wandb", print])
def test_what_is_no_callback_is_refused(given: object):
    with pytest.raises(ValueError, match=r"is no callback; give objects of subclasses of Callback: \[Progress\(\)\]"):
        Callbacks(given)


def test_progress_prints_nothing_fast_and_takes_several_trainings(tmp_path: Path, capsys, caplog):
    progress = Progress()
    for name in ("one", "two"):
        train([short(name)], tmp_path, callbacks=[progress])
    assert "training" not in capsys.readouterr().out, "no terminal, and no half minute"
    assert not caplog.text


class FakeRun:
    """A run as trackio and wandb have it."""

    def __init__(self, **given: Any):
        self.given, self.rows, self.closed = given, [], False

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert not self.closed
        self.rows.append((step, metrics))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.log({name: value}, step)

    def finish(self) -> None:
        self.closed = True

    close = finish


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Any) -> None:
    module = ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(("name", "adapter"), [("trackio", Trackio), ("wandb", WandB)])
def test_trackers_get_a_run_for_every_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, adapter):
    runs: list[FakeRun] = []
    fake(monkeypatch, name, init=lambda **given: runs.append(FakeRun(**given)) or runs[-1])
    members = [short("one"), short("two")]
    train(members, tmp_path, callbacks=[adapter("sparse", entity="me")])
    assert [run.given["name"] for run in runs] == [member.folder for member in members]
    for run in runs:
        assert run.given["project"] == "sparse" and run.given["entity"] == "me" and run.closed
        assert run.given["config"]["training"]["tokens"] == 1600
        assert [step for step, _ in run.rows] == list(range(10)) and run.rows[-1][1]["tokens"] == 1600
        assert run.rows[-1][1]["losses/reconstruction"] > 0


def test_tensorboard_gets_a_folder_for_every_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs: list[FakeRun] = []
    fake(monkeypatch, "tensorboard")
    writer = lambda folder: runs.append(FakeRun(folder=folder)) or runs[-1]
    fake(monkeypatch, "torch.utils.tensorboard", SummaryWriter=writer)
    train([short()], tmp_path / "runs", callbacks=[TensorBoard(tmp_path / "board")])
    (run,) = runs
    assert run.given["folder"] == str(tmp_path / "board" / short().folder) and run.closed
    assert (9, {"tokens": 1600}) in run.rows and {"metrics/l0"} <= {name for _, row in run.rows for name in row}


@pytest.mark.parametrize(
    ("make", "name"),
    [(lambda: Trackio("p"), "trackio"), (lambda: WandB("p"), "wandb"), (lambda: TensorBoard("t"), "tensorboard")],
)
def test_a_tracker_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch, make, name: str):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ImportError, match=rf"{name} is not installed; install it with: pip install 'unbraid\[{name}\]'"
    ):
        make()


def test_a_tracker_that_cannot_start_does_not_stop_training(tmp_path: Path, monkeypatch, caplog):
    def init(**given: Any) -> SimpleNamespace:
        raise RuntimeError("not logged in")

    fake(monkeypatch, "wandb", init=init)
    (folder,) = train([short()], tmp_path, callbacks=[WandB("sparse")])
    assert (folder / "provenance.json").is_file() and "WandB raised RuntimeError in on_start" in caplog.text
