"""Controllability: the truth of an additive orthonormal world is at the top, an untrained dictionary at chance."""

import math
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from tests.known import CURVED, covering, making, reading, truth, untrained
from tests.small import WORLD, experiment
from tests.tiny_lm import source, write_corpus, write_model
from torch import Tensor

from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.effects.effect import pooled_effect
from unbraid.effects.independence import interactions
from unbraid.evals.controllability import DEFINITIONS, controllability, controllability_scores, push_setup, true_levels
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.runs.run import save_run
from unbraid.sources.base import Source
from unbraid.sources.cached import write_cache
from unbraid.sources.stream import held_out
from unbraid.sources.tensor import Activations
from unbraid.sources.world.world import World

ADDITIVE = World(
    factors=24,
    d_in=48,
    coherence=0.0,
    l0=2.0,
    roots=4,
    depth=1,
    noise=0.0,
    interactions=0,
    effective=1.0,
    gate="additive",
)
"""Orthonormal factors, read linearly: each can be moved alone, and nothing interacts."""
GATED = replace(ADDITIVE, gate="hard", interactions=6, interaction=2.0)


def values(scores: list[Score]) -> dict[str, float]:
    """By metric, kind and size: modularity/chance/own."""
    return {"/".join([s.metric, s.kind, *map(str, s.params.values())]): s.value for s in scores}


@lru_cache
def of_truth(world: World) -> dict[str, float]:
    return values(controllability_scores(truth(world), world))


def scored(dictionary: Dictionary, world: Source = ADDITIVE) -> dict[str, float]:
    return values(controllability_scores(dictionary, world))


def test_the_truth_of_an_additive_orthonormal_world_moves_one_thing_at_a_time():
    found = of_truth(ADDITIVE)
    tops = ("modularity/measured", "modularity/measured/own", "isolation/measured", "hit/measured", "felt/measured")
    assert [found[name] for name in tops] == pytest.approx([1] * 5, abs=1e-4)
    assert found["interaction/measured"] < 1e-4
    assert found["additive_r2/measured"] == pytest.approx(1, abs=1e-4) == found["context_ceiling/measured"]
    assert found["atom_overlap/measured"] == pytest.approx(0, abs=1e-4)
    for name in ("modularity", "isolation", "hit", "interaction"):
        assert found[f"{name}/ceiling"] == pytest.approx(found[f"{name}/measured"], abs=1e-4)


def test_effects_behind_gates_add_up_better_for_the_truth_than_for_random_directions():
    found = of_truth(GATED)
    assert found["additive_r2/chance"] < found["additive_r2/measured"] - 0.05
    assert found["additive_r2/measured"] <= found["context_ceiling/measured"] < 0.95
    assert found["additive_r2/measured"] == pytest.approx(found["additive_r2/ceiling"], abs=0.2)


def test_atoms_that_the_layers_after_hardly_see_add_up_and_their_effect_says_so():
    blind = torch.linalg.svd(GATED.directions, full_matrices=True)[2][24:]
    nearly = torch.nn.functional.normalize(blind + 0.05 * GATED.directions, dim=1)
    found = scored(reading(GATED, truth(GATED).W_enc.T, nearly), GATED)
    short = lambda scores: scores["context_ceiling/measured"] - scores["additive_r2/measured"]
    assert short(found) < 0.5 * short(of_truth(GATED)) and found["effect/measured"] < 0.3


def test_gates_do_not_spoil_it():
    found = of_truth(GATED)
    assert found["modularity/measured"] > 0.95 and found["hit/measured"] == 1.0


