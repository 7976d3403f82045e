"""Memorisation: no products in the truth, nothing but products in a one-hot dictionary of all states."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from tests.known import EXACT, Undirected, readers, reading, truth, untrained

from unbraid.dictionary.dictionary import Dictionary
from unbraid.evals.memorisation import DEFINITIONS, memorisation_scores, product_orders
from unbraid.metrics.latents_and_factors import LatentsAndFactors
from unbraid.sources.truth import Truth, ancestors
from unbraid.sources.world.world import World

BITS = World(
    factors=5, d_in=8, l0=2.5, roots=5, depth=0, zipf=0.0, correlation=0.0, spread=0.0, noise=0.0, interactions=0
)  # fmt: skip
"""Five fair, independent bits."""
ROWS = 4000
RNG = np.random.default_rng(0)
A, B, C, RARE = (RNG.random(ROWS) < p for p in (0.3, 0.3, 0.5, 0.02))


def scored(dictionary: Dictionary, truth: Truth) -> dict[str, float]:
    return {s.metric: s.value for s in memorisation_scores(dictionary, truth) if s.kind == "measured"}


def orders(latents: list[np.ndarray], factors: list[np.ndarray], parents: list[int]) -> list[int]:
    observed = LatentsAndFactors(
        csr_array(np.array(latents).T.astype(float)), csr_array(np.array(factors).T.astype(float))
    )
    return product_orders(observed, ancestors(torch.tensor(parents)).numpy()).tolist()


def one_hot(world: World) -> Dictionary:
    """A latent for every state but the empty one: reads the number of bits that agree, less all but one."""
    states = torch.tensor(list(itertools.product([0.0, 1.0], repeat=world.factors)))[1:]
    W_enc = (2 * states - 1) @ readers(world)
    return reading(world, W_enc, states @ world.directions, b_enc=0.5 - states.sum(1))


def test_every_latent_of_a_one_hot_dictionary_is_a_product_of_all_factors():
    found = scored(one_hot(BITS), BITS)
    assert found == {"product_latents": 31, "product_share": 1, "product_order": 5}


@pytest.mark.parametrize("order", [torch.arange(24), torch.arange(23, -1, -1), torch.arange(24).repeat(2)])
def test_the_truth_has_none_in_any_order_and_any_number_of_copies(order: torch.Tensor):
    found = scored(truth(EXACT, order=order), EXACT)
    assert found["product_latents"] == found["product_share"] == 0 and math.isnan(found["product_order"])


def test_without_directions_products_are_the_same():
    assert scored(one_hot(BITS), Undirected(BITS)) == scored(one_hot(BITS), BITS)


def test_orders_are_counted_by_hand():
    latents = [A, A & B, A & ~C, A & B & ~C, RARE, A | B]
    assert orders(latents, [A, B, C, RARE], [-1, -1, -1, -1]) == [1, 2, 2, 3, 1, 1]


def test_a_child_alone_and_a_parent_silent_for_its_child_are_no_products():
    child = A & C
    assert orders([A, child, A & ~child], [A, child], [-1, 0]) == [1, 1, 1]
    assert orders([A & ~child], [A, child], [-1, -1]) == [2], "of unrelated factors it would be one"
    assert orders([child & B], [A, child, B], [-1, 0, -1]) == [2], "child and stranger, not child, parent and stranger"


def test_noise_is_no_product():
    noisy = [(A & (np.random.default_rng(i).random(ROWS) < 0.7)) | (RARE & ~B) for i in range(20)]
    assert orders(noisy, [A, B, C, RARE], [-1] * 4) == [1] * 20


def test_dead_and_rare_latents_and_constant_factors_are_judged_without_failing():
    never, always = np.zeros(ROWS, dtype=bool), np.ones(ROWS, dtype=bool)
    once = np.arange(ROWS) == 0
    assert orders([never, once, always, A & B], [A, B, always, never], [-1] * 4) == [0, 0, 1, 2]
    silent = truth(EXACT)
    silent.threshold.fill_(1e6)
    found = scored(silent, EXACT)
    assert found["product_latents"] == 0 and math.isnan(found["product_share"])


def test_an_untrained_dictionary_is_at_the_stated_chance():
    world = World(factors=64, d_in=32, roots=16, depth=0)
    by_kind: dict[str, dict[str, float]] = {"measured": {}, "chance": {}}
    for score in memorisation_scores(untrained(world, 96), world):
        by_kind[score.kind][score.metric] = score.value
    assert by_kind["measured"]["product_share"] == pytest.approx(by_kind["chance"]["product_share"], abs=0.03)
    assert by_kind["measured"]["product_share"] < 0.1


def test_every_score_is_defined():
    assert {s.metric for s in memorisation_scores(truth(EXACT), EXACT)} == set(DEFINITIONS)
