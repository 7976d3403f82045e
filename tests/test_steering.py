"""Steering: an atom that is a token's own output vector makes the model say that token; and what cannot be steered."""

from dataclasses import replace

import pytest
import torch

from tests.known import making
from tests.small import WORLD, experiment
from tests.tiny_lm import source, write_corpus, write_model
from unbraid.cli.main import main
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.runs.run import Run, save_run
from unbraid.sources.language_model.loading import load_model
from unbraid.sources.stream import held_out
from unbraid.steering.steer import steer
from unbraid.system.files import write_tensors

PROMPT = "the cat saw a red house"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Atoms that are rows of the unembedding, after the last block; latent 0 says "bird", latent 3 never fires."""
    home = tmp_path_factory.mktemp("steering")
    model = write_model(home / "model", "llama")
    text = source(model, write_corpus(home / "words.jsonl"), layer=3, context=24)
    weights = load_model(str(model), "main", "float32", "cpu")
    rows = text.loaded_tokenizer.convert_tokens_to_ids(["bird", "key", "sad", "blue"])
    unembedding = weights.get_parameter("lm_head.weight")[rows].detach()
    x = held_out(text, 512).x
    made = Dictionary(x.shape[1], 4, TopK(2))
    with torch.no_grad():
        made.W_dec.copy_(unembedding / unembedding.norm(dim=1, keepdim=True))
        made.W_enc.copy_(made.W_dec.T)
        made.b_enc[:3] = 100.0
        made.b_enc[3] = -1e3
    made_by = making(replace(experiment(), source=text), made)
    return save_run(home / "run", made_by, made, Normaliser.fit(x, "none"), x, {})


def test_pushing_along_a_tokens_output_vector_makes_the_model_say_it(run):
    found = steer(run, 0, PROMPT, scale=100.0, unit="own", tokens=3)
    bird = next(token for token in found.expected if token.token == "bird")
    assert bird.after > 0.5 > 0.01 > bird.before
    assert found.after.split() == ["bird"] * 3


def test_pushing_against_it_makes_the_token_rarer(run):
    found = steer(run, 0, PROMPT, scale=-100.0, unit="own", top=48)
    bird = next(token for token in found.expected if token.token == "bird")
    assert bird.after < bird.before / 100


def test_a_scale_of_nothing_changes_nothing(run):
    found = steer(run, 0, PROMPT, scale=0.0, unit="own")
    assert found.before == found.after
    assert all(token.before == token.after for token in found.expected)


def test_a_fits_radius_is_the_unit_of_its_run(run):
    path = run.path / "fit.safetensors"
    write_tensors(path, {"radius": torch.tensor(7.0)})
    try:
        assert steer(run, 0, PROMPT, scale=2.0).size == pytest.approx(14.0)
        assert steer(run, 0, PROMPT, scale=2.0, unit="own").size != pytest.approx(14.0)
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("latent", "prompt", "words"),
    [
        (4, PROMPT, "0 to 3"),
        (-1, PROMPT, "0 to 3"),
        (3, PROMPT, "--unit radius"),
        (0, "", "no token"),
        (0, "zebra cat", "1 of the prompt's 2 tokens are unknown"),
        (0, "cat " * 40, "40 tokens, and at most 22"),
        (0, "cat " * 23, "23 tokens, and at most 22"),
    ],
)
def test_what_cannot_be_steered_is_explained(run, latent, prompt, words):
    with pytest.raises(ValueError, match=words):
        steer(run, latent, prompt, unit="own")


def test_a_world_has_no_text(tmp_path):
    x = held_out(WORLD, 64).x
    made = Dictionary(x.shape[1], 4, TopK(1))
    made.W_dec.data[:, :4] = torch.eye(4)
    world = save_run(tmp_path / "run", making(experiment(), made), made, Normaliser.fit(x, "none"), x, {})
    with pytest.raises(ValueError, match="a World"):
        steer(world, 0, PROMPT)


def test_the_command_shows_both_texts_and_the_changed_tokens(run, capsys):
    asked = ["steer", str(run.path), "--latent", "0", "--prompt", PROMPT, "--scale", "100", "--unit", "own"]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "without" in shown and "with" in shown and "bird" in shown
    assert main([*asked[:3], "9", *asked[4:]]) == 2
    assert "0 to 3" in capsys.readouterr().err
    assert main([*asked[:7], "0", *asked[8:]]) == 0
    assert "nothing changes" in capsys.readouterr().out


@pytest.mark.parametrize(("scale", "words"), [(float("nan"), "scale is nan"), (1e38, "not finite after a push")])
def test_a_push_after_which_nothing_is_finite_is_no_result(run, scale, words):
    with pytest.raises(ValueError, match=words):
        steer(run, 0, PROMPT, scale=scale)
