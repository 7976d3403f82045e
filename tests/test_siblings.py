"""Runs beside a run: read once for all who ask, and one for each width (faults 10 and 27)."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.small import experiment, seeded
from tests.spoiled import unsealed
from unbraid import catalog
from unbraid.dictionary.config import DictionaryConfig
from unbraid.evals import agreement
from unbraid.evals.shared.evaluation import Eval, evaluate
from unbraid.runs import siblings
from unbraid.runs.run import Run
from unbraid.runs.siblings import alike, left_out, read_once
from unbraid.runs.widths import other_widths, width
from unbraid.training.loop import train

SEEDS = 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    base = experiment(tokens=320)
    wide = replace(base, name="wide", dictionary=DictionaryConfig(d_sae=128, activation=base.dictionary.activation))
    renamed = replace(base, name="renamed")
    cohort = [*(seeded(base, seed) for seed in range(SEEDS)), wide, renamed]
    return train(cohort, tmp_path_factory.mktemp("runs"))


def test_runs_are_found_by_what_they_may_differ_in(folders: list[Path]):
    run = Run.open(folders[0])
    assert {other.path for other in alike(run, "seed")} == {*folders[1:SEEDS]}
    assert {other.path for other in alike(run, "name")} == {folders[-1]}
    assert {other.path for other in alike(run, "name", "dictionary.d_sae")} == {*folders[SEEDS:]}
    assert alike(run) == []


def test_one_run_stands_for_each_other_width(folders: list[Path]):
    """A rerun under another name at the same width is no other width."""
    assert [width(other) for other in other_widths(Run.open(folders[0]))] == [128]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The runs that are opened as siblings."""
    real, seen = Run.open, list[Path]()

    def counting(path: Path, *args) -> Run:
        seen.append(path)
        return real(path, *args)

    monkeypatch.setattr(siblings.Run, "open", counting)
    return seen


def test_fault_27_a_folder_is_read_once_however_many_runs_ask(folders: list[Path], opened: list[Path]):
    runs = [Run.open(folder) for folder in folders]
    opened.clear()
    asked = Eval("asked", 1, {}, lambda run, peers: [], lambda run: alike(run, "seed"))
    assert evaluate(runs, [asked, replace(asked, name="again")]) == 0
    assert sorted(opened) == sorted(folders), "each once, not once a run and eval"


def test_outside_of_a_reading_what_lies_beside_is_read_anew(folders: list[Path], tmp_path: Path):
    first, second = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in folders[:2])
    run = Run.open(first)
    with read_once():
        assert len(alike(run, "seed")) == 1
        shutil.rmtree(second)
        assert len(alike(run, "seed")) == 1
    assert alike(run, "seed") == []


def test_fault_10_runs_beside_that_cannot_be_read_have_a_reason(folders: list[Path], tmp_path: Path):
    paths = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in folders[:4]]
    (paths[1] / "experiment.json").write_text("[]")
    (unsealed(paths[2]) / "cfg.json").unlink()
    (paths[3] / "provenance.json").unlink()  # unfinished: no run yet, and no fault
    run = Run.open(paths[0])
    assert alike(run, "seed") == []
    assert {name: "experiment.json" in reason or "cfg.json" in reason for name, reason in left_out(run).items()} == {
        paths[1].name: True, paths[2].name: True,
    }  # fmt: skip


def test_fault_27_agreement_compares_with_the_next_seeds_round(folders: list[Path], monkeypatch):
    monkeypatch.setattr(agreement, "MOST", 2)
    seeds = [[other.experiment.seed for other in agreement.peers(Run.open(folder))] for folder in folders[:SEEDS]]
    assert seeds == [[1, 2], [2, 3], [3, 0], [0, 1]]
    assert "agreement" in catalog.evals()
