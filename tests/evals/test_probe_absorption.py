"""SAEBench's absorption with probes: what it sees of rare children, what it misses of frequent ones, its fractions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.known import EXACT, Undirected, readers, reading, truth, untrained

from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals import probe_absorption
from unbraid.evals.absorption import absorption_scores
from unbraid.evals.probe_absorption import (
    DEFINITIONS,
    Supplied,
    candidates,
    full,
    probe_absorption_scores,
    probed,
    published_fraction,
    revised_fraction,
    scores,
    true_codes,
)
from unbraid.evals.shared.evaluation import NotApplicable, Score
from unbraid.metrics.matching import cosines
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.truth import Labelled
from unbraid.sources.world.world import World

STEADY = replace(EXACT, spread=0.0, coherence=0.0)
"""Two children a parent, in a fifth and more of its rows."""
RARE = replace(
    STEADY, factors=40, d_in=48, roots=2, branching=16, exclusive=1.0, child_given_parent=(0.03, 0.03), zipf=0.0
)
"""Sixteen children a parent, each in 3 % of its rows and alone there."""


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe_absorption, "TRAIN_ROWS", 4096)
    monkeypatch.setattr(probe_absorption, "ROWS", 8192)


def named(found: list[Score]) -> dict[str, float]:
    return {f"{s.metric.removeprefix('probe_')} {s.params.get('definition', '')}".strip(): s.value for s in found}


def scored(dictionary: Dictionary, world: World = RARE, kind: str = "measured") -> dict[str, float]:
    found = probe_absorption_scores(dictionary, world)
    return named([s for s in found if s.kind == kind or s.metric == "probed"])


def absorbing(world: World, share: float) -> Dictionary:
    """Parents' latents leave out `share` of the parent for each active child, whose latent supplies it."""
    reads, atoms = readers(world), world.directions.clone()
    children = (world.parents >= 0).nonzero().squeeze(1)
    parents = world.parents[children]
    W_enc = reads.index_add(0, parents, -share * reads[children])
    atoms[children] += share * world.directions[parents]
    W_enc[children] *= torch.linalg.vector_norm(atoms[children], dim=1, keepdim=True)
    return reading(world, W_enc, atoms)


def test_the_truth_is_at_the_ceiling_and_absorbs_nothing():
    found = scored(truth(RARE))
    assert found == pytest.approx(scored(truth(RARE), kind="ceiling"), abs=1e-3)
    assert found["absorption_full"] == 0 and found["absorption_fraction 0.6.0"] == pytest.approx(0, abs=1e-3)
    assert found["main_latents"] == found["main_f1"] == found["probed"] == 1


@pytest.mark.parametrize(("share", "full_share"), [(1.0, 1.0), (0.5, 0.0)])
def test_what_rare_children_absorb_counts_wherever_the_parent_is(share: float, full_share: float):
    found, with_child = scored(absorbing(RARE, share)), 16 * 0.03
    assert found["absorption_full"] == pytest.approx(full_share * with_child, abs=0.02)
    assert found["absorption_fraction 0.3.2"] == pytest.approx(share * with_child, abs=0.02)
    assert found["absorption_fraction 0.6.0"] == pytest.approx(share * with_child, abs=0.02)
    assert found["main_latents"] == 1


def test_it_agrees_in_sign_with_absorption_without_probes_where_children_are_rare():
    probe = {share: scored(absorbing(RARE, share)) for share in (0.0, 0.5, 1.0)}
    free = {share: named(absorption_scores(absorbing(RARE, share), RARE)) for share in probe}
    for metric in ("absorption_fraction 0.3.2", "absorption_fraction 0.6.0"):
        assert probe[0.0][metric] < probe[0.5][metric] - 0.1 < probe[1.0][metric] - 0.2
    assert free[0.0]["absorption_fractional"] < free[0.5]["absorption_fractional"] < free[1.0]["absorption_fractional"]
    for one in (probe, free):
        assert one[0.0]["absorption_full"] == one[0.5]["absorption_full"] == 0 < one[1.0]["absorption_full"]


