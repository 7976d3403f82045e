"""Beating every standard SAE: the largest p-value of all, of those that kept their guards."""

import pytest
from scipy import stats
from tests.comparison.hand_made import D_SAE, F1, Values, arranged, method

from unbraid.comparison.opponents import against_all

SEEDS = range(6)
WIGGLE = (0.02, -0.03, 0.01, 0.0, -0.01, 0.015)


def at(f1: float, turn: int = 0, rare: float = 0.5) -> Values:
    return lambda seed, l0: {"f1": f1 + WIGGLE[(seed + turn) % 6], "recall_rarest": rare, "l2_ratio": 1.0}


def found(**methods: Values):
    scores = arranged({"hsic": at(0.6), "batchtopk": at(0.4, 1), "topk": at(0.5, 2), **methods}, seeds=SEEDS)
    return against_all(scores, method(scores, "hsic"), F1)


def test_p_is_the_largest_of_the_one_sided_ones():
    own, hard = ([f1 + WIGGLE[(s + turn) % 6] for s in SEEDS] for f1, turn in ((0.6, 0), (0.5, 2)))
    result = found()
    assert result.p == pytest.approx(stats.ttest_rel(own, hard, alternative="greater").pvalue)
    assert result.beats_all and set(result.opponents) == {"batchtopk", "topk"}
    assert result.hardest is not None and result.hardest.other == "topk"
    assert result.sentence == f"hsic beats each of 2 standard SAEs (batchtopk and topk) by {F1.name}"


def test_one_that_is_as_good_is_enough_to_beat_nothing():
    result = found(matryoshka=at(0.6, 3))
    assert not result.beats_all and "the hardest is matryoshka" in result.sentence and result.p > 0.3


def test_one_that_gave_rare_factors_up_is_not_admissible():
    """What it gives up may be what its score was bought with."""
    result = found(matryoshka=at(0.9, 3, rare=0.2))
    assert result.beats_all and "matryoshka" not in result.opponents
    assert len(result.inadmissible) == 1 and "rare factors were given up" in result.inadmissible[0]


def test_one_that_could_not_be_compared_leaves_the_claim_open():
    missing: Values = lambda seed, l0: {"f1": 0.1} if seed < 2 else {}
    result = found(matryoshka=missing)
    assert not result.beats_all and "matryoshka" in result.untested[0] and "not tested against" in result.sentence


def test_without_opponents_nothing_is_beaten():
    scores = arranged({"hsic": at(0.6)}, seeds=SEEDS)
    result = against_all(scores, method(scores, "hsic"), F1)
    assert not result.beats_all and result.hardest is None and "no standard SAE" in result.sentence


def test_a_standard_sae_is_not_its_own_opponent():
    scores = arranged({"batchtopk": at(0.4, 1), "topk": at(0.5, 2)}, seeds=SEEDS)
    assert against_all(scores, method(scores, "topk"), F1).opponents == ("batchtopk",)
    assert scores.widths == [D_SAE]
