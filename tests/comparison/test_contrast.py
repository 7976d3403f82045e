"""Contrasts of runs: worked by hand, and on tables with holes."""

import math

import pytest
from tests.comparison.hand_made import ABSORPTION, F1, FVU, arranged, method

from unbraid.comparison.contrast import complete, contrast, read


def both(shift: float, *, score: str = "f1", seeds=range(3)):
    """A base that rises with seed and L0, and a term that differs from it by a shift."""
    level = lambda seed, l0: 0.3 + 0.1 * seed + 0.02 * math.log2(l0)
    return arranged(
        {"batchtopk": lambda s, at: {score: level(s, at)}, "hsic": lambda s, at: {score: level(s, at) + shift}},
        seeds=seeds,
    )


def test_a_contrast_is_the_mean_over_levels_paired_by_seed():
    own = {(0, 2): 1.0, (0, 4): 2.0, (1, 2): 3.0, (1, 4): 5.0, (2, 2): 2.0, (2, 4): 2.0}
    scores = arranged(
        {"hsic": lambda s, at: {"f1": own[s, int(at)]}, "batchtopk": lambda s, at: {"f1": float(s)}}, l0=(2.0, 4.0)
    )
    found = contrast(scores, method(scores, "hsic"), method(scores, "batchtopk"), F1)
    assert found.own_by_seed == {0: 1.5, 1: 4.0, 2: 2.0} and found.gains == (1.5, 3.0, 0.0)
    assert found.value == pytest.approx(2.5) and found.other_value == 1 and found.levels == (2.0, 4.0)


def test_less_is_a_gain_where_lower_is_better():
    scores = both(-0.05, score="absorption")
    found = contrast(scores, method(scores, "hsic"), method(scores, "batchtopk"), ABSORPTION)
    assert found.gain == pytest.approx(0.05) and found.difference == pytest.approx(-0.05)


def test_seeds_of_one_side_are_left_out():
    scores = arranged({
        "batchtopk": lambda s, at: {"f1": 0.1 * s},
        "hsic": lambda s, at: {"f1": 0.1 * s + 0.02} if s < 3 else {},
    }, seeds=range(5))  # fmt: skip
    found = contrast(scores, method(scores, "hsic"), method(scores, "batchtopk"), F1)
    assert found.n == 3 and found.gain == pytest.approx(0.02)


def test_a_level_that_a_seed_has_not_is_left_out_of_all_and_said():
    """Else the seed without it would be averaged over other levels than its own base."""
    scores = arranged({
        "batchtopk": lambda s, at: {"f1": 0.1 * at},
        "hsic": lambda s, at: {"f1": 0.1 * at + 0.02} if (s, at) != (1, 8.0) else {},
    })  # fmt: skip
    found = contrast(scores, method(scores, "hsic"), method(scores, "batchtopk"), F1)
    assert found.levels == (2.0, 4.0) and found.n == 3 and "L0 8" in found.note
    assert found.gains == pytest.approx((0.02,) * 3)


def test_seeds_are_left_out_where_that_keeps_more_of_the_table():
    table = {level: {seed: (0.0, 0.0) for seed in range(8) if (level, seed) != (8.0, 7)} for level in (2.0, 4.0, 8.0)}
    assert complete(table) == ([2.0, 4.0, 8.0], list(range(7)))


def test_enough_seeds_come_before_more_cells():
    table = {2.0: {0: (0.0, 0.0), 1: (0.0, 0.0), 2: (0.0, 0.0)}, 4.0: {0: (0.0, 0.0), 1: (0.0, 0.0)}}
    assert complete(table) == ([2.0], [0, 1, 2])
    assert complete({}) == ([], [])


