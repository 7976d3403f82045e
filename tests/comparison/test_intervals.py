"""Intervals, paired tests and corrections: worked by hand, against scipy and statsmodels."""

import math
import random
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired
from tests.comparison.hand_made import contrast_of

from unbraid.comparison.intervals import (
    holm,
    p_above,
    p_below,
    p_equivalent,
    p_flipped,
    paired,
    paired_by_seed,
    q_values,
    t_interval,
)

GAINS = (0.3, 0.1, 0.5, 0.2, 0.4, -0.1, 0.25, 0.15)


def draws(count: int, n: int, seed: int = 0) -> list[tuple[float, ...]]:
    rng = np.random.default_rng(seed)
    return [tuple(map(float, rng.normal(0.3, 1.0, n))) for _ in range(count)]


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


def test_interval_equals_the_one_worked_out_by_hand():
    # mean 2, sd 1, t(0.975, 2) = 4.302653: half-width 4.302653 / sqrt(3).
    mean, half, n = t_interval([1.0, 2.0, 3.0])
    assert (mean, n) == (2.0, 3)
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_fewer_than_three_seeds_give_no_interval():
    for values in ([1.0], [1.0, 2.0]):
        interval = t_interval(values)
        assert interval.n == len(values) and math.isnan(interval.half)
        assert math.isnan(paired(values).p) and math.isnan(p_flipped(values)) and math.isnan(p_above(values, 0.0))


def test_nan_is_left_out_and_counted_out():
    assert t_interval([1.0, math.nan, 3.0])[::2] == (2.0, 2)
    assert math.isnan(t_interval([math.nan]).mean)


def test_seeds_that_coincide_are_paired_and_the_others_left_out():
    # Differences 1, 2, 3, though each side varies a hundred times as much.
    found = paired_by_seed({0: 101.0, 1: 202.0, 2: 303.0, 7: 9.0}, {0: 100.0, 1: 200.0, 2: 300.0, 8: 9.0})
    assert found.n == 3 and found.mean == pytest.approx(2)
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.p == pytest.approx(0.0741799, rel=1e-5)  # 2 * P(T > 2 sqrt 3), two degrees of freedom


def test_other_seeds_are_not_compared():
    assert paired_by_seed({0: 1.0, 1: 2.0, 2: 3.0}, {3: 4.0, 4: 5.0, 5: 6.0}).n == 0


def test_equal_values_differ_by_exactly_nothing():
    same = {0: 0.1, 1: 0.2, 2: 0.3}
    found = paired_by_seed(same, same)
    assert (found.mean, found.half, found.p) == (0, 0, 1)


def test_a_constant_shift_is_certain():
    found = paired_by_seed({s: 0.1 * s + 0.7 for s in range(3)}, {s: 0.1 * s for s in range(3)})
    assert found.half == pytest.approx(0, abs=1e-12) and found.p < 1e-6


def test_equivalence_needs_both_one_sided_tests():
    values = (0.1, 0.3, 0.2, 0.5)
    assert p_equivalent(values, 0.6) == pytest.approx(max(p_below(values, 0.6), p_above(values, -0.6)))
    assert math.isnan(p_equivalent(values, math.nan))


@pytest.mark.slow
def test_without_differences_one_family_in_twenty_makes_a_claim():
    """Twenty methods against one noisy base, three paired seeds, no real difference."""
    rng, families, corrected, uncorrected = random.Random(0), 200, 0, 0
    for _ in range(families):
        base = {s: rng.gauss(0, 1) for s in range(3)}
        tests = [paired_by_seed({s: rng.gauss(0, 1) for s in range(3)}, base).p for _ in range(20)]
        corrected += min(holm(tests)) <= 0.05
        uncorrected += min(tests) <= 0.05
    assert corrected / families < 0.1  # expected 0.05, two and a half standard errors are 0.04
    assert uncorrected / families > 0.5
