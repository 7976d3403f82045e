"""Causal cards: a push spends its budget, and a card names what it changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.sparse import csr_array
from tests import tiny_lm
from tests.evals.test_absorption import STEADY
from tests.known import EXACT, truth
from tests.small import experiment

from unbraid import catalog
from unbraid.effects.next_token_kl import next_token_kl
from unbraid.evals.causal_cards import BUDGET, NEIGHBOURS, SCHEMA, SHOWN, cards_of, chosen, most_cards, selectivity
from unbraid.evals.shared.evaluation import NotApplicable, evaluate
from unbraid.evals.shared.outcomes import Changes, outcomes_of
from unbraid.runs.results import read_file, read_result
from unbraid.runs.run import Run
from unbraid.sources.cached import write_cache
from unbraid.sources.language_model.predicting import predictions_of
from unbraid.sources.tensor import Activations
from unbraid.training.loop import train

NAMES = STEADY.truth().names
READ = (torch.linalg.vector_norm(STEADY.effects, dim=1) > 0).tolist()
"""Factors that have a readout; the others change nothing downstream."""


@pytest.fixture(scope="module")
def steady() -> list[dict]:
    return cards_of(truth(STEADY), STEADY).to_pylist()


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("tiny")
    source = tiny_lm.source(tiny_lm.write_model(folder / "model"), tiny_lm.write_corpus(folder / "text.jsonl"))
    return Run.open(train([replace(experiment("tiny", tokens=640), source=source)], folder / "runs")[0])


def test_the_true_direction_of_a_factor_raises_its_own_readout_alone(steady: list[dict]):
    assert any(READ) and not all(READ)
    for card in steady:
        if READ[card["latent"]]:
            assert card["raised"] == [NAMES[card["latent"]]] and card["selectivity"] == pytest.approx(1, abs=1e-4)
            assert card["raised_to"][0] > card["raised_from"][0] and card["lowered"] == []
            assert card["cost"] == pytest.approx(BUDGET, rel=0.03) and card["reached"]
        else:
            assert not card["reached"] and card["own_effect"] == pytest.approx(0, abs=1e-6)


def test_the_cost_on_a_world_is_half_the_squared_change_of_the_readouts(steady: list[dict]):
    latent = next(i for i, there in enumerate(READ) if there)
    push = 0.7 * truth(STEADY).unit_atoms()[[latent]]
    x = STEADY.labelled(256, split="eval", seed=0).x
    change = STEADY.readouts(x + push) - STEADY.readouts(x)
    by_hand = float(change.square().sum(1).mean()) / 2
    assert float(outcomes_of(STEADY).cost(push)) == pytest.approx(by_hand, rel=1e-5)


def test_interaction_is_what_two_pushes_do_beyond_the_sum_of_each():
    dictionary, outcomes = truth(EXACT), outcomes_of(EXACT)
    cards = cards_of(dictionary, EXACT).to_pylist()
    by_latent = {card["latent"]: card for card in cards}
    card = max(cards, key=lambda one: max(one["interaction"], default=0.0))
    other = by_latent[card["with"][0]]
    pushes = torch.stack([one["dose"] * one["high"] * dictionary.unit_atoms()[one["latent"]] for one in (card, other)])
    one, two = outcomes.changes(pushes).mean
    both = outcomes.changes(pushes.sum(0, keepdim=True)).mean[0]
    by_hand = float((both - one - two).norm() / (one.norm() + two.norm()))
    assert card["interaction"][0] == pytest.approx(by_hand, rel=1e-4) and by_hand > 0.1
    assert all(len(one["with"]) <= 2 * NEIGHBOURS and one["latent"] not in one["with"] for one in cards)


def test_a_card_on_a_language_model_spends_the_budget_of_next_token_kl(spoken: Run):
    assert evaluate([spoken], [catalog.evals()["causal_cards"]]) == 0
    result = read_result(spoken.path / "results" / "causal_cards.json")
    path = spoken.path / "results" / "causal_cards.latents.parquet"
    assert read_file(spoken.path, result, "latents.parquet") == path.read_bytes()
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA) and table.num_rows > 4
    model, atoms = spoken.source, spoken.dictionary().unit_atoms()
    texts = predictions_of(model, model.windows(8, split="eval", seed=0).shortened(24))  # pyright: ignore
    for card in table.slice(0, 4).to_pylist():
        push = card["dose"] * card["high"] * atoms[[card["latent"]]]
        assert float(next_token_kl(texts, push)) == pytest.approx(card["cost"], rel=1e-3)
        assert card["cost"] == pytest.approx(BUDGET, rel=0.03) or not card["reached"]
        assert float(push.norm()) == pytest.approx(card["length"] * outcomes_of(model).norm, rel=1e-3)
        assert 0 < len(card["raised"]) <= SHOWN and card["raised_to"][0] > card["raised_from"][0]
        assert card["lowered_to"][0] < card["lowered_from"][0] and 0 < card["steadiness"] <= 1
    scores = {(row["metric"], row["kind"]): row["value"] for row in result["scores"]}
    assert scores["cards", "measured"] == table.num_rows and scores["length", "chance"] > 0


def test_no_push_changes_nothing(spoken: Run):
    outcomes = outcomes_of(spoken.source)
    pushes = torch.stack([torch.zeros(16), torch.ones(16)])
    changes = outcomes.changes(pushes)
    assert changes.mean[0].abs().max() < 1e-6 and changes.mean[1].abs().max() > 1e-3


def test_selectivity_is_the_share_of_the_most_changed():
    changes = Changes(torch.tensor([[3.0, -1.0, 0.0], [1.0, 1.0, 1.0]]), torch.ones(2))
    assert selectivity(changes, EXACT).tolist() == pytest.approx([0.75, 1 / 3])


def test_some_of_many_latents_are_spread_over_their_rates():
    rng = np.random.default_rng(0)
    codes = csr_array(-(rng.random((4000, 50)) < np.linspace(0.05, 0.9, 50)).astype(float))
    some, high = chosen(codes, 5)
    rates = (codes.toarray() != 0).sum(0)
    assert rates[some].min() == rates.min() and rates[some].max() == rates.max() and len(some) == 5
    assert (high == -1).all() and len(chosen(codes, 1000)[0]) == 50


def test_the_number_of_cards_falls_with_the_model_but_not_without_end():
    assert [most_cards(*size) for size in ((128, 600), (576, 49_152), (2304, 256_000))] == [1024, 37, 32]


def test_where_nothing_follows_there_are_no_cards(tmp_path: Path):
    x = torch.randn(300, 16)
    with pytest.raises(NotApplicable, match="nothing downstream"):
        outcomes_of(Activations(x))


@pytest.mark.parametrize("kind", ["language", "world"])
def test_a_cache_is_pushed_at_the_source_that_it_was_written_from(kind: str, spoken: Run, tmp_path: Path):
    source, dictionary = (spoken.source, spoken.dictionary()) if kind == "language" else (STEADY, truth(STEADY))
    cached = write_cache(source, tmp_path / "cache", seed=0, blocks=1)
    assert outcomes_of(cached).norm == outcomes_of(source).norm
    ours, theirs = (
        {card["latent"]: card for card in cards_of(dictionary, one).to_pylist()} for one in (cached, source)
    )
    both = ours.keys() & theirs.keys()
    assert len(both) > 4
    for latent in both:
        assert ours[latent]["reached"] == theirs[latent]["reached"]
        assert ours[latent]["length"] == pytest.approx(theirs[latent]["length"], rel=1e-3)
        assert ours[latent]["raised"] == theirs[latent]["raised"]