def test_more_levels_than_can_be_tried_keep_those_with_most_seeds():
    table = {float(level): {seed: (0.0, 0.0) for seed in range(4 - level % 2)} for level in range(1, 11)}
    levels, seeds = complete(table)
    assert levels == [2.0, 4.0, 6.0, 8.0, 10.0] and seeds == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (2.0, 1.0), (4.0, 2.0), (2 * math.sqrt(2), 1.5),  # measured points, and half way in log L0
        (1.9, 1.0), (8.5, 3.0),  # beyond the ends by less than 10 %: the end itself
        (1.7, math.nan), (9.0, math.nan),  # further: nothing
    ],
)  # fmt: skip
def test_curves_are_read_between_points_and_not_beyond(at: float, value: float):
    assert read([(2.0, 1.0), (4.0, 2.0), (8.0, 3.0)], at) == pytest.approx(value, nan_ok=True)


def test_curves_are_not_read_across_gaps_or_missing_values():
    assert math.isnan(read([(2.0, 1.0), (32.0, 2.0)], 8.0)) and math.isnan(read([], 8.0))
    assert math.isnan(read([(2.0, 1.0), (4.0, math.nan), (8.0, 3.0)], 5.0))


def test_methods_that_share_no_level_are_not_compared_and_the_reason_is_said():
    scores = arranged({
        "batchtopk": lambda s, at: {"f1": 0.1} if at < 8 else {}, "hsic": lambda s, at: {"f1": 0.1} if at > 8 else {},
    }, l0=(2.0, 4.0, 64.0, 128.0))  # fmt: skip
    found = contrast(scores, method(scores, "hsic"), method(scores, "batchtopk"), F1)
    assert found.n == 0 and math.isnan(found.gain) and "nothing is extrapolated" in found.note


def test_methods_without_a_seed_in_common_are_not_compared():
    scores = arranged({
        "batchtopk": lambda s, at: {"f1": 0.1} if s < 3 else {}, "hsic": lambda s, at: {"f1": 0.1} if s >= 3 else {},
    }, seeds=range(6))  # fmt: skip
    found = contrast(scores, method(scores, "hsic"), method(scores, "batchtopk"), F1)
    assert found.n == 0 and "no seed in common" in found.note


def test_nan_scores_are_holes():
    scores = arranged({
        "batchtopk": lambda s, at: {"f1": 0.1 * s},
        "hsic": lambda s, at: {"f1": math.nan if (s, at) == (0, 4.0) else 0.1 * s + 0.01},
    })  # fmt: skip
    found = contrast(scores, method(scores, "hsic"), method(scores, "batchtopk"), F1)
    assert found.levels == pytest.approx((2.0, 8.0)) and found.n == 3 and found.gain == pytest.approx(0.01)


def test_at_equal_fvu_the_other_axis_is_read():
    # The term needs half the L0 for an FVU: at equal FVU its curve is the base's, shifted.
    scores = arranged({
        "batchtopk": lambda s, at: {"fvu": 1 / at, "f1": math.log2(at) + 0.01 * s},
        "hsic": lambda s, at: {"fvu": 1 / at, "f1": math.log2(at) + 0.01 * s + 0.5},
    })  # fmt: skip
    found = contrast(scores, method(scores, "hsic"), method(scores, "batchtopk"), F1, "FVU")
    assert found.axis == "FVU" and found.gains == pytest.approx((0.5,) * 3)
    assert contrast(scores, method(scores, "hsic"), method(scores, "batchtopk"), FVU, "bits").n == 0


def test_methods_of_which_no_sparsity_was_requested_are_compared_as_they_are_and_both_l0_are_said():
    scores = arranged(
        {
            "relu": lambda s, at: {"f1": 0.5 + 0.01 * s, "l0": 5.0},
            "hsic": lambda s, at: {"f1": 0.6 + 0.01 * s, "l0": 9.0},
        },
        l0=(math.nan,),
    )
    found = contrast(scores, method(scores, "hsic"), method(scores, "relu"), F1)
    assert found.gains == pytest.approx((0.1,) * 3) and found.levels == ()
    assert found.note == "no L0 was requested, and none is matched: 9.00 and 5.00"
