"""Selectivity: true directions of a simple world change one concept, random ones many; sums explain what adds up."""

import math
from dataclasses import replace

import pytest
import torch
from tests.small import WORLD
from tests.tiny_lm import source, write_corpus, write_model

from unbraid.effects.budget import spend
from unbraid.evals import selectivity
from unbraid.evals.selectivity import (
    BUDGET,
    Concepts,
    concepts_of,
    direction_scores,
    language_concepts,
    log_odds,
    single_values,
)
from unbraid.evals.shared.evaluation import NotApplicable
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.world.world import World

SIMPLE = World(d_in=24, factors=24, roots=24, depth=0, l0=3.0, interactions=0)


def by_name(scores, **params):
    return {score.metric: score.value for score in scores if params.items() <= score.params.items()}


def linear(read: torch.Tensor, contexts: int = 4) -> Concepts:
    """Concepts read off linearly, and a cost of half the squared length."""
    changes = lambda pushes: (pushes @ read).unsqueeze(1).expand(-1, contexts, -1)
    return Concepts([str(i) for i in range(read.shape[1])], changes, lambda p: p.square().sum(1) / 2, 1.0)


def test_shares_and_ratios_are_worked_out_by_hand():
    # the same in all contexts: 3 on its own concept, 1 and 2 on others; and one that moves all alike
    moved = torch.tensor([[3.0, -1.0, 2.0], [1.0, 1.0, -1.0]], dtype=torch.float64).unsqueeze(1).expand(-1, 4, -1)
    found = single_values(moved)
    assert found["selectivity"] == pytest.approx(0.5)  # of 3 / 3 and 1 / 2, the lower median
    assert found["target_share"] == pytest.approx((3 / 6 + 1 / 3) / 2)
    assert found["target_kept"] == 1.0 and found["stability"] == pytest.approx(1.0)


def test_the_own_concept_is_chosen_in_other_contexts_than_it_is_scored_in():
    # concept 0 moves in even contexts alone, concept 1 in odd ones: what was chosen does nothing in the others
    moved = torch.tensor([[[1.0, 0.0], [0.0, 1.0]] * 3], dtype=torch.float64)
    found = single_values(moved)
    assert found["selectivity"] == found["target_share"] == found["target_kept"] == 0.0
    assert found["stability"] == pytest.approx(0.0)


def test_a_concept_that_a_context_does_not_show_does_not_count_there():
    moved = torch.tensor([[[2.0, math.nan], [2.0, math.nan], [math.nan, 1.0], [math.nan, 1.0]]], dtype=torch.float64)
    assert single_values(moved)["target_share"] == pytest.approx(2 / 3)


def test_pushes_along_axes_that_are_read_apart_are_selective_and_add_up():
    found = by_name(direction_scores(linear(torch.eye(6)), torch.eye(6), "measured", "latents"))
    assert found["target_share"] == 1.0 and found["selectivity"] == math.inf
    assert found["reached"] == 1.0 and found["push"] == pytest.approx((2 * BUDGET) ** 0.5, rel=0.02)
    for n in (2, 3, 5):
        sums = by_name(direction_scores(linear(torch.eye(6)), torch.eye(6), "measured", "latents"), n=n)
        assert sums["together_r2"] == pytest.approx(1.0)


def test_a_concept_that_only_pairs_move_is_not_explained_by_single_pushes():
    both = lambda p: (p[:, :1] * p[:, 1:2]).unsqueeze(1).expand(-1, 4, 2)
    concepts = Concepts(["a", "b"], both, lambda p: p.square().sum(1) / 2, 1.0)
    found = by_name(direction_scores(concepts, torch.eye(3), "measured", "latents"), n=2)
    assert found["together_r2"] == pytest.approx(0.0)


def test_directions_that_do_nothing_are_out_of_reach_and_count_no_further():
    blind = linear(torch.eye(4))._replace(cost=lambda p: p[:, 0].square())
    found = by_name(direction_scores(blind, torch.eye(4), "measured", "latents"))
    assert found["reached"] == 0.25 and found["target_share"] == 1.0


def test_true_directions_of_a_world_are_selective_and_random_ones_at_chance():
    scores = selectivity.reference_scores(SIMPLE)
    true, random = (by_name(scores, directions=name) for name in ("true", "random"))
    assert true["target_share"] > 2 * random["target_share"] > 2 / len(concepts_of(SIMPLE).names)
    assert true["selectivity"] > 2.5 * random["selectivity"]
    assert {score.params["directions"] for score in scores} == {"random", "neurons", "principal", "probe", "true"}


def test_every_push_costs_the_same_in_a_world():
    concepts = concepts_of(WORLD)
    found = spend(concepts.cost, torch.eye(WORLD.d_in)[:4], BUDGET, longest=10 * concepts.norm)
    torch.testing.assert_close(found.cost, torch.full_like(found.cost, BUDGET), rtol=0.02, atol=0)


def test_log_odds_are_of_each_texts_own_words():
    logits = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]).log()
    chosen = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    torch.testing.assert_close(log_odds(logits, chosen), torch.tensor([1.0, 9.0]).log())


def test_text_without_known_variables_has_no_concepts(tmp_path):
    text = source(write_model(tmp_path / "model", "llama"), write_corpus(tmp_path / "words.jsonl"))
    with pytest.raises(NotApplicable, match="named concepts"):
        concepts_of(text)
    with pytest.raises(NotApplicable, match="fewer than two factors"):
        concepts_of(replace(SIMPLE, effect=0.0))


def test_a_model_whose_tokens_are_not_the_languages_words_is_refused(tmp_path):
    model = source(write_model(tmp_path / "model", "llama"), "language://40")
    with pytest.raises(NotApplicable, match="a model whose tokens are its words, and .*model splits them; interchange"):
        concepts_of(model)


@pytest.mark.slow
def test_reading_the_other_text_changes_its_own_variable_by_one():
    model = LanguageModel(text="language://60", layer=1, context=128)
    concepts = language_concepts(model)
    assert len(concepts.names) >= 8
    nothing = concepts.changes(torch.zeros(1, model.d_in))
    assert float(nothing.nan_to_num().abs().max()) < 1e-3
    assert bool(((~nothing.isnan()).sum(2) <= 1).all())  # a text shows one variable
    found = by_name(direction_scores(concepts, torch.eye(model.d_in)[:4], "reference", "neurons"))
    assert 0 < found["target_share"] < 1 and found["reached"] > 0
