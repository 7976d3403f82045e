"""Contrasts: worked by hand, against scipy and statsmodels, and on tables with holes."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired
from tests.comparison.hand_made import ABSORPTION, F1, FVU, arranged, contrast_of, method

from unbraid.comparison.contrast import complete, contrast, read
from unbraid.comparison.intervals import holm, p_above, p_below, p_equivalent, p_flipped, paired, q_values

GAINS = (0.3, 0.1, 0.5, 0.2, 0.4, -0.1, 0.25, 0.15)


def draws(count: int, n: int, seed: int = 0) -> list[tuple[float, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(map(float, rng.normal(0.3, 1.0, n))) for _ in range(count)]


# ---- the tests that contrasts make


def test_a_paired_t_test_worked_by_hand():
    # Gains 1, 2, 3: mean 2, sd 1, t = 2 sqrt 3; P(|T| > 2 sqrt 3) with two degrees of freedom is 1 - t / sqrt(2 + t^2).
    found = paired([1.0, 2.0, 3.0])
    t = 2 * math.sqrt(3)
    assert found.mean == 2 and found.sd == pytest.approx(1) and found.n == 3
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


@pytest.mark.parametrize("n", [3, 8, 10])
def test_tests_are_scipys_and_statsmodels(n: int):
    for values in draws(5, n):
        assert paired(values).p == pytest.approx(stats.ttest_rel(values, np.zeros(n)).pvalue)
        for ours, alternative in ((p_above, "greater"), (p_below, "less")):
            theirs: Any = stats.ttest_1samp(values, 0.2, alternative=alternative)
            assert ours(values, 0.2) == pytest.approx(theirs.pvalue)
        shifted = np.array(values) + 5
        assert p_equivalent(values, 1.5) == pytest.approx(ttost_paired(shifted, np.full(n, 5.0), -1.5, 1.5)[0])


def test_equivalence_is_the_90_per_cent_interval_inside_the_bounds():
    for values in draws(20, 8):
        mean, half = np.mean(values), stats.t.ppf(0.95, 7) * np.std(values, ddof=1) / math.sqrt(8)
        for smallest in (0.3, 0.8, 1.5):
            assert (p_equivalent(values, smallest) <= 0.05) == (abs(mean) + half <= smallest)


@pytest.mark.parametrize("n", [3, 5, 8])
def test_flips_of_signs_are_all_flips_and_never_below_their_share(n: int):
    for values in draws(3, n):
        signs = np.array(np.meshgrid(*[[-1, 1]] * n)).reshape(n, -1)
        means = np.abs(signs.T @ np.array(values)) / n
        expected = np.mean(means >= abs(np.mean(values)) - 1e-12)
        assert p_flipped(values) == pytest.approx(expected) and p_flipped(values) >= 2 ** (1 - n)
    assert p_flipped([1.0] * n) == pytest.approx(2 ** (1 - n))


def test_more_flips_than_can_all_be_tried_are_sampled_and_the_same_each_time():
    values = draws(1, 16)[0]
    assert p_flipped(values) == p_flipped(values)
    assert p_flipped(values) == pytest.approx(paired(values).p, abs=0.03)


def test_differences_without_spread_are_certain_or_nothing():
    same, shift = paired([0.0] * 4), paired([0.1 + 1e-17, 0.1, 0.1, 0.1])
    assert (same.p, same.sd, same.half) == (1.0, 0.0, 0.0) and shift.p == 0.0 and shift.half == 0.0
    assert p_above([0.1] * 4, 0.05) == 0.0 and p_above([0.1] * 4, 0.1) == 1.0 and p_below([0.1] * 4, 0.2) == 0.0
    assert p_equivalent((0.1,) * 4, 0.2) == 0.0 and p_equivalent((0.1,) * 4, 0.1) == 1.0


def test_two_seeds_have_a_mean_and_no_test():
    found = paired([0.1, 0.3])
    assert found.mean == pytest.approx(0.2) and all(map(math.isnan, (found.sd, found.half, found.p)))
    assert all(map(math.isnan, (p_above([1.0, 2.0], 0.0), p_equivalent((1.0, 2.0), 1.0), p_flipped([1.0, 2.0]))))
    assert math.isnan(paired([]).mean)


def test_without_a_smallest_effect_nothing_is_equivalent_or_material():
    found = contrast_of(GAINS)
    for smallest in (math.nan, 0.0, -1.0):
        assert math.isnan(found.p_equivalent(smallest))
    assert math.isnan(found.p_material(math.nan)) and math.isnan(found.p_material_loss(math.nan))


def test_corrections_are_statsmodels_and_leave_nan_out_of_the_family():
    p = [0.01, math.nan, 0.04, 0.03]
    known = [0.01, 0.04, 0.03]
    for ours, name in ((holm, "holm"), (q_values, "fdr_bh")):
        corrected: Any = multipletests(known, method=name)[1]
        assert ours(p)[1] != ours(p)[1] and [ours(p)[i] for i in (0, 2, 3)] == pytest.approx(list(corrected))
    assert holm([]) == q_values([]) == [] and all(map(math.isnan, (*holm([math.nan]), *q_values([math.nan]))))


def test_corrections_of_many_families_are_statsmodels():
    rng = np.random.default_rng(0)
    for count in (1, 2, 10, 30):
        p = [float(v) for v in rng.random(count) ** 4]
        p[-1] = p[0]  # ties
        for ours, name in ((holm, "holm"), (q_values, "fdr_bh")):
            theirs: Any = multipletests(p, method=name)[1]
            assert ours(p) == pytest.approx(list(theirs))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


# ---- contrasts of runs


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
