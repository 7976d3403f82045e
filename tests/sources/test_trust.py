"""Models that bring Python code of their own: never run unasked, and never because a file says so."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.small import experiment
from tests.spoiled import forged
from tests.tiny_lm import source, write_corpus, write_model

from unbraid.cli import main as cli
from unbraid.config.serialise import fingerprint, from_json, to_json
from unbraid.runs.run import Run
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.training.loop import train

CODE = """
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

Path({marker!r}).touch()


class MineConfig(LlamaConfig):
    model_type = "mine"


class Mine(LlamaForCausalLM):
    config_class = MineConfig
"""


@pytest.fixture
def marker(tmp_path) -> Path:
    """Exists once the model's code has run."""
    return tmp_path / "it-ran"


@pytest.fixture
def foreign(tmp_path, marker, monkeypatch) -> Path:
    """A folder with a model of an architecture that transformers does not have."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = write_model(tmp_path / f"foreign-{tmp_path.name}")
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "mine.MineConfig", "AutoModelForCausalLM": "mine.Mine"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mine", "auto_map": classes}))
    (folder / "mine.py").write_text(CODE.format(marker=str(marker)))
    return folder


@pytest.fixture
def run(tmp_path, foreign) -> Path:
    """A run trained on the foreign model, with permission."""
    text = write_corpus(tmp_path / "corpus.jsonl", 200)
    small = experiment(tokens=400)
    training = replace(small.training, batch_size=100)
    trusted = source(foreign, text, trust_remote_code=True)
    return train([replace(small, source=trusted, training=training)], tmp_path / "runs")[0]


@pytest.mark.slow
def test_fault_25_code_of_a_model_is_refused_in_a_sentence_and_nothing_is_asked(tmp_path, foreign, marker):
    text = write_corpus(tmp_path / "corpus.jsonl")
    code = "import sys; from unbraid.cli import main; sys.exit(main.main(sys.argv[1:]))"
    arguments = ["plan", "lm", "--source.model", str(foreign), "--source.text", str(text), "--source.layer", "1"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], input="y\n", capture_output=True, text=True, check=False,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
    )  # fmt: skip
    assert done.returncode == 2 and not marker.exists()
    assert "--trust-remote-code" in done.stderr and "Traceback" not in done.stderr
    assert "[y/N]" not in done.stdout + done.stderr


def test_fault_25_with_permission_the_model_is_read(tmp_path, foreign, marker):
    live = source(foreign, write_corpus(tmp_path / "corpus.jsonl"), trust_remote_code=True)
    block = live.block(0, split="train", seed=0)
    assert block is not None and block.rows.x.shape[1] == 16 and marker.exists()


def test_fault_25_code_that_fails_is_named(tmp_path, foreign):
    (foreign / "mine.py").write_text("raise KeyError('nothing here')")
    live = source(foreign, write_corpus(tmp_path / "corpus.jsonl"), trust_remote_code=True)
    with pytest.raises(ValueError, match="the code that it brings fails with KeyError"):
        _ = live.d_in


def test_fault_25_no_run_folder_can_give_itself_permission(run, marker):
    written = run / "experiment.json"
    assert "trust_remote_code" not in written.read_text()
    assert Run.open(run).source == Run.open(run, permissions=("trust_remote_code",)).source
    marker.unlink()
    with pytest.raises(ValueError, match="allow it with --trust-remote-code"):
        _ = Run.open(run).source.d_in
    assert not marker.exists()
    data = json.loads(written.read_text())
    data["source"]["trust_remote_code"] = True
    written.write_text(json.dumps(data))
    forged(run)
    with pytest.raises(ValueError, match="trust_remote_code of .*LanguageModel is no setting that a file can give"):
        Run.open(run)
    assert not marker.exists()


def test_fault_25_eval_asks_for_permission_again(run, capsys):
    assert cli.main(["eval", str(run), "--evals", "fidelity"]) != 0
    told = capsys.readouterr()
    assert "--trust-remote-code" in told.out + told.err
    assert cli.main(["eval", str(run), "--evals", "fidelity", "--trust-remote-code"]) == 0
    assert (run / "results" / "fidelity.json").is_file()


def test_fault_25_the_permission_changes_no_fingerprint_and_old_experiments_are_read():
    assert fingerprint(LanguageModel(model="embedded")) == "078d92a16a53"  # as without such a field
    assert fingerprint(LanguageModel(trust_remote_code=True)) == fingerprint(LanguageModel())
    assert from_json(to_json(LanguageModel())) == LanguageModel()
