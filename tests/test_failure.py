"""One member of a cohort fails: the others must not notice, whatever is killed and resumed in between."""

import json
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from tests.callbacks import AtProgress
from tests.small import experiment
from tests.test_train import assert_equal_runs, mixed_cohort, train_until, weights
from unbraid.cli.main import main
from unbraid.dictionary.activations.relu import ReLU
from unbraid.experiment.experiment import Experiment
from unbraid.objective.objective import Reads, Step, Term, TermOutput
from unbraid.runs.failure import failure
from unbraid.runs.run import Run
from unbraid.runs.run_folder import finished
from unbraid.terms.independence import factor_vae
from unbraid.terms.independence.factor_vae import FactorVae
from unbraid.terms.sparsity.l1 import L1
from unbraid.training import loop as training
from unbraid.training.checkpoint import steps_saved
from unbraid.training.cohort import Failed
from unbraid.training.loop import train


@dataclass(frozen=True, kw_only=True)
class Breaks(Term):
    """NaN from a share of training on; before it, a term that draws what others draw too."""

    at: float = 0.5
    reads: ClassVar[tuple[Reads, ...]] = ("contexts",)

    def __call__(self, step: Step) -> TermOutput:
        drawn = step.contexts().acts.mean()
        return TermOutput(step.z.values.mean() + 0 * drawn * (torch.nan if step.progress >= self.at else 1.0))


def sick(at: float = 0.5, name: str = "sick") -> Experiment:
    return experiment(name, breaks=Breaks(at=at))


def cohort_with_sick() -> list[Experiment]:
    """Every kind of member, the sick one before them, so that it draws first what others read too."""
    return [sick(), *mixed_cohort()]


@pytest.fixture(scope="module")
def well(tmp_path_factory) -> list[Path]:
    """The cohort without the sick member."""
    return train(mixed_cohort(), tmp_path_factory.mktemp("well"))


def test_the_others_are_finished_as_if_the_member_that_failed_had_not_been_there(tmp_path, well):
    with pytest.raises(
        Failed, match="sick-l0_3-s0-.* stopped at step 20 for good: term 'breaks' gave nan at step 20"
    ) as got:
        train(cohort_with_sick(), tmp_path / "mixed", checkpoint_steps=8)
    assert [folder.name for folder in got.value.reasons] == [sick().folder]
    for folder in well:
        assert_equal_runs(folder, tmp_path / "mixed" / folder.name)
        left, right = (
            (root / folder.name / "metrics.jsonl").read_text() for root in (folder.parent, tmp_path / "mixed")
        )
        assert left == right and not (tmp_path / "mixed" / folder.name / "checkpoints").exists()


def test_the_member_that_failed_keeps_its_last_checkpoints_and_says_why(tmp_path):
    with pytest.raises(Failed):
        train([sick(), experiment("plain")], tmp_path, checkpoint_steps=8)
    folder = tmp_path / sick().folder
    assert sorted(steps_saved(folder)) == [8, 16] and not finished(folder)
    assert "stopped at step 20 for good: term 'breaks' gave nan" in failure(folder)
    assert "weighted_sum.py" in json.loads((folder / "failed.json").read_text())["traceback"]
    with pytest.raises(ValueError, match="stopped at step 20 for good: term 'breaks' gave nan"):
        Run.open(folder)


def test_a_member_that_failed_is_not_tried_again_but_from_the_start(tmp_path):
    cohort = [sick(), experiment("plain")]
    for _ in range(2):  # without a word from the user, too: nothing is left to continue
        with pytest.raises(Failed, match="stopped at step 20 .*\n.*--overwrite"):
            train(cohort, tmp_path, checkpoint_steps=8)
    folder = tmp_path / sick().folder
    before = (folder / "metrics.jsonl").stat().st_mtime_ns
    with pytest.raises(Failed):
        train(cohort, tmp_path, resume=True)
    assert (folder / "metrics.jsonl").stat().st_mtime_ns == before
    with pytest.raises(Failed):
        train(cohort, tmp_path, overwrite=True, checkpoint_steps=100)
    assert (folder / "metrics.jsonl").stat().st_mtime_ns != before and not steps_saved(folder)


