"""Each run and eval fails alone: it is named with its reason and counted, and the others go on (fault 10)."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.small import experiment, seeded
from tests.spoiled import edit_json, resealed, unsealed
from unbraid import catalog
from unbraid.cli.main import main
from unbraid.evals.shared.evaluation import Eval, NotApplicable, Score, evaluate
from unbraid.runs.results import check_files
from unbraid.runs.run import Run
from unbraid.training.loop import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return train([experiment(), seeded(experiment(), 1), seeded(experiment(), 2)], tmp_path_factory.mktemp("runs"))


@pytest.fixture
def runs(trained: list[Path], tmp_path: Path) -> list[Path]:
    """Copies that a test may spoil."""
    return [Path(shutil.copytree(folder, tmp_path / "runs" / folder.name)) for folder in trained]


def of(function) -> Eval:
    return Eval("made_up", 1, {}, function)


def result(run: Path, name: str = "made_up") -> dict:
    return json.loads((run / "results" / f"{name}.json").read_text())


def fails_on(number: int, error: BaseException):
    def score(run: Run) -> list[Score]:
        if run.experiment.seed == number:
            raise error
        return [Score(metric="one", value=1.0, better="higher")]

    return score


class Panic(BaseException):
    """As libraries written in Rust raise."""


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("division by zero"), KeyError("x"), ImportError("no module"), AssertionError(), IndexError("9"),
     MemoryError(), RecursionError("deep"), AttributeError("a"), TypeError("t"), StopIteration(), Panic("panicked")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_fault_10_whatever_an_eval_raises_is_its_own_failure(error: BaseException, runs: list[Path]):
    opened, said = [Run.open(run) for run in runs], list[str]()
    assert evaluate(opened, [of(fails_on(1, error))], on_result=lambda run, item, status: said.append(status)) == 1
    assert [status.startswith(type(error).__name__) for status in said] == [False, True, False]
    stored = result(runs[1])
    assert stored["error"].startswith(type(error).__name__) and "in score" in stored["traceback"][-1]
    assert "scores" in result(runs[0]) and "scores" in result(runs[2])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_who_asks_to_stop_is_obeyed(error: BaseException, runs: list[Path]):
    with pytest.raises(type(error)):
        evaluate([Run.open(run) for run in runs], [of(fails_on(0, error))])


def test_fault_10_scores_of_another_shape_are_that_evals_failure(runs: list[Path]):
    assert evaluate([Run.open(runs[0])], [of(lambda run: ["no score"])]) == 1
    assert "Error" in result(runs[0])["error"]


def test_an_eval_that_does_not_apply_is_no_failure(runs: list[Path]):
    assert evaluate([Run.open(runs[0])], [of(fails_on(0, NotApplicable("not here")))]) == 0
    assert result(runs[0])["not_applicable"] == "not here"


@pytest.mark.parametrize("content", ["", '{"eval": "fide', "[]", '{"scores": 3}', '{"eval": "recovery", "scores": []}'])
def test_fault_10_a_damaged_result_is_made_again_with_a_notice(content: str, runs: list[Path]):
    fidelity, said = [catalog.evals()["fidelity"]], list[str]()
    opened = [Run.open(runs[0])]
    evaluate(opened, fidelity)
    path = runs[0] / "results" / "fidelity.json"
    before = json.loads(path.read_text())["scores"]
    path.write_text(content)
    assert evaluate(opened, fidelity, on_result=lambda run, item, status: said.append(status)) == 0
    assert "made again" in said[0] and "fidelity.json" in said[0] and "delete" not in said[0]
    assert json.loads(path.read_text())["scores"] == before
    evaluate(opened, fidelity, on_result=lambda run, item, status: said.append(status))
    assert said[1] == "kept"


def test_a_changed_score_is_made_again(runs: list[Path]):
    opened, said = [Run.open(runs[0])], list[str]()
    evaluate(opened, [catalog.evals()["fidelity"]])
    path = runs[0] / "results" / "fidelity.json"
    scores = json.loads(path.read_text())["scores"]
    edit_json(path, scores=[{**scores[0], "value": 0.5}, *scores[1:]])
    evaluate(opened, [catalog.evals()["fidelity"]], on_result=lambda run, item, status: said.append(status))
    assert "was changed after it was written" in said[0] and json.loads(path.read_text())["scores"] == scores


def test_scores_of_other_weights_are_made_again(runs: list[Path]):
    said = list[str]()
    evaluate([Run.open(runs[0])], [catalog.evals()["fidelity"]])
    (runs[1] / "results").mkdir()
    shutil.copy(runs[0] / "results" / "fidelity.json", runs[1] / "results")
    evaluate([Run.open(runs[1])], [catalog.evals()["fidelity"]], on_result=lambda run, item, how: said.append(how))
    assert "scored other weights" in said[0]


def damage(run: Path) -> Path:
    weights = run / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    return run


def test_fault_10_eval_of_good_and_damaged_scores_the_good_and_counts(runs: list[Path], capsys):
    (runs[1] / "experiment.json").write_text("{")
    asked = ["eval", *map(str, runs), "--evals", "fidelity", "splitting"]
    assert main(asked) == 1
    said = capsys.readouterr().err
    assert runs[1].name in said and "experiment.json" in said and "2 of 6 failed" in said
    assert "scores" in result(runs[0], "fidelity") and "scores" in result(runs[2], "fidelity")


def test_fault_03_damaged_weights_are_an_error_of_every_eval(runs: list[Path], capsys):
    damage(runs[0])
    assert main(["eval", *map(str, runs[:2]), "--evals", "fidelity"]) == 1
    assert "sae_weights.safetensors is not the file that was saved" in result(runs[0], "fidelity")["error"]
    assert "1 of 2 failed" in capsys.readouterr().err and "scores" in result(runs[1], "fidelity")


def of_another_version(run: Path) -> Path:
    edit_json(run / "experiment.json", sparsity_coefficient=1.0)
    edit_json(run / "cfg.json", metadata={})
    return resealed(run)


@pytest.mark.parametrize("spoil", [of_another_version, damage])
def test_fault_10_a_sibling_that_cannot_be_read_is_left_out_and_named(spoil, runs: list[Path], capsys):
    spoil(runs[1])
    assert main(["eval", str(runs[0]), "--evals", "agreement"]) == 0
    stored = result(runs[0], "agreement")
    assert "scores" in stored and runs[1].name in (capsys.readouterr().err + json.dumps(stored.get("left_out", {})))
    again = ["eval", str(runs[0]), "--evals", "agreement"]
    assert main(again) == 0 and "kept" in capsys.readouterr().out


def test_a_sibling_left_out_is_compared_once_it_can_be_read(runs: list[Path], trained: list[Path], capsys):
    damage(runs[1])
    asked = ["eval", str(runs[0]), "--evals", "agreement"]
    main(asked)
    shutil.copy(trained[1] / "sae_weights.safetensors", runs[1])
    capsys.readouterr()
    assert main(asked) == 0 and "kept" not in capsys.readouterr().out
    assert "left_out" not in result(runs[0], "agreement") and len(result(runs[0], "agreement")["peers"]) == 2


def test_fault_10_report_of_good_and_damaged_names_the_damaged_on_the_page_too(runs: list[Path], tmp_path, capsys):
    main(["eval", *map(str, runs), "--evals", "fidelity"])
    (runs[1] / "experiment.json").write_text('{"name": 3}')
    (runs[2] / "results" / "fidelity.json").write_text('{"eval": "fid')
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "report.html")]) == 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert runs[1].name in capsys.readouterr().err and runs[1].name in page and "left out" in page
    assert "fidelity.json is damaged" in page and "score the run again" in page


@pytest.mark.parametrize("content", ["[]", '{"name": 3}', "", '{"type": "Experiment"}'])
def test_a_report_of_nothing_that_can_be_read_is_refused_with_the_reasons(content: str, runs, tmp_path, capsys):
    (runs[0] / "experiment.json").write_text(content)
    assert main(["report", str(unsealed(runs[0])), "--out", str(tmp_path / "report.html")]) == 2
    assert "experiment.json" in capsys.readouterr().err and not (tmp_path / "report.html").exists()


def test_fault_19_results_that_are_a_link_are_not_written_through(runs: list[Path], tmp_path: Path, capsys):
    home = tmp_path / "home"
    home.mkdir()
    (home / "fidelity.json").write_text("precious")
    (runs[0] / "results").symlink_to(home)
    (runs[1] / "results").mkdir()
    (runs[1] / "results" / "fidelity.json").symlink_to(home / "fidelity.json")
    assert main(["eval", *map(str, runs), "--evals", "fidelity", "--force"]) == 1
    assert (home / "fidelity.json").read_text() == "precious" and len(list(home.iterdir())) == 1
    shown = capsys.readouterr()
    assert (
        shown.out.count("is a link") == 2 and "2 of 3 failed" in shown.err and "scores" in result(runs[2], "fidelity")
    )


def test_fault_19_a_results_folder_that_is_no_folder_is_that_runs_failure(runs: list[Path], capsys):
    (runs[0] / "results").write_text("")
    assert main(["eval", *map(str, runs[:2]), "--evals", "fidelity"]) == 1
    assert "is no folder" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["experiment.json", "cfg.json", "provenance.json", "sae_weights.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "huge"])
def test_fault_19_what_stands_in_a_files_place_is_told_and_nothing_hangs(name: str, kind: str, runs, tmp_path, capsys):
    path = runs[0] / name
    aside = path.rename(tmp_path / name)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(aside)
    else:
        with path.open("wb") as file:
            file.truncate(60 * 10**9)
    assert main(["eval", *map(str, runs[:2]), "--evals", "fidelity"]) == 1
    shown = capsys.readouterr()
    assert name in shown.out + shown.err and "1 of 2 failed" in shown.err and "Traceback" not in shown.err


def storing(files):
    score = lambda run: [Score(metric="one", value=1.0, better="higher")]
    return Eval("made_up", 1, {"one": "the number one"}, score, files=files)


def test_files_of_an_eval_are_stored_and_sealed_next_to_its_scores(runs: list[Path]):
    assert evaluate([Run.open(runs[0])], [storing(lambda run: {"table.bin": b"1234"})]) == 0
    assert (runs[0] / "results" / "made_up.table.bin").read_bytes() == b"1234"
    assert result(runs[0])["files"]["made_up.table.bin"]["bytes"] == 4


def test_files_that_an_eval_no_longer_stores_are_removed(runs: list[Path]):
    (run,) = [Run.open(runs[0])]
    evaluate([run], [storing(lambda run: {"old.bin": b"1", "table.bin": b"2"})])
    evaluate([run], [storing(lambda run: {"table.bin": b"3"})], force=True)
    kept = sorted(path.name for path in (runs[0] / "results").glob("made_up*"))
    assert kept == ["made_up.json", "made_up.table.bin"]


def test_files_that_cannot_be_made_are_a_failure_of_the_eval(runs: list[Path]):
    def broken(run: Run) -> dict[str, bytes]:
        raise ZeroDivisionError("no table")

    assert evaluate([Run.open(runs[0])], [storing(broken)]) == 1
    found = result(runs[0])
    assert found["error"].startswith("ZeroDivisionError: no table")
    assert "scores" not in found and "files" not in found


@pytest.mark.parametrize("name", ["made_up.../x.bin", "other.table.bin", "made_up.json"])
def test_a_file_that_a_result_names_is_one_of_its_own(name: str, runs: list[Path]):
    stored = {"eval": "made_up", "version": 1, "scores": [], "files": {name: {"bytes": 4, "sha256": "0" * 64}}}
    with pytest.raises(ValueError, match="with a file"):
        check_files(runs[0], stored)
