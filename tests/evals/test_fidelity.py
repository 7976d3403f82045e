"""Fidelity: closed forms, signed codes, and splicing that changes nothing or everything."""

import json

import pytest
import torch
from tests.tiny_lm import CONTEXT, write_corpus, write_model
from torch import Tensor

from unbraid.dictionary.activations.base import Activation, Selecting
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import code_matrix
from unbraid.evals.fidelity import (
    ROWS,
    clean_pass,
    max_decoder_cosine,
    ratio_error,
    reconstruction,
    splicing,
)
from unbraid.sources.behind import model_to_splice, say_what_is_missing
from unbraid.sources.cached import Cached, write_cache
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.language_model.splicing import TOKENS, counted, scored_windows
from unbraid.sources.stream import held_out

X = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * 2 + 3


class Signed(Selecting):
    """Every pre-activation as it is."""

    def support(self, chunks, threshold, dense_above):
        return None

    def value(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre

    def dense(self, pre: Tensor, threshold: Tensor) -> Tensor:
        return pre


def dictionary(d_in: int, atoms: Tensor, activation: Activation, bias: Tensor | float = 0.0) -> Dictionary:
    made = Dictionary(d_in, len(atoms), activation)
    with torch.no_grad():
        made.W_dec.copy_(atoms)
        made.W_enc.copy_(atoms.T)
        made.b_dec.copy_(torch.as_tensor(bias))
    return made.requires_grad_(False)


def values(made: Dictionary, x: Tensor = X) -> dict[str, float]:
    return {score.metric: score.value for score in reconstruction(made, x, code_matrix(made, x))}


def test_a_mean_predictor_explains_nothing():
    silent = dictionary(6, torch.eye(6), ReLU(), X.mean(0))
    silent.b_enc.fill_(-1e3)
    found = values(silent)
    assert found["explained_variance"] == pytest.approx(0, abs=1e-6)
    assert found["l0"] == 0 and found["alive"] == 0 and found["l1"] == 0


def test_an_exact_dictionary_explains_everything():
    exact = dictionary(6, torch.cat([torch.eye(6), -torch.eye(6)]), ReLU(), X.mean(0))
    found = values(exact)
    assert found["fvu"] < 1e-12 and found["cosine"] == pytest.approx(1) and found["l2_ratio"] == pytest.approx(1)
    assert found["l0"] == pytest.approx(6) and found["alive"] == 1


def test_half_the_coordinates_explain_their_share_of_the_variance():
    half = dictionary(6, torch.cat([torch.eye(6)[:3], -torch.eye(6)[:3]]), ReLU(), X.mean(0))
    variance = X.double().var(0, correction=0)
    assert values(half)["fvu"] == pytest.approx(float(variance[3:].sum() / variance.sum()), rel=1e-5)


def test_signed_codes_count_negative_latents_as_active():
    found = values(dictionary(6, torch.eye(6), Signed(), X.mean(0)))
    centred = (X - X.mean(0)).double()
    assert found["l0"] == 6 and found["fvu"] < 1e-12 and found["alive"] == 1
    assert found["l1"] == pytest.approx(
        float(centred.abs().sum(1).mean() / centred.square().sum(1).mean().sqrt()), rel=1e-5
    )


def test_shrinkage_is_seen():
    small = dictionary(6, torch.cat([torch.eye(6), -torch.eye(6)]), ReLU())
    small.W_enc.mul_(0.5)
    assert values(small)["l2_ratio"] == pytest.approx(0.5)


def test_rows_of_zero_have_no_direction_and_no_share():
    exact = dictionary(6, torch.cat([torch.eye(6), -torch.eye(6)]), ReLU())
    exact.b_dec.fill_(0.1)
    exact.b_enc.fill_(0.05)
    found, alone = values(exact, torch.cat([X, torch.zeros(50, 6)])), values(exact, X)
    assert found["l2_ratio"] == pytest.approx(alone["l2_ratio"]) and found["cosine"] == pytest.approx(alone["cosine"])
    none = values(exact, torch.zeros(50, 6))
    assert none["l2_ratio"] != none["l2_ratio"] and none["cosine"] != none["cosine"], "NaN, not zero"


def test_a_constant_input_has_no_variance_to_explain():
    found = values(dictionary(6, torch.eye(6), ReLU()), torch.ones(10, 6))
    assert found["fvu"] != found["fvu"], "NaN, not zero"


def test_largest_cosines_by_hand():
    third = torch.tensor([[0.6, 0.8]])
    assert max_decoder_cosine(torch.cat([torch.eye(2), third])) == pytest.approx((0.6 + 0.8 + 0.8) / 3)
    assert max_decoder_cosine(torch.cat([torch.eye(3), -torch.eye(3)]), rows=2) == 1.0
    assert max_decoder_cosine(torch.eye(1)) != max_decoder_cosine(torch.eye(1)), "one atom has no other: NaN"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> LanguageModel:
    home = tmp_path_factory.mktemp("model")
    text = write_corpus(home / "text.jsonl", 200)
    return LanguageModel(
        model=str(write_model(home / "llama")),
        layer=1,
        text=str(text),
        context=CONTEXT,
        buffer_tokens=512,
        eval_share=0.3,
    )


def spliced(made: Dictionary, model: LanguageModel) -> dict[str, float]:
    return {s.metric + str(s.params.get("against", "")): s.value for s in splicing(made, model)}


def test_splicing_an_exact_reconstruction_costs_nothing(model: LanguageModel):
    exact = dictionary(model.d_in, torch.cat([torch.eye(model.d_in), -torch.eye(model.d_in)]), ReLU())
    found = spliced(exact, model)
    assert found["kl"] == pytest.approx(0, abs=1e-6)
    assert found["loss_recoveredzero"] == pytest.approx(1, abs=1e-3)
    assert found["ce_spliced"] == pytest.approx(found["ce_clean"], abs=1e-5)


def test_splicing_an_ablation_recovers_nothing(model: LanguageModel):
    zero = dictionary(model.d_in, torch.eye(model.d_in), TopK(1))
    zero.b_enc.fill_(-1e4)
    assert spliced(zero, model)["loss_recoveredzero"] == pytest.approx(0, abs=1e-6)
    zero.b_dec.copy_(held_out(model, ROWS).x.mean(0))
    assert spliced(zero, model)["loss_recoveredmean"] == pytest.approx(0, abs=1e-6)


def zeroing(model: LanguageModel) -> Dictionary:
    """A dictionary of half the coordinates."""
    return dictionary(model.d_in, torch.cat([torch.eye(model.d_in), -torch.eye(model.d_in)])[::2], ReLU())


def test_fault_07_and_18_losses_are_taken_over_all_tokens_that_are_held_out_up_to_a_number_that_is_stored(
    model: LanguageModel,
):
    found = spliced(zeroing(model), model)
    pool = model._corpus.pool("eval")
    windows = pool.windows(torch.arange(len(pool)))
    all_there = int((windows.keep[:, :-1] & windows.attention[:, 1:]).sum())
    assert len(pool) > 64, "more than were read before"
    assert found["ce_tokens"] == all_there < TOKENS
    few = scored_windows(model, 100)
    counts = counted(few).sum(1)
    assert int(counts.sum()) >= 100 and int(counts[:-1].sum()) < 100, "as few as will do"


def test_fault_18_the_standard_error_is_that_of_draws_of_documents():
    rng = torch.Generator().manual_seed(0)
    below = 1 + torch.rand(4000, 200, generator=rng, dtype=torch.float64)
    above = 0.8 * below + 0.3 * torch.randn(4000, 200, generator=rng, dtype=torch.float64)
    shares = above.sum(1) / below.sum(1)
    errors = [ratio_error(a, b) for a, b in zip(above[:200], below[:200], strict=True)]
    assert sum(errors) / len(errors) == pytest.approx(float(shares.std()), rel=0.05)
    assert ratio_error(torch.tensor([3.0, 3.0]), torch.tensor([4.0, 4.0])) == 0
    assert ratio_error(torch.ones(1), torch.ones(1)) != ratio_error(torch.ones(1), torch.ones(1)), "NaN"


def test_fault_18_a_score_has_its_error_beside_it(model: LanguageModel):
    found = spliced(zeroing(model), model)
    for way in ("zero", "mean"):
        assert 0 < found[f"loss_recovered_se{way}"] < 1
    exact = dictionary(model.d_in, torch.cat([torch.eye(model.d_in), -torch.eye(model.d_in)]), ReLU())
    assert spliced(exact, model)["loss_recovered_sezero"] < 1e-4, "it recovers all in every document"


def test_the_clean_model_runs_once_for_all_runs_of_a_source_and_gives_the_same_without_being_kept(
    model: LanguageModel, monkeypatch
):
    kept = spliced(zeroing(model), model)
    monkeypatch.setattr("unbraid.evals.fidelity.CLEAN_BYTES", 0)
    clean_pass.cache_clear()
    assert clean_pass(model).kept == ()
    assert spliced(zeroing(model), model) == pytest.approx(kept, abs=1e-6)
    clean_pass.cache_clear()
    monkeypatch.undo()
    calls = []
    monkeypatch.setattr(
        LanguageModel, "logits", lambda self, w, own=LanguageModel.logits: calls.append(1) or own(self, w)
    )
    spliced(zeroing(model), model)
    first = len(calls)
    spliced(zeroing(model), model)
    assert 0 < len(calls) - first < first


def test_fault_07_few_tokens_are_told(model: LanguageModel, caplog):
    clean_pass.cache_clear()
    with caplog.at_level("INFO", logger="unbraid"):
        clean = clean_pass(model)
    assert f"losses are taken over {len(clean.losses):,} tokens, not 16,384" in caplog.text


def test_a_run_on_a_cache_has_the_cross_entropy_of_a_run_on_the_model(model: LanguageModel, tmp_path):
    cached = write_cache(model, tmp_path / "cache", seed=0, blocks=1)
    behind = model_to_splice(cached)
    assert behind is not None
    left, right = spliced(zeroing(model), behind), spliced(zeroing(model), model)
    assert left == right


def test_fault_26_a_run_on_a_cache_is_told_why_it_gets_no_cross_entropy(model: LanguageModel, caplog, tmp_path):
    cached = write_cache(model, tmp_path / "cache", seed=0, blocks=1)
    index = json.loads((tmp_path / "cache/index.json").read_text())
    index["source"]["text"] = "gone.jsonl"
    (tmp_path / "cache/index.json").write_text(json.dumps(index))
    say_what_is_missing.cache_clear()
    with caplog.at_level("WARNING", logger="unbraid"):
        assert model_to_splice(Cached(folder=cached.folder)) is None
    assert "without cross-entropy: what it was written from cannot be read" in caplog.text
    assert "gone.jsonl" in caplog.text