def test_frequent_children_that_absorb_are_taken_for_parts_of_their_parent():
    found, free = scored(absorbing(STEADY, 1.0), STEADY), named(absorption_scores(absorbing(STEADY, 1.0), STEADY))
    assert free["absorption_full"] == 1 and found["absorption_full"] < 0.1
    assert found["main_latents"] == 2
    assert found["absorption_fraction 0.3.2"] < scored(truth(STEADY), STEADY)["absorption_fraction 0.3.2"]


def test_the_order_of_the_latents_does_not_matter():
    for share in (0.0, 1.0):
        made = absorbing(RARE, share)
        moved = reading(RARE, made.W_enc.T.flip(0), made.W_dec.flip(0))
        assert scored(moved) == pytest.approx(scored(made), abs=1e-3)


def test_a_second_copy_of_the_truth_is_not_a_main_latent():
    made = truth(RARE, order=torch.arange(RARE.factors).repeat(2))
    found = scored(made)
    assert found["main_latents"] == 1 and found["absorption_full"] == 0


def test_an_untrained_dictionary_has_no_full_absorption_and_the_published_fraction_of_a_bad_one():
    found, chance = scored(untrained(RARE, 64)), scored(untrained(RARE, 64), kind="chance")
    for one in (found, chance):
        assert one["absorption_full"] < 0.02 and one["absorption_fraction 0.6.0"] < 0.1 and one["main_f1"] < 0.9
        assert one["absorption_fraction 0.3.2"] > scored(truth(RARE))["absorption_fraction 0.3.2"] + 0.2


def test_a_dictionary_that_never_fires_has_no_main_latent_and_nothing_to_absorb():
    silent = truth(RARE)
    silent.threshold.fill_(1e6)
    found = scored(silent)
    assert found.pop("probed") == 1 and found.pop("main_latents") == 0 and found.pop("main_f1") == 0
    assert all(math.isnan(value) for value in found.values())


def test_a_latent_that_never_fires_and_one_that_always_does_change_nothing():
    made = truth(RARE)
    more = reading(RARE, torch.cat([made.W_enc.T, torch.zeros(2, 48)]), torch.cat([made.W_dec, torch.eye(48)[:2]]))
    more.b_enc[-1] = 1e-2
    assert scored(more) == pytest.approx(scored(made), abs=0.01)


def test_parents_that_no_probe_finds_are_left_out_and_counted():
    noisy = replace(RARE, noise=2.0)
    found = scored(truth(noisy), noisy)
    assert found.pop("probed") == 0 and all(math.isnan(value) for value in found.values())


def test_a_world_without_children_has_nothing_to_absorb():
    flat = World(factors=24, d_in=32, l0=2.0, roots=4, depth=0, interactions=2)
    with pytest.raises(NotApplicable, match="no factor with children"):
        probe_absorption_scores(truth(flat), flat)


def test_a_parent_that_is_always_or_hardly_ever_active_is_no_candidate():
    rows = torch.cat([torch.arange(100), torch.arange(5), torch.arange(50)])
    factors = torch.cat([torch.full((100,), 0), torch.full((5,), 1), torch.full((50,), 2)])
    seen = Labelled(torch.zeros(100, 32), rows, factors, torch.ones(155), 24)
    assert STEADY.parents.unique().tolist() == [-1, 0, 1, 2, 3] and candidates(STEADY, seen, seen) == [2]


def test_without_directions_the_ceiling_is_differences_of_means():
    known = probed(RARE)
    coded = true_codes(Undirected(RARE), RARE.labelled(probe_absorption.TRAIN_ROWS, split="train"))
    assert float(cosines(coded.atoms, RARE.directions).diag()[:2].min()) > 0.99
    found = named(scores(coded, known.held, known.parents, "ceiling"))
    assert found["absorption_full"] == 0 and found["main_latents"] == found["main_f1"] == 1


