"""Power: against statsmodels, against simulation, and seeds that are just enough."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from unbraid.comparison.intervals import FEWEST_SEEDS
from unbraid.comparison.power import (
    MOST_SEEDS,
    detectable,
    power_of_equivalence,
    power_to_find,
    seeds_for_equivalence,
    seeds_needed,
)  # fmt: skip


@pytest.mark.parametrize("n", [3, 8, 10, 30])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_power_is_statsmodels(n: int, alpha: float):
    for effect in (0.0, 0.3, 1.0, 3.0):
        # One side at half the level: a difference found the wrong way round is no find.
        expected = TTestPower().power(effect, n, alpha / 2, alternative="larger") if effect else alpha / 2
        assert power_to_find(2 * effect, 2.0, n, alpha) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n", [3, 10, 16])
def test_what_is_detectable_is_found_four_times_of_five(n: int):
    for alpha in (0.05, 0.05 / 10):
        found = detectable(0.02, n, alpha)
        assert TTestPower().power(found / 0.02, n, alpha / 2, alternative="larger") == pytest.approx(0.8, abs=1e-4)


def test_the_old_design_could_find_eleven_standard_deviations():
    """Three seeds, and the hardest of eleven corrected tests."""
    assert 10 < detectable(1.0, 3, 0.05 / 11) < 12
    assert detectable(1.0, 10) == pytest.approx(1.0, abs=0.01)


def test_nothing_is_detectable_without_seeds_or_spread():
    assert math.isnan(detectable(1.0, 2)) and math.isnan(detectable(math.nan, 10))
    assert detectable(0.0, 10) == 0.0
    assert power_to_find(0.1, 0.0, 5) == 1.0 and power_to_find(0.0, 0.0, 5) == 0.0


def test_far_in_the_tail_power_is_a_number():
    for effect in (50.0, 1000.0):
        assert power_to_find(effect, 1.0, 10) == pytest.approx(1.0)


@pytest.mark.parametrize(("n", "mean"), [(3, 0.0), (8, 0.0), (10, 0.0), (10, 0.5), (10, 1.0), (16, 0.8)])
def test_power_of_equivalence_is_what_simulation_gives(n: int, mean: float):
    rng, draws, smallest = np.random.default_rng(n), 40_000, 1.0
    values = rng.normal(mean, 1.0, (draws, n))
    centre, half = values.mean(1), stats.t.ppf(0.95, n - 1) * values.std(1, ddof=1) / math.sqrt(n)
    said = np.mean(np.abs(centre) + half <= smallest)
    assert power_of_equivalence(smallest, 1.0, n, mean) == pytest.approx(said, abs=4 * math.sqrt(0.25 / draws))


def test_power_of_equivalence_at_its_bound_is_its_level_and_symmetric():
    assert power_of_equivalence(1.0, 1.0, 40, 1.0) == pytest.approx(0.05, abs=1e-3)
    assert power_of_equivalence(1.0, 1.0, 10, 0.4) == pytest.approx(power_of_equivalence(1.0, 1.0, 10, -0.4))
    assert power_of_equivalence(1.0, 0.0, 10, 0.4) == 1.0 and power_of_equivalence(0.4, 0.0, 10, 0.4) == 0.0


@pytest.mark.parametrize("effect", [0.4, 0.7, 1.0, 2.0, 12.0])
def test_seeds_needed_are_enough_and_one_fewer_is_not(effect: float):
    for alpha in (0.05, 0.005):
        n = seeds_needed(effect, 1.0, alpha)
        assert n is not None and power_to_find(effect, 1.0, n, alpha) >= 0.8
        assert n == FEWEST_SEEDS or power_to_find(effect, 1.0, n - 1, alpha) < 0.8
    n = seeds_for_equivalence(effect, 1.0)
    assert n is not None and power_of_equivalence(effect, 1.0, n) >= 0.8
    assert n == FEWEST_SEEDS or power_of_equivalence(effect, 1.0, n - 1) < 0.8


def test_an_effect_that_no_number_of_seeds_finds_says_so():
    assert seeds_needed(0.001, 1.0) is None and seeds_for_equivalence(0.001, 1.0) is None
    assert power_to_find(0.001, 1.0, MOST_SEEDS) < 0.8
