"""Folders of earlier versions: a run written before classes had public names opens, is scored and reported."""

import shutil
from pathlib import Path

import pytest

from unbraid import catalog
from unbraid.comparison.stored_scores import read_scores
from unbraid.config import old_names
from unbraid.config.old_names import upgraded, upgraded_score
from unbraid.evals.shared.evaluation import evaluate
from unbraid.report import write_report
from unbraid.runs.results import read_result
from unbraid.runs.run import Run
from unbraid.runs.run_folder import fingerprint_of
from unbraid.steering.melbo import Melbo
from unbraid.terms.causal.melbo import MelboReward

BEFORE = Path(__file__).parent / "data" / "run_before_names"
RUNS = sorted(BEFORE.iterdir())


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(run, tmp_path / run.name)) for run in RUNS]


def test_runs_written_before_names_open_as_what_they_were():
    fit, melbo, topk = (Run.open(run) for run in RUNS)
    assert isinstance(melbo.experiment.objective.penalties["melbo"], MelboReward)
    assert isinstance(fit.experiment.dictionary.init, Melbo)
    assert (topk.experiment.name, topk.experiment.requested_l0) == ("topk", 4.0)
    assert all(run.dictionary().d_sae == 64 for run in (fit, melbo, topk))


def test_their_fingerprint_is_that_of_what_is_stored():
    import json

    for run in RUNS:
        assert run.name.endswith(fingerprint_of(json.loads((run / "experiment.json").read_text())))


def test_they_are_scored(runs: list[Path]):
    assert evaluate([Run.open(run) for run in runs], [catalog.evals()["fidelity"]]) == 0
    metrics = {row["metric"] for row in read_result(runs[0] / "results" / "fidelity.json")["scores"]}
    assert {"fvu", "l0"} <= metrics


def test_they_are_reported_as_what_their_classes_say(tmp_path: Path):
    fit, melbo, topk = (run.summary for run in read_scores(RUNS).runs)
    assert (topk.method, topk.l0, topk.standard, topk.claim) == ("topk", 4.0, True, 1)
    assert (melbo.method, melbo.standard, melbo.claim) == ("melbo", False, 2)
    assert (fit.method, fit.standard, fit.claim) == ("fit", False, 2)
    rows = write_report(RUNS, tmp_path / "report.html")
    assert {"measured", "chance", "ceiling", "reference"} == set(rows["kind"])
    assert not rows["params"].str.contains("kind").any()


def test_kinds_of_scores_are_read_from_what_params_said():
    said = lambda **params: upgraded_score({"metric": "m", "value": 1.0, "params": params})
    assert (said()["kind"], said(kind="chance", k=5)) == (
        "measured", {"metric": "m", "value": 1.0, "params": {"k": 5}, "kind": "chance"},
    )  # fmt: skip
    assert said(kind="pca", fvu=0.1)["params"] == {"directions": "principal", "fvu": 0.1}
    assert said(directions="random", n=4)["kind"] == said(kind="pca")["kind"] == "reference"
    assert said(directions="latents", n=4)["kind"] == "measured"


def test_renamed_fields_are_read_for_one_class_or_for_all(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(old_names, "FIELDS", {("*", "rho"): "ratio", ("L1", "weight"): "strength"})
    data = {"type": "L1", "rho": 1, "weight": 2, "inner": [{"type": "a.b:Mine", "rho": 3, "weight": 4}]}
    assert upgraded(data) == {
        "type": "L1", "ratio": 1, "strength": 2, "inner": [{"type": "a.b:Mine", "ratio": 3, "weight": 4}],
    }  # fmt: skip


def test_todays_json_is_left_as_it_is():
    today = {"type": "Experiment", "name": "a-l0_3", "objective": {"type": "mine.terms:L1", "names": [1, None, "x"]}}
    assert upgraded(today) == today
