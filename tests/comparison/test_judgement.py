"""The word for each contrast: hand-made gains, families, corrections, and what has no word."""

import math

import numpy as np
import pytest
from tests.comparison.hand_made import ABSORPTION, F1, contrast_of

from unbraid.comparison.contrast import Contrast
from unbraid.comparison.intervals import holm, q_values
from unbraid.comparison.judgement import judge

STEPS = np.array([-1.5, -1.0, -0.5, -0.2, 0.0, 0.0, 0.2, 0.5, 1.0, 1.5])
NOISE = STEPS / STEPS.std(ddof=1)
"""Ten seeds' noise of mean 0 and standard deviation 1."""


def gains(mean: float, sd: float = 1.0) -> list[float]:
    return [float(v) for v in mean + sd * NOISE]


def word(mean: float, smallest: float, sd: float = 1.0) -> str:
    return judge([contrast_of(gains(mean, sd))], {F1: smallest})[0].word


@pytest.mark.parametrize(
    ("mean", "sd", "said"),
    [
        # The half-width of the 95 % interval at ten seeds is .715 sd, of the 90 % interval .580 sd.
        (2.0, 1.0, "materially better"), (1.72, 1.0, "materially better"), (1.7, 1.0, "better"),
        (0.8, 1.0, "better"), (0.7, 1.0, "undecided"), (0.43, 1.0, "undecided"), (0.41, 1.0, "equivalent"),
        (0.0, 1.0, "equivalent"), (0.0, 2.0, "undecided"),
        (-0.41, 1.0, "equivalent"), (-0.7, 1.0, "undecided"), (-0.8, 1.0, "worse"), (-1.7, 1.0, "worse"),
        (-1.72, 1.0, "materially worse"), (0.5, 0.5, "equivalent"), (-0.5, 0.5, "equivalent"),
    ],
)  # fmt: skip
def test_words_at_their_borders_with_a_smallest_effect_of_one(mean: float, sd: float, said: str):
    assert word(mean, 1.0, sd) == said


def test_a_real_difference_smaller_than_the_smallest_effect_is_equivalent_and_said_to_be_real():
    found = judge([contrast_of(gains(0.5, 0.5))], {F1: 1.0})[0]
    assert found.word == "equivalent" and "a real difference, smaller than" in found.note and not found.gained


def test_gains_and_losses_mirror_each_other():
    mirror = {"materially better": "materially worse", "better": "worse"}
    for mean in (0.0, 0.3, 0.6, 0.9, 1.2, 1.8, 2.5):
        assert mirror.get(word(mean, 1.0), word(mean, 1.0)) == word(-mean, 1.0)


def test_less_is_better_where_lower_is_better():
    found = judge([contrast_of(gains(2.0), ABSORPTION)], {ABSORPTION: 1.0})[0]
    assert found.word == "materially better" and found.contrast.difference == pytest.approx(-2)


def test_without_a_smallest_effect_nothing_is_material_or_equivalent():
    for smallest in ({}, {F1: math.nan}):
        words = [judge([contrast_of(gains(mean))], smallest)[0].word for mean in (5.0, 0.0, -5.0)]
        assert words == ["better", "undecided", "worse"]
    assert "no smallest effect of interest is known" in judge([contrast_of(gains(0.0))], {})[0].note


def test_a_family_is_corrected_by_holm_and_says_what_the_correction_took():
    family = [contrast_of(gains(mean)) for mean in (0.8, 0.0, 0.1, -0.1, 0.05)]
    found = judge(family, {F1: 10.0})
    alone = judge(family[:1], {})[0]
    assert alone.word == "better" and alone.family == 1
    corrected = judge(family, {})[0]
    assert corrected.word == "undecided" and corrected.family == 5 and "corrected for 5" in corrected.reason
    assert [j.p for j in found] == pytest.approx(holm([c.tested.p for c in family]))


def test_material_tests_are_a_family_of_their_own():
    one = judge([contrast_of(gains(1.75))], {F1: 1.0})[0]
    many = judge([contrast_of(gains(1.75))] * 5, {F1: 1.0})
    assert one.word == "materially better" and {j.word for j in many} == {"better"}


def test_what_could_not_be_compared_counts_in_no_family():
    nothing = Contrast(F1, "L0", "own", "other", note="no seed in common")
    few = contrast_of([0.1, 0.2])
    found = judge([contrast_of(gains(0.8)), nothing, few], {F1: 1.0})
    assert [j.word for j in found] == ["better", "not compared", "undecided"]
    assert {j.family for j in found} == {1}
    assert found[1].note == "no seed in common" and "2 paired seeds, and 3 are needed" in found[2].reason
    assert math.isnan(found[2].p) and math.isnan(found[2].could_find)


def test_an_empty_family_is_judged_too():
    assert judge([], {}) == []


def test_exploratory_words_are_of_their_own_intervals_with_q_values():
    family = [contrast_of(gains(mean)) for mean in (0.8, 0.0, 0.1, -0.1, 0.05)]
    found = judge(family, {}, correction="q")
    assert found[0].word == "better" and "over 5" in found[0].note
    assert [j.p for j in found] == pytest.approx(q_values([c.tested.p for c in family]))


def test_differences_without_spread_get_their_word():
    words = [judge([contrast_of([gain] * 3)], {F1: 0.1})[0].word for gain in (0.0, 0.05, 0.2, -0.05, -0.2)]
    assert words == ["equivalent", "equivalent", "materially better", "equivalent", "materially worse"]
    assert judge([contrast_of([0.0] * 3)], {})[0].word == "undecided"


def test_undecided_says_what_could_have_been_found():
    found = judge([contrast_of(gains(0.7))], {F1: 1.0})[0]
    assert found.could_find == pytest.approx(0.996, abs=0.01) and "it could have found" in found.note
    family = judge([contrast_of(gains(0.7))] * 10, {F1: 1.0})[0]
    assert family.could_find > 1.3 * found.could_find
