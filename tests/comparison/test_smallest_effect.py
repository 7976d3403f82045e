"""The smallest effect of interest: a third of what separates two architectures, else a tenth of the room."""

import math
from dataclasses import replace

import pytest
from tests.comparison.hand_made import ABSORPTION, D_SAE, F1, Values, arranged, with_level

from unbraid.comparison.smallest_effect import smallest_effect, smallest_effects

WIGGLE = (0.0, 0.01, -0.01, 0.005)


def at(value: float, turn: int = 0, score: str = "f1") -> Values:
    return lambda seed, l0: {score: value + WIGGLE[(seed + turn) % 4]}


def found(metric=F1, **methods: Values):
    return smallest_effect(arranged(methods, seeds=range(4)), D_SAE, metric)


def test_a_third_of_what_separates_matryoshka_from_batchtopk():
    one = found(batchtopk=at(0.5), matryoshka=at(0.35, 1), truth=at(1.0, 2))
    assert one.value == pytest.approx(0.05) and one.source == "a third of Matryoshka − BatchTopK, −0.150"


def test_its_sign_does_not_matter():
    one = found(batchtopk=at(0.35), matryoshka=at(0.5, 1))
    assert one.value == pytest.approx(0.05)
    less = found(ABSORPTION, batchtopk=at(0.5, 0, "absorption"), matryoshka=at(0.2, 1, "absorption"))
    assert less.value == pytest.approx(0.1)


def test_a_tenth_of_the_room_where_they_are_not_shown_to_differ():
    for matryoshka in ({"matryoshka": at(0.5, 1)}, {}):
        one = found(F1, batchtopk=at(0.5), truth=at(0.9, 2), **matryoshka)
        assert one.value == pytest.approx(0.04) and "a tenth of the way" in one.source


def test_the_room_goes_to_the_ceiling_of_the_eval_where_the_gate_does():
    scores = arranged({"batchtopk": at(0.5), "truth": at(0.45, 1)}, seeds=range(4))
    one = smallest_effect(with_level(scores, replace(F1, kind="ceiling"), 0.9), D_SAE, F1)
    assert one.value == pytest.approx((0.9 - 0.50125) / 10)


def test_where_neither_is_known_it_is_none_and_says_so():
    assert math.isnan(found(batchtopk=at(0.5), matryoshka=at(0.5, 1)).value)
    one = found(topk=at(0.5))
    assert math.isnan(one.value) and one.source == "no BatchTopK to measure it by"


def test_two_seeds_do_not_separate_architectures():
    scores = arranged({"batchtopk": at(0.5), "matryoshka": at(0.2, 1), "truth": at(0.9, 2)}, seeds=range(2))
    assert "a tenth of the way" in smallest_effect(scores, D_SAE, F1).source


def test_every_headline_score_with_a_direction_has_one():
    scores = arranged({"batchtopk": lambda s, at: {"f1": 0.5 + 0.01 * s, "absorption": 0.1, "l2_ratio": 1.0}})
    assert set(smallest_effects(scores, D_SAE)) == {F1, ABSORPTION}
