"""What a folder says of its SAE is held against the source, and L0 against what is measured."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.formats.folders import CONFIGS, made
from tests.small import WORLD, experiment
from unbraid.cli.main import main
from unbraid.formats import recognise
from unbraid.formats.claims import contradictions, mending_factor
from unbraid.runs.import_run import default_name, import_run
from unbraid.training.loop import train

KNOWN = {
    "model_name": "/data/models/Gemma-2-2B", "hook_name": "blocks.12.hook_resid_post", "hook_layer": 12,
    "context_size": 64, "prepend_bos": True, "dataset_path": "/data/corpora/tinystories", "tokenizer_sha256": "1" * 64,
}  # fmt: skip
SAME = {"model_name": "google/gemma_2.2b", "hook_name": "blocks.12.hook_resid_post", "dataset_path": "x/TinyStories/"}
DIFFERENT: list[tuple[str, Any, str]] = [
    ("model_name", "google/gemma-2-9b", "model: it was trained with google/gemma-2-9b, the source has"),
    ("prepend_bos", False, "prepend_bos: it was trained with False, the source has True"),
    ("context_size", 1024, "context_size: it was trained with 1024, the source has 64"),
    ("tokenizer_sha256", "0" * 64, "tokenizer .SHA-256.: it was trained with 000.*, the source has 111"),
    ("dataset_path", "monology/pile-uncopyrighted", "text: it was trained with monology/pile-uncopyrighted, the"),
    ("hook_name", "blocks.3.hook_resid_post", "it was trained at blocks.3.hook_resid_post, and is scored at blocks.12"),
    ("hook_layer", 3, "layer: it was trained with 3, the source has 12"),
]  # fmt: skip


def test_what_both_sides_say_alike_is_no_contradiction():
    assert contradictions(SAME, KNOWN) == [] == contradictions({}, KNOWN) == contradictions(KNOWN, {})
    assert contradictions({"model_name": "gpt2-small"}, {"model_name": "openai-community/gpt2"}) == []


@pytest.mark.parametrize(("key", "value", "says"), DIFFERENT, ids=[key for key, *_ in DIFFERENT])
def test_fault_06_what_they_say_differently_is_said_with_both_sides(key: str, value: Any, says: str):
    (note,) = contradictions({key: value}, KNOWN)
    assert re.search(says, note)


def test_fault_06_a_folder_that_contradicts_itself():
    (note,) = contradictions({"hook_name": "blocks.12.hook_resid_post", "hook_layer": 3}, KNOWN)
    assert "contradicts itself: hook_name blocks.12.hook_resid_post, hook_layer 3" in note


def test_names_that_would_write_to_the_terminal_are_shown_and_not_written():
    (note,) = contradictions({"hook_name": "\x1b]0;owned\x07"}, KNOWN)
    assert "\x1b" not in note and r"\x1b]0;owned" in note


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A BatchTopK SAE of k 3, as SAELens before 6.54.9 saved it."""
    (path,) = train([experiment(tokens=12800)], tmp_path_factory.mktemp("runs"))
    cfg = json.loads((path / "cfg.json").read_text())
    about = {"training_architecture": "batchtopk", "training_architecture_details": {"k": 3.0}}
    cfg["metadata"] = {**about, "sae_lens_version": "6.54.8", "sae_lens_training_version": "6.54.8"}
    (path / "cfg.json").write_text(json.dumps(cfg))
    return path


def scaled(folder: Path, out: Path, by: float) -> Path:
    out.mkdir()
    (out / "cfg.json").write_bytes((folder / "cfg.json").read_bytes())
    held = load_file(folder / "sae_weights.safetensors")
    save_file({**held, "threshold": held["threshold"] * by}, out / "sae_weights.safetensors")
    return out


def test_an_l0_as_stated_is_not_worth_a_word(folder: Path, tmp_path: Path):
    _, fit, notes = import_run(folder, WORLD, tmp_path)
    assert abs(fit.l0 - 3) < 0.6 and notes == ()


@pytest.mark.parametrize("by", [0.3, 3.0])
def test_fault_06_thresholds_that_lack_the_norm_factor_are_told_with_what_mends_them(
    by: float, folder: Path, tmp_path: Path
):
    published = recognise.read(scaled(folder, tmp_path / "scaled", by))
    _, fit, notes = import_run(tmp_path / "scaled", WORLD, tmp_path / "runs")
    assert abs(fit.l0 - 3) > 0.6
    (note,) = [note for note in notes if "the folder says 3" in note]
    assert "thresholds times" in note and "SAELens before 6.54.9 did not divide BatchTopK's threshold" in note
    factor = float(note.partition("thresholds times ")[2].partition(" ")[0])
    assert factor * by == pytest.approx(1, rel=0.1)
    mended = recognise.read(scaled(folder, tmp_path / "mended", by * factor)).dictionary
    x = WORLD.block(0, split="train", seed=0)
    assert x is not None and float(mended.codes(x.rows.x).l0()) == pytest.approx(3, rel=0.1)
    assert mending_factor(published.dictionary, 1e9, x.rows.x) is None


