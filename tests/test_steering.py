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
from unbraid.effects.next_token_kl import next_token_kl
from unbraid.runs.run import Run, save_run
from unbraid.sources.language_model.loading import load_model
from unbraid.sources.stream import held_out
from unbraid.steering.continuation import expected_along, written
from unbraid.steering.output_score import log_odds, slope, wanted_tokens
from unbraid.steering.side_effects import side_effects, without
from unbraid.steering.steer import asked_of, find_latents, steer
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
    found = steer(run, 0, PROMPT, scale=-100.0, unit="own", top=48, tokens=1, side=False)
    bird = next(token for token in found.expected if token.token == "bird")
    assert bird.after < bird.before / 100


def test_a_scale_of_nothing_changes_nothing(run):
    found = steer(run, 0, PROMPT, scale=0.0, unit="own", tokens=4, side=False)
    assert found.before == found.after
    assert all(token.before == token.after for token in found.expected)


def test_a_fits_radius_is_the_unit_of_its_run(run):
    path = run.path / "fit.safetensors"
    write_tensors(path, {"radius": torch.tensor(7.0)})
    try:
        assert steer(run, 0, PROMPT, scale=2.0, tokens=1, side=False).size == pytest.approx(14.0)
        assert steer(run, 0, PROMPT, scale=2.0, unit="own", tokens=1, side=False).size != pytest.approx(14.0)
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
    push = ["--scale", "100", "--unit", "own", "--tokens", "3"]
    asked = ["steer", str(run.path), "--latent", "0", "--prompt", PROMPT, *push]
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


# ---- by a budget, several together, and by words


def test_a_budget_sets_the_length_whatever_the_latent(run):
    for latents, scale in ((0, 1.0), (0, -1.0), (1, 1.0), ([0, 1], 1.0)):
        found = steer(run, latents, PROMPT, kl=0.3, scale=scale, tokens=4, side=False)
        assert found.kl == pytest.approx(0.3, rel=0.02)
        assert found.unit == "a budget of 0.3 nats a token" and (found.size > 0) == (scale > 0)


def test_one_latent_that_never_fires_can_be_pushed_by_a_budget(run):
    assert steer(run, 3, PROMPT, kl=0.3, tokens=2, side=False).kl == pytest.approx(0.3, rel=0.02)


def test_scales_say_how_much_of_a_shared_budget_is_along_which_latent(run):
    model, made = run.source, run.dictionary()
    units = [steer(run, i, PROMPT, tokens=1, side=False).size for i in (0, 1)]
    both = steer(run, [0, 1], PROMPT, scale=[1.0, -0.5], kl=0.2, tokens=2, side=False)
    vector = units[0] * made.unit_atoms()[0] - 0.5 * units[1] * made.unit_atoms()[1]
    push = (both.size * vector / vector.norm()).detach()
    asked = asked_of(model, PROMPT, 2, False)
    along = expected_along(model, asked.words, asked.own)
    assert float(next_token_kl(along, push.unsqueeze(0))) == pytest.approx(0.2, rel=0.02)


def test_pushes_by_hand_add_up(run):
    one, other = (steer(run, i, PROMPT, tokens=1, side=False).size for i in (0, 1))
    atoms = run.dictionary().unit_atoms()
    wanted = float((2 * one * atoms[0] - other * atoms[1]).norm())
    assert steer(run, [0, 1], PROMPT, scale=[2.0, -1.0], tokens=1, side=False).size == pytest.approx(wanted, rel=1e-5)


def test_what_is_written_is_the_argmax_of_the_pushed_model_step_by_step(run, monkeypatch):
    model = run.source
    monkeypatch.setattr(model._model.generation_config, "repetition_penalty", 50.0)  # as a hub model may say
    words = model.loaded_tokenizer.tokenize(PROMPT)
    pushes = torch.stack([torch.zeros(model.d_in), 5.0 * run.dictionary().unit_atoms()[0].detach()])
    for push, found in zip(pushes, written(model, words, pushes, 4), strict=True):
        text = list(words)
        for token in found:
            logits = model.spliced_logits(model.whole([text]), lambda x, by=push: x + by)[0, -1]
            assert model.loaded_tokenizer.convert_ids_to_tokens(int(logits[:41].argmax())) == token
            text.append(token)


