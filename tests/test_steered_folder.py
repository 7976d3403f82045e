"""A push written for the evaluation harness, read as its documentation says, does what our own push does."""

import csv
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.known import making
from tests.small import experiment
from tests.steps import rng
from tests.tiny_lm import source, write_corpus, write_model
from unbraid.cli.main import main
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.effects.next_token_kl import next_token_kl
from unbraid.formats import recognise
from unbraid.runs.run import Run, save_run
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.loading import load_model
from unbraid.sources.stream import held_out
from unbraid.steering.steer import steer
from unbraid.steering.steered_folder import pushed_everywhere, write_steered


def make_run(home: Path, family: str = "llama", **changes) -> Run:
    text = source(write_model(home / "model", family), write_corpus(home / "words.jsonl"), **changes)
    x = held_out(text, 256).x
    made = Dictionary(x.shape[1], 6, TopK(2))
    with torch.no_grad():
        made.W_dec.copy_(torch.nn.functional.normalize(torch.randn(6, x.shape[1], generator=rng(0)), dim=1))
        made.W_enc.copy_(made.W_dec.T)
    made_by = making(replace(experiment(), source=text), made)
    return save_run(home / "run", made_by, made, Normaliser.fit(x, "none"), x, {})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return make_run(tmp_path_factory.mktemp("steered"))


def language_model(run: Run) -> LanguageModel:
    assert isinstance(run.source, LanguageModel)
    return run.source


def read_as_documented(folder: Path, model: Any, ids: torch.Tensor) -> torch.Tensor:
    """hf_steered.py: the row's coefficient times its sparse model's W_dec row, added to the output of a module of
    base_model, at every position."""
    (row,) = csv.DictReader((folder / "steer.csv").read_text().splitlines())
    assert (row["loader"], row["action"]) == ("sparsify", "add")
    sparse = recognise.read(folder / row["sparse_model"] / row["hookpoint"]).dictionary
    push = float(row["steering_coefficient"]) * sparse.W_dec[int(row["feature_index"])].detach()
    ((hookpoint, stored),) = torch.load(folder / "steer.pt", weights_only=True).items()
    assert (hookpoint, stored["action"], stored["bias"]) == (row["hookpoint"], "add", None)
    torch.testing.assert_close(stored["steering_coefficient"] * stored["steering_vector"], push)
    (module,) = [m for name, m in model.base_model.named_modules() if name == row["hookpoint"]]
    shifted = lambda _, __, out: (out[0] + push, *out[1:]) if isinstance(out, tuple) else out + push
    handle = module.register_forward_hook(shifted)
    try:
        return model(input_ids=ids).logits
    finally:
        handle.remove()


@pytest.mark.parametrize(("family", "changes"), [("llama", {}), ("gpt2", {"site": "resid_pre", "layer": 2})])
def test_what_is_written_pushes_as_we_do(family, changes, tmp_path):
    run = make_run(tmp_path, family, **changes)
    text, atoms = language_model(run), run.dictionary().unit_atoms().detach()
    found = write_steered(run, tmp_path / "out", [1, 4], scale=[1.0, -2.0], kl=0.4)
    by_hand = steer(run, [1, 4], "the cat", scale=[1.0, -2.0], tokens=1, side=False).size
    units = [steer(run, i, "the cat", tokens=1, side=False).size for i in (1, 4)]
    push = (units[0] * atoms[1] - 2 * units[1] * atoms[4]) * found.length / by_hand
    model = load_model(text.model, "main", "float32", "cpu")
    with torch.no_grad():
        for part in text.windows(2, split="eval", seed=0).parts(1):
            whole = part.shortened(int(part.attention.sum()))
            by_us = text.logits_from(whole, text.activations(whole) + push)
            by_them = read_as_documented(tmp_path / "out", model, whole.ids.long())
            torch.testing.assert_close(by_them, by_us, rtol=0, atol=1e-5)
        cost = float(next_token_kl(pushed_everywhere(text), push.unsqueeze(0)))
    assert found.kl == pytest.approx(cost, rel=1e-3) == pytest.approx(0.4, rel=0.02)


def test_the_command_writes_it_and_says_how_it_is_run(run, tmp_path, capsys):
    asked = ["export", str(run.path), "--to", "steered", "--out", str(tmp_path / "out")]
    assert main([*asked, "--latents", "2", "--kl", "0.2"]) == 0
    assert "lm_eval --model steered" in capsys.readouterr().out
    assert "lm_eval --model steered" in (tmp_path / "out" / "README.md").read_text()
    assert main([*asked, "--latents", "2"]) == 2 and "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--to", "steered"], "name them with --latents"),
        (["--to", "steered", "--latents", "99"], "0 to 5"),
        (["--to", "steered", "--latents", "1", "--kl", "1e9"], "beyond reach"),
        (["--to", "saelens", "--latents", "1"], "are of --to steered"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(run, flags, words, tmp_path, capsys):
    assert main(["export", str(run.path), "--out", str(tmp_path / "out"), *flags]) == 2
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_site_that_is_no_output_is_refused(tmp_path):
    run = make_run(tmp_path, layer=0, site="resid_pre")
    with pytest.raises(ValueError, match="no block's output"):
        write_steered(run, tmp_path / "out", 0, kl=0.1)


HARNESS = """
import sys, torch
from lm_eval.models.hf_steered import SteeredModel
model = SteeredModel(pretrained=sys.argv[1], steer_path="steer.pt", device="cpu", dtype="float32")
ids = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    torch.save(model._model_call(ids).float(), sys.argv[3])
"""


@pytest.mark.slow
def test_the_harness_itself_pushes_as_we_do(run, tmp_path):
    python = os.environ.get("UNBRAID_LM_EVAL")
    if not python:
        pytest.skip("UNBRAID_LM_EVAL does not name the python of an environment with lm_eval and peft")
    write_steered(run, tmp_path / "out", [0, 3], kl=0.3)
    part = language_model(run).windows(4, split="eval", seed=0)[:1]
    part = part.shortened(int(part.attention.sum()))
    torch.save(part.ids.long(), tmp_path / "ids.pt")
    call = [python, "-c", HARNESS, language_model(run).model, str(tmp_path / "ids.pt"), str(tmp_path / "logits.pt")]
    subprocess.run(call, cwd=tmp_path / "out", check=True, capture_output=True, timeout=600)
    theirs = torch.load(tmp_path / "logits.pt", weights_only=True)
    model = load_model(language_model(run).model, "main", "float32", "cpu")
    with torch.no_grad():
        ours = read_as_documented(tmp_path / "out", model, part.ids.long())
        assert float((ours - model(input_ids=part.ids.long()).logits).abs().max()) > 0.1
    torch.testing.assert_close(theirs.float(), ours, rtol=0, atol=1e-5)