def test_fault_06_later_versions_are_not_suspected(folder: Path, tmp_path: Path):
    out = scaled(folder, tmp_path / "later", 3.0)
    cfg = json.loads((out / "cfg.json").read_text())
    cfg["metadata"]["sae_lens_training_version"] = "6.54.12"
    (out / "cfg.json").write_text(json.dumps(cfg))
    _, _, notes = import_run(out, WORLD, tmp_path / "runs")
    (note,) = [note for note in notes if "the folder says 3" in note]
    assert "SAELens before" not in note and "is it the right model, layer, site and scale?" in note


def test_fault_06_an_import_names_every_contradiction(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """At the command line, where nothing was said before."""
    out = scaled(folder, tmp_path / "claims", 1.0)
    cfg = json.loads((out / "cfg.json").read_text())
    said = {
        "model_name": "google/gemma-2-2b",
        "prepend_bos": True,
        "context_size": 1024,
        "hook_name": "blocks.1.hook_x",
    }
    cfg["metadata"] |= said
    (out / "cfg.json").write_text(json.dumps(cfg))
    flags = ["--source.d-in", "16", "--source.factors", "48", "--source.roots", "8", "--source.depth", "1"]
    assert main(["import", str(out), "world", *flags, "--out", str(tmp_path / "runs")]) == 0
    heard = capsys.readouterr().out
    for word in ("model: it was trained with google/gemma-2-2b", "prepend_bos:", "context_size:", "at blocks.1.hook_x"):
        assert word in heard
    (run,) = (tmp_path / "runs").iterdir()
    notes = json.loads((run / "provenance.json").read_text())["imported"]["notes"]
    assert sum("it was trained" in note for note in notes) == 4


def test_names_are_made_of_any_folder():
    assert default_name(Path("/日本/語")) == "imported-sae"
    assert len(default_name(Path("/" + "x" * 200 + "/" + "y" * 200))) < 100


def test_what_dictionary_learning_and_sparsify_say_is_known_too(tmp_path: Path):
    trainer = {**CONFIGS["dictionary_learning"]["trainer"], "norm_factor": 12.5}
    learned = recognise.read(made(tmp_path / "dl", "dictionary_learning", trainer=trainer))
    said = {"model_name": "somebody/model", "hook_name": "blocks.1.hook_resid_post", "hook_layer": 1, "l0": 3}
    assert learned.stated == {**said, "context_size": 64} and learned.rescaled == ""
    run = {"sae": {}, "model": "EleutherAI/pythia-70m", "dataset": "the/pile", "ctx_len": 2048}
    folder = made(tmp_path / "sp" / "layers.5", "sparsify")
    assert recognise.read(folder).stated == {"l0": 3, "hook_name": "blocks.5.hook_resid_post"}
    (tmp_path / "sp" / "config.json").write_text(json.dumps(run))
    stated = recognise.read(folder).stated
    assert (stated["model_name"], stated["dataset_path"], stated["context_size"]) == (run["model"], "the/pile", 2048)
    for other in ("[", "[]", json.dumps({"model": "x"})):
        (tmp_path / "sp" / "config.json").write_text(other)
        assert "model_name" not in recognise.read(folder).stated


def test_a_batchtopk_of_dictionary_learning_may_lack_its_factor_too(tmp_path: Path):
    """Until it scaled thresholds with the biases."""
    trainer = {**CONFIGS["dictionary_learning"]["trainer"], "dict_class": "BatchTopKSAE", "norm_factor": 12.5}
    published = recognise.read(made(tmp_path, "dictionary_learning", trainer=trainer))
    assert "the norm factor (12.5 here)" in published.rescaled and "never fitted" in published.notes[0]


def test_models_that_were_processed_and_positions_that_were_chosen_are_told(tmp_path: Path):
    metadata = {
        **CONFIGS["standard"]["metadata"], "seqpos_slice": [1, -1], "model_from_pretrained_kwargs": {"fold_ln": True},
    }  # fmt: skip
    notes = recognise.read(made(tmp_path, "standard", metadata=metadata)).notes
    assert any("TransformerLens had changed (fold_ln)" in note for note in notes)
    assert any("positions [1, -1] of each context alone" in note for note in notes)