def test_probes_are_fitted_once_for_all_runs_of_a_source():
    assert probed(replace(RARE)) is probed(RARE)


ROWS = {
    # (main, others), wanted: full, fraction 0.3.2, fraction 0.6.0
    "both supply": ([0.2], [0.5, 0.1], 1.0, False, 0.75, 0.75),
    "three others at most": ([0.2], [0.2, 0.2, 0.2, 0.2], 1.0, False, 0.8, 0.75),
    "others supply too little": ([0.2], [0.3], 1.0, False, 0.6, 0.0),
    "others supply more than is missing": ([0.8], [0.8], 1.0, False, 0.5, 0.2),
    "one other instead": ([], [0.5], 1.0, True, 1.0, 1.0),
    "two others instead": ([], [0.3, 0.3], 1.0, False, 1.0, 1.0),
    "nothing is active": ([], [], 1.0, False, 0.0, 0.0),
    "main supplies all": ([1.0], [0.5], 1.0, False, 0.0, 0.0),
    "nothing is wanted": ([], [0.5], -1.0, False, 0.0, 0.0),
    "main points away": ([-0.1], [0.5], 1.0, False, 1.0, 1.0),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_scored_by_hand(name: str):
    main, others, wanted, is_full, published, revised = ROWS[name]
    supply = hand_made(main, others, cosine=0.1)
    asked = np.array([wanted])
    assert full(supply, asked).tolist() == [is_full]
    if name != "nothing is wanted":  # 0.3.2 divides what supplies something by itself, wanted or not
        assert published_fraction(supply, asked).tolist() == pytest.approx([published])
    assert revised_fraction(supply, asked).tolist() == pytest.approx([revised])


@pytest.mark.parametrize(("cosine", "is_full", "revised"), [(0.02, False, 0.0), (0.03, True, 0.0), (0.1, True, 1.0)])
def test_an_absorber_must_point_along_the_probe(cosine: float, is_full: bool, revised: float):
    supply, wanted = hand_made([], [0.5], cosine=cosine), np.ones(1)
    # 0.6.0 gives 1 where mains supply nothing, but only after some absorber was found.
    assert full(supply, wanted).tolist() == [is_full] and revised_fraction(supply, wanted).tolist() == [revised]
    assert published_fraction(supply, wanted).tolist() == [1.0]


def test_rows_do_not_mix():
    supply = Supplied(np.array([0, 2, 2]), np.array([0.5, 0.5, 0.6]), np.ones(3), np.array([False, True, False]), 3)
    assert full(supply, np.ones(3)).tolist() == [True, False, False]
    assert published_fraction(supply, np.ones(3)).tolist() == pytest.approx([1, 0, 0.6 / 1.1])
    assert revised_fraction(supply, np.ones(3)).tolist() == pytest.approx([1, 0, 0.5])


def hand_made(main: list[float], others: list[float], *, cosine: float) -> Supplied:
    values = np.array([*main, *others])
    is_main = np.arange(len(values)) < len(main)
    return Supplied(np.zeros(len(values), dtype=int), values, np.full(len(values), cosine), is_main, 1)


@pytest.mark.slow
def test_the_language_is_scored():
    model = LanguageModel(text="language://60", eval_share=0.3)
    sample = model.truth().labelled(512, split="train").x
    made = DictionaryConfig(d_sae=128, activation=TopK(8)).build(sample, seed=0)
    found = probe_absorption_scores(made, model)
    assert {s.metric for s in found} == set(DEFINITIONS)
    assert [s.kind for s in found if s.metric == "probe_main_f1"] == ["measured", "chance", "ceiling"]
    ceiling = named([s for s in found if s.kind == "ceiling" or s.metric == "probed"])
    assert ceiling["absorption_full"] == 0 and ceiling["main_f1"] == 1 and ceiling["probed"] > 0.5