def test_the_latent_that_says_a_word_is_found_by_it_and_one_that_only_fires_is_not(run):
    # latent 0's atom is the output vector of "bird"; biases make it fire everywhere alike
    found = find_latents(run, "bird", PROMPT, kl=0.3, tokens=4)
    assert [one.by_output for one in found] == [1, 2, 3, 4]
    assert found[0].latent == 0 and found[0].output_score > max(1.0, 2 * found[1].output_score)
    assert sorted(one.by_activation for one in found) == [1, 2, 3, 4]


def test_the_slope_is_the_rise_of_the_log_odds_at_a_small_push(run):
    model = run.source
    asked = asked_of(model, PROMPT, 4, False)
    along = expected_along(model, asked.words, asked.own)
    wanted = wanted_tokens(model, "bird key").ids
    way = torch.nn.functional.normalize(torch.randn(model.d_in, generator=torch.Generator().manual_seed(0)), dim=0)
    mean = lambda push: torch.cat([log_odds(text.pushed_logits(push.unsqueeze(0))[0], wanted) for text in along]).mean()
    with torch.no_grad():
        rise = float(mean(0.05 * way) - mean(-0.05 * way)) / 0.1
    assert float(slope(along, wanted) @ way) == pytest.approx(rise, rel=0.02, abs=1e-3)


def test_words_are_spelt_with_and_without_capitals_and_unknown_ones_are_left_out(run):
    assert wanted_tokens(run.source, "bird zebra").texts == ["bird"]
    with pytest.raises(ValueError, match="'zebra' holds no word"):
        wanted_tokens(run.source, "zebra")


def test_side_effects_are_measured_where_the_latents_do_not_fire(run):
    model, made = run.source, run.dictionary()
    quiet = side_effects(model, made, [3], torch.zeros(model.d_in))
    assert quiet.kl == pytest.approx(0, abs=1e-6) and quiet.loss == pytest.approx(quiet.pushed_loss) and not quiet.note
    pushed = side_effects(model, made, [3], 5 * made.unit_atoms()[3].detach())
    assert pushed.tokens == quiet.tokens and pushed.loss == quiet.loss and pushed.kl > 0.01
    everywhere = side_effects(model, made, [0, 1, 2], torch.zeros(model.d_in))
    assert "in every window" in everywhere.note
    windows = model.windows(8, split="eval", seed=0)
    word = int(windows.ids[0][windows.keep[0]][0])
    free = without(model, made, windows, [3], [word])
    assert free.tolist() == [word not in ids[keep] for ids, keep in zip(windows.ids, windows.keep, strict=True)]
    assert 0 < int(free.sum()) < 8


def test_a_run_on_a_few_prompts_needs_no_held_out_text(run, tmp_path):
    prompts = write_corpus(tmp_path / "prompts.jsonl", 3)
    few = replace(run.source, text=str(prompts), eval_share=0.0)
    made, x = run.dictionary(), few.windows(3, split="train", seed=0)
    rows = few.activations(x)[x.keep]
    bare = save_run(
        tmp_path / "run", making(replace(experiment(), source=few), made), made, Normaliser.fit(rows, "none"), rows, {}
    )
    found = steer(bare.path, 0, PROMPT, kl=0.3, tokens=2)
    assert found.side is not None and "the run was made from" in found.side.note
    assert find_latents(bare.path, "bird", PROMPT, kl=0.3, tokens=2)[0].latent == 0


@pytest.mark.parametrize(
    ("latents", "asked", "words"),
    [
        ([], {}, "at least one"),
        ([0, 0], {}, "each once"),
        ([0, 1], {"scale": [1.0, 2.0, 3.0]}, "3 scales for 2 latents"),
        (0, {"scale": 0.0, "kl": 0.5}, "add up to nothing"),
        (0, {"kl": 0.0}, "kl is 0"),
        (0, {"kl": 1e6}, "beyond reach of latent 0"),
        (0, {"chat": True}, "no chat template"),
    ],
)
def test_what_cannot_be_pushed_by_a_budget_is_explained(run, latents, asked, words):
    with pytest.raises(ValueError, match=words):
        steer(run, latents, PROMPT, **asked)


def test_the_command_finds_latents_by_words_and_shows_both_rankings(run, capsys):
    asked = ["steer", str(run.path), "--prompt", PROMPT, "--tokens", "3"]
    assert main([*asked, "--find", "bird", "--kl", "0.3", "--best", "2"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "output score" in shown and "rank by it" in shown and "latents 0, " in shown
    assert "a KL of 0.3 nats a token" in shown and "side effects on" in shown
    assert main(asked) == 2 and main([*asked, "--find", "bird", "--latents", "0"]) == 2
    assert "one of both" in capsys.readouterr().err
