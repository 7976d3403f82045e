"""A run folder is what was saved, and agrees with itself; what a file says is no leave to write (faults 3 and 19)."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.known import making
from tests.small import WORLD, experiment
from tests.spoiled import edit_json, resealed, unsealed
from tests.tiny_lm import source, write_corpus, write_model
from unbraid.cli.main import main
from unbraid.comparison.stored_scores import read_run
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.formats import saelens
from unbraid.formats.widen import Extension
from unbraid.runs.run import Run, save_run
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.training.loop import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (folder,) = train([experiment(activation=TopK(3))], tmp_path_factory.mktemp("runs"))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / trained.name))


def respell(run: Path, **tensors: torch.Tensor) -> None:
    path = run / "sae_weights.safetensors"
    save_file(load_file(path) | tensors, path)


SPOILED = {
    "nan": (lambda t: {"b_enc": t["b_enc"] * float("nan")}, "b_enc holds NaN or infinity"),
    "infinite": (lambda t: {"W_enc": t["W_enc"] / 0}, "W_enc holds NaN or infinity"),
    "whole numbers": (lambda t: {"W_dec": t["W_dec"].int()}, "expected tensors in float32"),
    "half": (lambda t: {n: v.half() for n, v in t.items()}, "expected tensors in float32"),
    "norm of 2": (lambda t: {"W_dec": 2 * t["W_dec"]}, "norm is off 1 by 1.0e\\+00"),
    "one atom of none": (lambda t: {"W_dec": t["W_dec"].index_fill(0, torch.tensor([5]), 0.0)}, "norm is off 1"),
    "another shape": (lambda t: {"b_dec": t["b_dec"][:3]}, "expected tensors"),
    "one more": (lambda t: {"W_more": t["b_dec"]}, "expected tensors"),
}


@pytest.mark.parametrize("spoil", SPOILED)
@pytest.mark.parametrize("seal", [unsealed, resealed], ids=["older than seals", "sealed anew"])
def test_fault_03_weights_that_no_run_saves_are_refused_without_a_seal(spoil: str, seal, run: Path):
    change, said = SPOILED[spoil]
    respell(run, **change(load_file(run / "sae_weights.safetensors")))
    with pytest.raises(ValueError, match=said):
        Run.open(seal(run)).dictionary()
    with pytest.raises(ValueError, match=said):
        Extension(str(run)).start()


@pytest.mark.parametrize("name", ["cfg.json", "experiment.json", "normaliser.safetensors", "sae_weights.safetensors"])
def test_fault_03_every_sealed_file_is_compared_at_every_read(name: str, run: Path):
    opened = Run.open(run)
    path = run / name
    path.write_bytes(path.read_bytes()[:-1] + b" ")
    for read in (opened.dictionary, lambda: saelens.read(run), lambda: Run.open(run).dictionary()):
        with pytest.raises(ValueError, match=f"{name} is not the file that was saved with this run"):
            read()


def test_a_sealed_file_that_is_gone_is_named(run: Path):
    (run / "normaliser.safetensors").unlink()
    with pytest.raises(ValueError, match="normaliser.safetensors is missing"):
        Run.open(run).dictionary()


def test_a_changed_provenance_is_told(run: Path):
    edit_json(run / "provenance.json", seconds=1.0)
    with pytest.raises(ValueError, match=r"provenance.json was changed after it was written"):
        Run.open(run)


def test_a_run_older_than_seals_is_read(run: Path):
    was = Run.open(run).dictionary()
    found = Run.open(unsealed(run))
    assert torch.equal(found.dictionary().W_dec, was.W_dec) and found.facts.weights == ""
    assert read_run(run).method == "small"


def dictionary_of(run: Path) -> dict:
    import json

    return json.loads((run / "experiment.json").read_text())["dictionary"]


DISAGREEING = {
    "width": (lambda run: {"dictionary": dictionary_of(run) | {"d_sae": 65}}, "d_sae 65, cfg.json 64"),
    "activation": (
        lambda run: {"dictionary": dictionary_of(run) | {"activation": {"type": "ReLU"}}},
        "architecture 'standard', cfg.json 'topk'",
    ),
    "k": (
        lambda run: {"dictionary": dictionary_of(run) | {"activation": {"type": "TopK", "k": 4}}},
        "k 4, cfg.json 3",
    ),
    "dimensions": (lambda run: {"source": {"type": "World", "d_in": 17}}, "d_in 17, cfg.json 16"),
    "seed": (lambda run: {"seed": 7}, "is another experiment than the"),
    "name": (lambda run: {"name": "orthogonality-l0_3"}, "is another experiment than the"),
}


@pytest.mark.parametrize("what", DISAGREEING)
@pytest.mark.parametrize("seal", [unsealed, resealed], ids=["older than seals", "sealed anew"])
def test_fault_03_an_experiment_that_is_not_of_these_weights_is_refused(what: str, seal, run: Path):
    change, said = DISAGREEING[what]
    edit_json(run / "experiment.json", **change(run))
    for read in (Run.open, read_run):
        with pytest.raises(ValueError, match=said):
            read(seal(run))


def test_a_field_that_a_class_got_since_is_no_disagreement(run: Path):
    """Fingerprints are those of what is stored, not of what the class would store now."""
    import json

    from unbraid.runs.run_folder import fingerprint_of

    stored = json.loads((run / "experiment.json").read_text())
    del stored["training"]["resample_every"]
    (run / "experiment.json").write_text(json.dumps(stored))
    cfg = json.loads((run / "cfg.json").read_text())
    cfg["metadata"]["training_architecture_details"]["experiment"] = f"small-s0-{fingerprint_of(stored)}"
    (run / "cfg.json").write_text(json.dumps(cfg))
    assert Run.open(resealed(run)).experiment.name == "small"


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"architecture": "gated"}, "cfg.json 'gated'"), ({"k": "3"}, "k 3, cfg.json '3'"),
     ({"k": 0}, "k 3, cfg.json 0"), ({"d_in": 16.0}, "d_in is 16.0; expected a whole number"),
     ({"d_sae": True}, "d_sae"), ({"apply_b_dec_to_input": 1}, "only normalize_activations"),
     ({"normalize_activations": []}, "only normalize_activations"), ({"metadata": []}, "")],
)  # fmt: skip
def test_settings_of_another_kind_are_refused(changes: dict, said: str, run: Path):
    edit_json(run / "cfg.json", **changes)
    if not said:
        assert Run.open(unsealed(run)).dictionary().d_in == 16
        return
    with pytest.raises(ValueError, match=said):
        Run.open(unsealed(run)).dictionary()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    home = tmp_path_factory.mktemp("model")
    read = source(write_model(home / "model", "llama"), write_corpus(home / "words.jsonl"), layer=1, context=24)
    return replace(read, text="sample://40")


def saved_with(cache: str, model: LanguageModel, root: Path) -> Path:
    x = torch.randn(256, model.d_in, generator=torch.Generator().manual_seed(0))
    made = Dictionary(model.d_in, 8, ReLU())
    made.W_dec.data.copy_(torch.eye(model.d_in)[:8])
    made.W_enc.data.copy_(torch.eye(model.d_in)[:, :8])
    by = making(replace(experiment(), source=replace(model, cache=cache)), made)
    return save_run(root / by.folder, by, made, Normaliser.fit(x, "none"), x, {}).path


@pytest.mark.parametrize("cache", ["{home}/planted", "../planted", "planted", "./.git/hooks", "/tmp"])
def test_fault_19_a_file_does_not_choose_where_sampled_text_is_kept(cache: str, model, tmp_path, capsys, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    model = replace(model, text=f"sample://{40 + len(cache)}")  # a text of its own, that no test before has sampled
    run = saved_with(cache.format(home=tmp_path / "home"), model, tmp_path / "runs")
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert main(["eval", str(run), "--evals", "fidelity", "--threads", "1"]) == 0
    written = {p for p in tmp_path.rglob("*") if p.is_file()} - before
    assert {p.relative_to(tmp_path).parts[0] for p in written} == {"runs", "work"}
    assert {p.parent.name for p in written} == {"results", ".unbraid-cache"}
    assert "a file does not choose where this machine writes" in capsys.readouterr().err


def test_a_run_on_the_default_cache_says_nothing(model: LanguageModel, tmp_path: Path):
    assert Run.open(saved_with(".unbraid-cache", model, tmp_path)).notes == []
    assert Run.open(save_world(tmp_path)).notes == []


def save_world(root: Path) -> Path:
    (folder,) = train([replace(experiment("world"), source=WORLD)], root / "worlds")
    return folder