@pytest.mark.parametrize("step", [22, 35])  # before the others' next checkpoint, and two checkpoints later
@pytest.mark.slow
def test_killed_after_a_failure_and_resumed_the_others_equal_a_run_without_it(tmp_path, well, step):
    how = signal.SIGKILL
    assert train_until(how, cohort_with_sick(), tmp_path / "killed", step=step, every=8) == -how
    starts = []
    with pytest.raises(Failed, match="sick"), pytest.MonkeyPatch.context() as patch:
        restore = training.resume_learners

        def watched(learners, *rest):
            found = restore(learners, *rest)
            starts.append((found[0], len(learners)))
            return found

        patch.setattr(training, "resume_learners", watched)
        train(cohort_with_sick(), tmp_path / "killed", resume=True)
    assert starts == [(step // 8 * 8, len(mixed_cohort()))], "the others go on from their own last checkpoint"
    for folder in well:
        assert_equal_runs(folder, tmp_path / "killed" / folder.name)


def test_no_more_activations_are_drawn_than_living_members_need(tmp_path):
    long, seen = sick(at=0.1), []
    short = replace(experiment("short"), training=replace(long.training, tokens=160 * 10))
    with pytest.raises(Failed):
        train([long, short], tmp_path, callbacks=[AtProgress(lambda tokens, total: seen.append(tokens // 160))])
    assert seen == list(range(1, 11)) and finished(tmp_path / short.folder)


def test_when_all_members_fail_training_stops_there(tmp_path):
    seen = []
    with pytest.raises(Failed) as got:
        train(
            [sick(at=0.1), sick(at=0.2, name="later")],
            tmp_path,
            callbacks=[AtProgress(lambda tokens, _: seen.append(tokens // 160))],
        )
    assert seen == list(range(1, 10)) and len(got.value.reasons) == 2


def test_a_member_that_cannot_be_saved_does_not_keep_the_others_from_it(tmp_path):
    bad = experiment("bad", sparsity=L1(), activation=ReLU())
    bad = replace(bad, training=replace(bad.training, lr=1e38, clip=1e30, tokens=160, warmup=0.0))
    good = replace(experiment("good"), training=replace(bad.training, lr=1e-3))
    with pytest.raises(Failed, match="bad-.*s0-.* stopped at step 1 for good: folding the normalisation") as got:
        train([bad, good], tmp_path)
    assert [folder.name for folder in got.value.reasons] == [bad.folder]
    assert finished(tmp_path / good.folder) and not finished(tmp_path / bad.folder)
    assert weights(tmp_path / good.folder)["W_dec"].isfinite().all()


def test_a_saturated_discriminator_stops_its_own_member_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(factor_vae, "CERTAIN", -1.0)  # anything is certain
    certain = experiment("certain", factor_vae=FactorVae(patience=3, start=0.0, every=2, block=16, rows=64))
    with pytest.raises(
        Failed, match="certain-l0_3-s0-.* stopped at step 6 .*the discriminator of factor_vae was right"
    ):
        train([certain, experiment("plain")], tmp_path)
    assert finished(tmp_path / experiment("plain").folder)


def test_atoms_that_cannot_be_factorised_stop_their_member_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(Breaks, "__call__", lambda self, step: TermOutput(torch.linalg.cholesky(-torch.eye(2)).sum()))
    with pytest.raises(Failed, match="sick-l0_3-s0-.* stopped at step 1 for good: linalg.cholesky"):
        train([sick(), experiment("plain")], tmp_path)
    assert finished(tmp_path / experiment("plain").folder)


def test_an_error_that_is_not_the_members_own_stops_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(Breaks, "__call__", lambda self, step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train([sick(), experiment("plain")], tmp_path)
    assert not failure(tmp_path / sick().folder) and not finished(tmp_path / experiment("plain").folder)


def test_the_command_line_finishes_the_others_and_ends_in_1(tmp_path, capsys, monkeypatch):
    quick = ["--training.tokens", "4096", "--training.batch-size", "256", "--d-sae", "32", "--seeds", "0",
             "--only", "relu-l0_5", "matryoshka-l0_5"]  # fmt: skip
    original = L1.__call__

    def breaking(self: L1, step: Step) -> TermOutput:
        out = original(self, step)
        return out._replace(loss=out.loss * (torch.nan if step.progress > 0.5 else 1.0))

    monkeypatch.setattr(L1, "__call__", breaking)
    assert main(["sweep", "demo_world", "--out", str(tmp_path), *quick]) == 1
    shown = capsys.readouterr()
    assert (
        "error: 1 of 2 failed\nrelu-l0_5" in shown.err and "gave nan" in shown.err and "next: unbraid eval" in shown.out
    )
    folders = sorted(map(str, tmp_path.iterdir()))
    assert main(["eval", *folders, "--evals", "fidelity"]) == 0
    assert "passed over" in (err := capsys.readouterr().err) and "for good: term" in err and "--resume" not in err
    assert main(["report", *folders, "--out", str(tmp_path / "report.html")]) == 0
    assert "for good: term" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert main(["sweep", "demo_world", "--out", str(tmp_path), *quick]) == 1, "it says so again, and trains nothing"
    assert "2 dictionaries on one stream, 1 finished already" in capsys.readouterr().out
