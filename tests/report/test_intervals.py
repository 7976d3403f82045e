import math
import random
from typing import Any

import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

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


def test_one_sided_tests_agree_with_scipy():
    values = (0.1, 0.3, 0.2, 0.5)
    assert p_above(values, 0.05) == pytest.approx(stats.ttest_1samp(values, 0.05, alternative="greater")[1])
    assert p_below(values, 0.4) == pytest.approx(stats.ttest_1samp(values, 0.4, alternative="less")[1])


def test_equivalence_needs_both_one_sided_tests():
    values = (0.1, 0.3, 0.2, 0.5)
    assert p_equivalent(values, 0.6) == pytest.approx(max(p_below(values, 0.6), p_above(values, -0.6)))
    assert math.isnan(p_equivalent(values, math.nan))


def test_flips_of_signs_by_hand():
    """Of eight flips of three gains the two with all signs alike are as far from 0."""
    assert p_flipped([1.0, 2.0, 3.0]) == pytest.approx(2 / 8)
    assert p_flipped([0.1 * i for i in range(1, 9)]) == pytest.approx(2 / 256)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([math.nan, 0.02]) == pytest.approx([math.nan, 0.02], nan_ok=True)


def corrected(p_values: list[float], method: str) -> Any:
    return multipletests(p_values, method=method)[1]


def test_families_are_adjusted_as_statsmodels_does_it():
    rng = random.Random(0)
    for count in (1, 3, 12):
        p_values = [rng.random() ** 4 / 10 for _ in range(count)]
        assert holm(p_values) == pytest.approx(list(corrected(p_values, "holm")))
        assert q_values(p_values) == pytest.approx(list(corrected(p_values, "fdr_bh")))


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
