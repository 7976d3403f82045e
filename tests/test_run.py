import errno
import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.small import WORLD, experiment
from tests.spoiled import edit_json, unsealed
from tests.test_train import mixed_cohort
from unbraid.formats import saelens
from unbraid.formats.export import export
from unbraid.runs.provenance import git_state
from unbraid.runs.run import Run
from unbraid.sources.stream import held_out
from unbraid.system import files
from unbraid.training.loop import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sae_lens = pytest.importorskip("sae_lens")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """One finished run of every architecture and objective."""
    return train(mixed_cohort(), tmp_path_factory.mktemp("runs"))


def load_with_saelens(folder: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sae_lens.SAE.load_from_disk(str(folder), device="cpu")


def test_saelens_loads_every_run_folder_with_equal_outputs(runs):
    x = held_out(WORLD, 512).x
    for folder in runs:
        ours, theirs = Run.open(folder).dictionary(), load_with_saelens(folder)
        z = ours.codes(x)
        torch.testing.assert_close(theirs.encode(x), z.dense(), rtol=0, atol=1e-5)
        torch.testing.assert_close(theirs.decode(theirs.encode(x)), ours.decode(z), rtol=0, atol=1e-5)


def test_exports_load_in_saelens_with_equal_outputs_and_metadata(runs, tmp_path):
    for index, folder in enumerate(runs):
        out = tmp_path / str(index)
        export(folder, out)
        theirs = load_with_saelens(out)
        x = held_out(WORLD, 64).x
        torch.testing.assert_close(theirs(x), Run.open(folder).dictionary()(x), rtol=0, atol=1e-5)
        assert theirs.cfg.metadata.hook_name == "blocks.0.hook_resid_post"
        assert theirs.cfg.metadata.training_architecture_details["seed"] == Run.open(folder).experiment.seed


def test_every_architecture_is_saved_as_what_it_is_at_inference(runs):
    kinds = {
        Run.open(folder).experiment.name: json.loads((folder / "cfg.json").read_text())["architecture"]
        for folder in runs
    }
    assert kinds == {
        "plain": "jumprelu", "relu": "standard", "topk": "topk",
        "jumprelu": "jumprelu", "nested": "jumprelu", "effect": "jumprelu",
    }  # fmt: skip


def test_a_calibrated_batchtopk_keeps_its_l0_on_held_out_rows(runs):
    z = Run.open(runs[0]).dictionary().codes(held_out(WORLD, 4096).x)
    assert float(z.l0()) == pytest.approx(3.0, rel=0.1)


def test_the_run_names_its_experiment_and_its_makers(runs):
    run = Run.open(runs[0])
    assert run.experiment == experiment("plain")
    provenance = json.loads((run.path / "provenance.json").read_text())
    assert provenance["versions"]["torch"] == torch.__version__ and provenance["tokens"] == 6400
    assert len(git_state().removesuffix("+dirty")) in (4, 40)


def test_a_folder_without_a_finished_run_is_refused(tmp_path, runs):
    with pytest.raises(ValueError, match="not a run folder"):
        Run.open(tmp_path)
    shutil.copytree(runs[0], tmp_path / "half")
    (tmp_path / "half" / "provenance.json").unlink()
    with pytest.raises(ValueError, match="not finished: train it to the end with --resume"):
        Run.open(tmp_path / "half")
    with pytest.raises(ValueError, match="no finished run"):
        export(tmp_path / "half", tmp_path / "out")


def test_truncated_weights_are_named(tmp_path, runs):
    shutil.copytree(runs[0], tmp_path / "cut")
    weights = tmp_path / "cut" / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    for seal, said in ((lambda path: path, "is not the file that was saved"), (unsealed, "be read")):
        folder = seal(tmp_path / "cut")
        with pytest.raises(ValueError, match=f"sae_weights.safetensors .*{said}"):
            Run.open(folder).dictionary()
        with pytest.raises(ValueError, match=said):
            export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_of_another_version_says_so(tmp_path, runs):
    shutil.copytree(runs[0], tmp_path / "old")
    path = tmp_path / "old" / "experiment.json"
    data = json.loads(path.read_text())
    data["sparsity_coefficient"] = 1.0
    path.write_text(json.dumps(data))
    edit_json(tmp_path / "old" / "cfg.json", metadata={})
    unsealed(tmp_path / "old")
    with pytest.raises(ValueError, match="unknown fields \\['sparsity_coefficient'\\].*written by another version"):
        _ = Run.open(tmp_path / "old").experiment


def test_an_export_never_overwrites(tmp_path, runs):
    export(runs[0], tmp_path / "out")
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "out").iterdir())
    with pytest.raises(ValueError, match="exists already"):
        export(runs[1], tmp_path / "out")
    assert sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "out").iterdir()) == before


def test_an_interrupted_export_leaves_nothing(tmp_path, runs, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "save_file", fails)
    with pytest.raises(OSError, match="disk full"):
        export(runs[0], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_at_the_end_of_training_leaves_no_half_run(tmp_path, monkeypatch):
    real = files.save_file

    def fails(tensors, path, **kwargs):
        if "W_dec" in tensors:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(files, "save_file", fails)
        with pytest.raises(OSError, match="disk full .* bytes free.*--resume"):
            train([experiment()], tmp_path)
    folder = tmp_path / experiment().folder
    assert not (folder / "provenance.json").exists() and not (folder / "sae_weights.safetensors").exists()
    assert not list(folder.glob(".*")), "no temporary file stays"
    train([experiment()], tmp_path, resume=True)
    assert (folder / "provenance.json").is_file()


def test_atoms_off_unit_norm_are_not_written(tmp_path, runs):
    dictionary = Run.open(runs[0]).dictionary()
    dictionary.W_dec[3] *= 1.01
    with pytest.raises(ValueError, match="norm is off 1 by 1.0e-02"):
        saelens.write(dictionary, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


def test_wrong_orientation_is_named_with_both_shapes(tmp_path, runs):
    from safetensors.torch import load_file, save_file

    shutil.copytree(runs[0], tmp_path / "turned")
    path = tmp_path / "turned" / "sae_weights.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"W_enc": tensors["W_enc"].T.contiguous()}, path)
    unsealed(tmp_path / "turned")
    with pytest.raises(ValueError, match="expected tensors .*'W_enc': \\[16, 64\\].*found .*'W_enc': \\[64, 16\\]"):
        Run.open(tmp_path / "turned").dictionary()


def test_no_pickle_is_in_a_run_folder(runs):
    suffixes = {path.suffix for folder in runs for path in folder.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".jsonl", ".safetensors"}


def test_names_that_cannot_be_folders_are_refused():
    with pytest.raises(ValueError, match="lower-case"):
        _ = replace(experiment(), name="../evil").folder


def test_written_files_are_readable_by_others(runs):
    assert all(os.stat(path).st_mode & 0o044 for path in runs[0].iterdir() if path.is_file())