def test_random_directions_move_everything():
    found = of_truth(ADDITIVE)
    # |cos| with 24 orthonormal factors: the largest share of |normal| draws.
    draws = torch.randn(4096, 24, generator=torch.Generator().manual_seed(0)).abs()
    expected = ((draws.amax(1) / draws.sum(1)).mean() - 1 / 24) / (1 - 1 / 24)
    assert found["modularity/chance/own"] == pytest.approx(float(expected), abs=0.015)
    assert found["effect/chance"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("world", [ADDITIVE, WORLD], ids=["additive", "superposed"])
def test_an_untrained_dictionary_is_at_the_stated_chance(world: World):
    found = scored(untrained(world, 128), world)
    for name, within in {
        "modularity": 0.03,
        "isolation": 0.03,
        "overlap": 0.05,
        "interaction": 0.05,
        "additive_r2": 0.05,
        "context_ceiling": 0.05,
        "atom_overlap": 0.05,
        "hit": 0.2,
    }.items():
        assert found[f"{name}/measured"] == pytest.approx(found[f"{name}/chance"], abs=within), name
    assert found["effect/measured"] == pytest.approx(1, abs=0.15)
    assert found["modularity/chance"] < found["modularity/ceiling"] - 0.05
    assert found["isolation/chance"] < found["isolation/ceiling"] - 0.1


def test_the_planted_interaction_of_a_pair_is_what_the_formula_says():
    """Both gates are linear above the threshold: with the pair's factors pushed well past it where they were off, what
    is planted on top is the product of the gates."""
    contexts, push = push_setup(GATED).contexts, 3.0
    read = (contexts.acts - GATED.offset) @ GATED.directions.T
    gate = lambda z: (z - GATED.threshold).relu()
    for pair, planted in zip(GATED.pairs, GATED.pair_effects, strict=True):
        one, other = (read[..., factor] for factor in pair)
        left, right = push * GATED.directions[pair[:1]], push * GATED.directions[pair[1:]]
        up, beside = gate(one + push) - gate(one), gate(other + push) - gate(other)
        apart = [
            (rise.unsqueeze(-1) * GATED.effects[factor] + (rise * gate(still)).unsqueeze(-1) * planted).mean((0, 1))
            for rise, still, factor in ((up, other, pair[0]), (beside, one, pair[1]))
        ]
        expected = (up * beside).mean() * planted.norm() / (apart[0].norm() + apart[1].norm())
        found = interactions(*(pooled_effect(contexts, part) for part in (left + right, left, right)))
        assert float(found) == pytest.approx(float(expected), rel=1e-3)


def test_the_order_of_latents_changes_nothing_but_their_pairs():
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    found, same = scored(truth(ADDITIVE, order=order)), of_truth(ADDITIVE)
    assert found == pytest.approx(same, abs=1e-3)


def test_every_effect_of_a_doubled_truth_has_a_copy():
    doubled = truth(ADDITIVE, order=torch.arange(24).repeat(2))
    assert scored(doubled)["overlap/measured"] == pytest.approx(1, abs=1e-5)
    assert of_truth(ADDITIVE)["overlap/measured"] < 0.6


def test_writing_another_factor_than_the_one_read_is_modular_but_misses():
    read, written = truth(ADDITIVE).W_enc.T, ADDITIVE.directions.roll(1, 0)
    found = scored(reading(ADDITIVE, read, written))
    assert found["modularity/measured"] == pytest.approx(1, abs=1e-3)
    assert found["hit/measured"] == 0 and found["isolation/measured"] < 0.05


def test_a_latent_of_two_factors_moves_both_alike():
    pairs = ADDITIVE.directions[:12] + ADDITIVE.directions[12:]
    found = scored(reading(ADDITIVE, truth(ADDITIVE).W_enc.T[:12], pairs))
    assert found["modularity/measured"] == pytest.approx((1 / 2 - 1 / 24) / (1 - 1 / 24), abs=1e-3)
    assert found["isolation/measured"] == pytest.approx(0.5, abs=1e-3)


def test_signed_codes_push_along_what_they_write():
    """Minus each factor, read with a minus sign, is the truth; its pushes go down, as its codes do."""
    from tests.evals.test_recovery import Signed

    flipped = truth(ADDITIVE, activation=Signed())
    flipped.W_dec.neg_()
    flipped.W_enc.neg_()
    found = scored(flipped)
    names = [name for name in found if name.endswith(("measured", "measured/own"))]
    assert {n: found[n] for n in names} == pytest.approx({n: of_truth(ADDITIVE)[n] for n in names}, abs=1e-3)


def test_dead_latents_are_not_set():
    half = truth(ADDITIVE, order=torch.arange(24).repeat(2))
    half.W_dec[24:] = untrained(ADDITIVE, 24).W_dec
    half.W_enc[:, 24:] = 0
    found = scored(half)
    assert found["modularity/measured"] == pytest.approx(1, abs=1e-4) and found["felt/measured"] == 1


def test_a_dictionary_without_living_latents_scores_nothing():
    dead = truth(ADDITIVE)
    dead.W_enc.zero_()
    found = scored(dead)
    assert all(math.isnan(value) for name, value in found.items() if "measured" in name and "radius" not in name)
    assert found["modularity/ceiling"] == pytest.approx(1, abs=1e-4)


def test_layers_that_do_nothing_leave_nothing_to_score():
    inert = replace(ADDITIVE, effective=0.0)
    found = scored(truth(inert), inert)
    assert found.pop("radius/measured/spread") > 0
    assert {value for name, value in found.items() if name.startswith("felt")} == {0.0}
    assert all(math.isnan(value) for name, value in found.items() if not name.startswith("felt"))


def test_every_score_has_a_definition_and_a_chance():
    scores = controllability_scores(truth(ADDITIVE), ADDITIVE)
    assert {s.metric for s in scores} == set(DEFINITIONS)
    kinds = {metric: {s.kind for s in scores if s.metric == metric} for metric in DEFINITIONS}
    assert all({"measured", "chance", "ceiling"} <= kinds[metric] for metric in DEFINITIONS if metric != "radius")
    assert len({(s.metric, s.kind, *s.params.items()) for s in scores}) == len(scores)


def run_on(tmp_path, source, x: Tensor):
    normaliser = Normaliser.fit(x, "centre-scale")
    dictionary = untrained(WORLD, 64)
    return save_run(tmp_path, making(replace(experiment(), source=source), dictionary), dictionary, normaliser, x, {})


def test_a_saved_run_scores_as_its_dictionary_does(tmp_path):
    run = run_on(tmp_path, WORLD, WORLD.sample(512, seed=0).x)
    assert values(controllability(run)) == scored(run.dictionary(), WORLD)


def test_a_language_model_is_scored_without_any_truth(tmp_path):
    text = write_corpus(tmp_path / "text.jsonl", 200)
    model = source(write_model(tmp_path / "llama"), text)
    x = held_out(model, 4096).x
    made = DictionaryConfig(d_sae=64, activation=TopK(8)).build(x, seed=0).requires_grad_(False)
    found = scored(made, model)
    told = {name for name in found if name.startswith(("modularity", "isolation", "hit"))}
    assert not told | {name for name in found if name.endswith("/ceiling")}
    assert all(math.isfinite(value) for value in found.values())
    assert found["effect/measured"] == pytest.approx(1, abs=0.2) and found["effect/chance"] == pytest.approx(1, abs=0.2)
    assert found["interaction/measured"] > 0.1 and 1 < found["effect_rank/measured"] < 16


def test_a_cache_of_a_world_is_scored_as_the_world(tmp_path):
    cached = write_cache(WORLD, tmp_path / "cache", blocks=1, seed=0)
    made = covering(WORLD)
    assert scored(made, cached) == scored(made, WORLD)


def test_without_layers_after_it_does_not_apply(tmp_path):
    x = WORLD.sample(512, seed=0).x
    run = run_on(tmp_path / "run", Activations(x), x)
    with pytest.raises(NotApplicable, match="needs the layers downstream of the activations: .*LanguageModel or World"):
        controllability(run)


def test_pushing_along_a_point_of_a_manifold_moves_that_manifold_alone():
    rows = CURVED.labelled(256, split="eval")
    levels = true_levels(CURVED, rows)
    assert (levels[:, list(CURVED.subspaces)] == 0).all()
    assert torch.equal(levels[:, :22], rows.dense()[:, :22])
    scores = controllability_scores(covering(replace(CURVED, effective=1.0)), replace(CURVED, effective=1.0))
    found = {(s.metric, s.kind): s.value for s in scores if not s.params}
    assert found["hit", "ceiling"] == 1 and found["hit", "measured"] == 1
    assert found["isolation", "ceiling"] > 0.9
