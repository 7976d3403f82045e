import math
import random

import pytest
from statsmodels.stats.multitest import multipletests

from unbraid.comparison.intervals import difference, holm, t_interval


def test_interval_equals_the_one_worked_out_by_hand():
    # mean 2, sd 1, t(0.975, 2) = 4.302653: half-width 4.302653 / sqrt(3).
    mean, half, n = t_interval([1.0, 2.0, 3.0])
    assert (mean, n) == (2.0, 3)
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_fewer_than_three_seeds_give_no_interval():
    for values in ([1.0], [1.0, 2.0]):
        interval = t_interval(values)
        assert interval.n == len(values) and math.isnan(interval.half)


def test_nan_is_left_out_and_counted_out():
    assert t_interval([1.0, math.nan, 3.0])[::2] == (2.0, 2)
    assert math.isnan(t_interval([math.nan]).mean)


def test_seeds_that_coincide_are_paired():
    # Differences 1, 2, 3, though each side varies a hundred times as much.
    found = difference({0: 101.0, 1: 202.0, 2: 303.0}, {0: 100.0, 1: 200.0, 2: 300.0})
    assert found.paired and found.mean == pytest.approx(2)
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.p == pytest.approx(0.0741799, rel=1e-5)  # 2 * P(T > 2 sqrt 3), two degrees of freedom


def test_other_seeds_are_compared_by_welch():
    # Equal variances 1 and n = 3: se = sqrt(2/3), four degrees of freedom, t(0.975, 4) = 2.776445.
    found = difference({0: 1.0, 1: 2.0, 2: 3.0}, {3: 4.0, 4: 5.0, 5: 6.0})
    assert not found.paired and found.mean == -3
    assert found.half == pytest.approx(2.776445 * math.sqrt(2 / 3), rel=1e-6)


def test_equal_values_differ_by_exactly_nothing():
    same = {0: 0.1, 1: 0.2, 2: 0.3}
    found = difference(same, same)
    assert (found.mean, found.half, found.p) == (0, 0, 1)


def test_a_constant_shift_is_certain():
    found = difference({s: 0.1 * s + 0.7 for s in range(3)}, {s: 0.1 * s for s in range(3)})
    assert found.half == pytest.approx(0, abs=1e-12) and found.p < 1e-6


def test_holm_stops_at_the_first_test_that_fails():
    assert holm([0.01, 0.04, 0.03]) == [True, False, False]
    assert holm([0.01, 0.02, 0.04]) == [True, True, True]
    assert holm([]) == []


@pytest.mark.slow
def test_holm_agrees_with_statsmodels():
    rng = random.Random(0)
    for count in (1, 3, 12):
        p_values = [rng.random() ** 4 / 10 for _ in range(count)]
        assert holm(p_values) == multipletests(p_values, alpha=0.05, method="holm")[0].tolist()


@pytest.mark.slow
def test_without_differences_one_family_in_twenty_makes_a_claim():
    """Twenty methods against one noisy baseline, three paired seeds, no real difference."""
    rng, families, corrected, uncorrected = random.Random(0), 200, 0, 0
    for _ in range(families):
        baseline = {s: rng.gauss(0, 1) for s in range(3)}
        tests = [difference({s: rng.gauss(0, 1) for s in range(3)}, baseline).p for _ in range(20)]
        corrected += any(holm(tests))
        uncorrected += min(tests) <= 0.05
    assert corrected / families < 0.1  # expected 0.05, two and a half standard errors are 0.04
    assert uncorrected / families > 0.5
