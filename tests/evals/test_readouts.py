"""A model that was not trained on the language is judged by its own predictions, over the words that could come."""

import pytest
import torch
from tests import subword

from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.interchange import latent_swaps, score_swaps
from unbraid.evals.shared import pair_readings
from unbraid.evals.shared.evaluation import NotApplicable
from unbraid.evals.shared.pair_readings import Table, prepared, reader_of_language, usable_pairs
from unbraid.evals.shared.readouts import Readouts, comparable, readouts_of, speaks
from unbraid.sources.cached import write_cache
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.synthetic_language.pairs import pairs

OWN = Readouts(
    exact=False,
    before=torch.tensor([[0.5, 0.5, 0, 0, 0]]),
    after=torch.tensor([[0, 0.5, 0.5, 0, 0]]),
    betraying=[[torch.tensor([3])]],
)
"""Tokens 0 and 1 could come after the text, 1 and 2 after the other; 3 betrays; 4 has no part in it."""
HERE = torch.tensor([[0.4, 0.1, 0.0, 0.0, 0.5]])
THERE = torch.tensor([[0.0, 0.1, 0.3, 0.0, 0.6]])


def test_only_named_tokens_count_and_they_sum_to_one():
    torch.testing.assert_close(OWN.read(HERE), torch.tensor([[0.8, 0.2, 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(OWN.read(THERE), torch.tensor([[0.0, 0.25, 0.75, 0.0, 0.0]]))


def test_the_truth_is_what_the_model_says_of_the_other_text():
    assert float(OWN.distance(THERE, THERE)) == 0
    assert float(OWN.distance(HERE, THERE)) == pytest.approx(0.8)  # .8 leaves the first, .05 + .75 come


def test_words_that_betray_and_words_that_nothing_allows_are_told_apart():
    swapped = torch.tensor([[0.0, 0.1, 0.2, 0.1, 0.6]])
    assert OWN.leaks(HERE, THERE, swapped) == [pytest.approx(0.25)]  # .1 of the .4 that is named
    assert OWN.nonsense(HERE, THERE, swapped) == pytest.approx(0.1)
    assert OWN.leaks(HERE, THERE, THERE) == [0] and OWN.nonsense(HERE, THERE, HERE) == 0


@pytest.mark.parametrize(("gain", "follows"), [(1.0, True), (0.0, False), (-1.0, False)])
def test_a_variable_is_followed_where_the_odds_rise_with_it(gain: float, follows: bool):
    rows = 16
    readouts = Readouts(False, OWN.before.repeat(rows, 1), OWN.after.repeat(rows, 1), [[] for _ in range(rows)])
    logits = torch.randn(rows, 5, generator=torch.Generator().manual_seed(0))
    other = logits + gain * torch.tensor([-1.0, 0, 1, 0, 0])
    assert readouts.followed(logits.softmax(1), other.softmax(1)) is follows


def test_the_exact_truth_is_the_grammars():
    exact = Readouts(True, OWN.before, OWN.after, OWN.betraying)
    assert float(exact.distance(OWN.after, HERE)) == 0
    assert exact.followed(OWN.before, OWN.after) and not exact.followed(OWN.before, OWN.before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return subword.source(subword.write_model(tmp_path_factory.mktemp("readouts")))


def test_pairs_have_as_many_tokens_in_every_word_and_tokens_that_tell_them_apart(model: LanguageModel):
    found, tokenizer = pairs("number", 60, seed=0), subword.tokenizer()
    fitting = [pair for pair in found if comparable(pair, tokenizer)]
    assert not speaks(tokenizer) and 0 < len(fitting) < len(found)
    readouts = readouts_of(fitting, tokenizer, subword.VOCABULARY)
    assert readouts.after.shape == (len(fitting), subword.VOCABULARY)
    torch.testing.assert_close(readouts.after.sum(1), torch.ones(len(fitting), dtype=torch.float64))
    assert 0.5 * float((readouts.before - readouts.after).abs().sum(1).min()) >= 0.2


def small(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Table:
    for name, value in (("RANKED", 3), ("SCORED", 4), ("IN_FRONT", 1)):
        monkeypatch.setattr(pair_readings, name, value)
    pair_readings.model_in_front.cache_clear()
    return prepared(model, "tense")


def test_everything_swapped_after_documents_in_front_is_reading_the_other_text(model: LanguageModel, monkeypatch):
    table = small(model, monkeypatch)
    assert len(table.scored.reader.front) > 30
    both = Dictionary(16, 32, ReLU())
    with torch.no_grad():
        both.W_dec.copy_(torch.cat([torch.eye(16), -torch.eye(16)]))
        both.W_enc.copy_(both.W_dec.T)
    (all_, none) = score_swaps(table.scored, latent_swaps(both.requires_grad_(False), table, [(32, False), (0, False)]))
    assert all_.cause == pytest.approx(1, abs=1e-3) and all_.isolation == pytest.approx(1, abs=1e-3)
    assert none.cause == pytest.approx(0, abs=1e-6)


def test_a_tokenizer_that_never_gives_both_texts_as_many_tokens_is_refused(model: LanguageModel, monkeypatch):
    monkeypatch.setattr(pair_readings, "comparable", lambda pair, tokenizer: False)
    monkeypatch.setattr(pair_readings, "TRIED", 1)
    with pytest.raises(NotApplicable, match="0 of 48 pairs that differ in tense have as many tokens in both texts"):
        usable_pairs(model, "tense")


def test_the_model_behind_a_cache_reads_the_pairs(model: LanguageModel, tmp_path):
    cached = write_cache(model, tmp_path / "cache", seed=0, blocks=1)
    assert reader_of_language(cached) == reader_of_language(model) == model
