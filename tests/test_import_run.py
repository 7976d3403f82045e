"""An SAE that others trained becomes a run like any other: scored, reported, exported, and marked as what it is."""

import json
from pathlib import Path

import pytest
import torch

from tests.formats.saelens_saes import D_IN, D_SAE, rows, saved
from tests.small import WORLD, experiment
from unbraid import catalog
from unbraid.cli.main import main
from unbraid.comparison.stored_scores import read_run, records
from unbraid.evals.shared.evaluation import evaluate
from unbraid.experiment.experiment import Experiment
from unbraid.formats import saelens
from unbraid.formats.export import export
from unbraid.formats.imported import Imported
from unbraid.report import collect, write_report
from unbraid.runs.import_run import default_name, experiment_of, import_run
from unbraid.runs.run import Run
from unbraid.sources.world.world import World
from unbraid.training.loop import train

SOURCE = World(factors=48, d_in=D_IN, l0=3.0, roots=8, branching=2, depth=1, block_rows=1024)


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("imported")
    saved("gated", folder / "release" / "Gated SAE")
    return import_run(folder / "release" / "Gated SAE", SOURCE, folder / "runs")[0]


@pytest.mark.parametrize("names", [("fidelity", "description_length"), pytest.param((), marks=pytest.mark.slow)])
def test_every_eval_and_the_report_take_it_as_any_run(imported: Run, tmp_path: Path, names: tuple[str, ...]):
    assert evaluate([imported], [item for name, item in catalog.evals().items() if name in (names or name)]) == 0
    fvu = [row["value"] for row in records(collect([imported.path])) if row["metric"] == "fvu"]
    assert fvu and all(value > 1 for value in fvu), "random weights explain nothing"
    write_report([imported.path], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "trained elsewhere: SAELens gated from" in page
    assert "Trained elsewhere, on other data or for longer: imported-release-gated-sae." in page


def test_its_provenance_says_where_it_came_from_and_what_was_changed(imported: Run):
    about = json.loads((imported.path / "provenance.json").read_text())["imported"]
    assert (about["format"], about["architecture"]) == ("SAELens", "gated")
    assert about["trained"]["model_name"] == "somebody/model" and len(about["sha256"]) == 64
    assert any("one JumpReLU" in note for note in about["notes"])
    assert any("trained at blocks.2.hook_resid_post, and is scored at blocks.0" in note for note in about["notes"])
    assert any("worse than its mean: is it the right model" in note for note in about["notes"])
    assert about["quick_fit"]["fvu"] > 1


def test_it_reconstructs_as_it_did(imported: Run, tmp_path: Path):
    theirs = saved("gated", tmp_path)
    torch.testing.assert_close(imported.dictionary()(rows()), theirs(rows()), rtol=1e-5, atol=2e-5)


def test_its_experiment_makes_the_same_run_again(imported: Run, tmp_path: Path):
    """Training for no tokens from the published folder is what importing is."""
    assert imported.experiment.training.tokens == 0
    (again,) = train([imported.experiment], tmp_path)
    ours, theirs = saelens.read(imported.path), saelens.read(again)
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_it_is_a_baseline_unless_it_says_otherwise(imported: Run, tmp_path: Path):
    assert read_run(imported.path).summary.standard
    saved("standard", tmp_path / "sae")
    compared, _, _ = import_run(tmp_path / "sae", SOURCE, tmp_path / "runs", standard=False)
    assert not read_run(compared.path).summary.standard


def test_a_changed_folder_is_not_what_was_named(tmp_path: Path):
    saved("standard", tmp_path)
    init = Imported(folder=str(tmp_path), sha256="0" * 64, format="SAELens", architecture="standard")
    with pytest.raises(ValueError, match="not those that were named; import them anew"):
        init.read()


def test_a_source_of_other_dimensions_is_refused(tmp_path: Path):
    saved("standard", tmp_path / "sae")
    with pytest.raises(ValueError, match="explains 12 dimensions, the source's activations have 16"):
        import_run(tmp_path / "sae", WORLD, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_same_sae_is_imported_once(tmp_path: Path):
    saved("standard", tmp_path / "sae")
    import_run(tmp_path / "sae", SOURCE, tmp_path / "runs")
    with pytest.raises(ValueError, match="is there already"):
        import_run(tmp_path / "sae", SOURCE, tmp_path / "runs")


def test_names_are_made_of_what_folders_may_hold():
    assert default_name(Path("/models/Some Release/layers.5")) == "imported-some-release-layers.5"
    assert isinstance(experiment(), Experiment)


def test_our_own_run_can_be_imported_on_its_own_source(tmp_path: Path):
    (own,) = train([experiment()], tmp_path / "runs")
    run, fit, notes = import_run(own, WORLD, tmp_path / "imported")
    assert torch.equal(run.dictionary().W_enc, Run.open(own).dictionary().W_enc)
    assert fit.fvu < 1 and notes == ()


def test_saes_of_one_name_are_told_apart_by_their_seed(tmp_path: Path):
    for seed in (0, 1):
        saved("standard", tmp_path / str(seed), seed=seed)
        import_run(tmp_path / str(seed), SOURCE, tmp_path / "runs", name="theirs", seed=seed, l0=5.0)
    found = sorted((read_run(path).name, read_run(path).seed) for path in (tmp_path / "runs").iterdir())
    assert found == [("theirs-l0_5", 0), ("theirs-l0_5", 1)]


def test_exporting_it_keeps_its_origin(imported: Run, tmp_path: Path):
    export(imported.path, tmp_path / "out")
    details = json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]["training_architecture_details"]
    assert details["imported"]["architecture"] == "gated" and "objective" not in details


def test_the_command_line_imports_notes_and_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    saved("topk", tmp_path / "sae")
    flags = ["--source.d-in", "12", "--source.factors", "64", "--source.roots", "8"]
    out = ["--out", str(tmp_path / "runs")]
    assert main(["import", str(tmp_path / "sae"), "world", *flags, *out, "--as", "theirs"]) == 0
    said = capsys.readouterr().out
    assert "note: it was trained at blocks.2" in said and "at first sight: FVU" in said
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("theirs-l0_5-s0-")
    assert main(["eval", str(run), "--evals", "fidelity", "recovery"]) == 0
    assert json.loads((run / "experiment.json").read_text())["dictionary"]["d_sae"] == D_SAE


def test_the_command_line_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["import", str(tmp_path)]) == 2
    assert "needs an experiment whose source" in capsys.readouterr().err
    assert main(["import", str(tmp_path), "world", "--out", str(tmp_path / "runs")]) == 2
    assert "holds no SAE: expected one of ae.pt" in capsys.readouterr().err


def test_the_experiment_of_an_import_is_named_by_its_weights(tmp_path: Path):
    from unbraid.formats import recognise

    saved("standard", tmp_path, seed=0)
    first = experiment_of(tmp_path, recognise.read(tmp_path), SOURCE)
    saved("standard", tmp_path, seed=1)
    assert experiment_of(tmp_path, recognise.read(tmp_path), SOURCE).folder != first.folder
