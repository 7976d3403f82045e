"""Early ratios: no more is looked at than is needed, and what is said is what everything would say."""

from collections.abc import Iterator

import numpy as np
import pytest

from unbraid.metrics.early_ratio import FEWEST, EarlyRatio, Part

UNITS = np.random.default_rng(0).exponential(size=(2, 64, FEWEST))
"""Above and below, by part and unit."""


def parts(taken: list[int]) -> Iterator[Part]:
    """Each part, noting which were taken."""
    for number in range(UNITS.shape[1]):
        taken.append(number)
        yield UNITS[0, number], UNITS[1, number]


def test_a_value_is_the_ratio_of_all_sums():
    assert EarlyRatio(parts([])).value() == pytest.approx(UNITS[0].sum() / UNITS[1].sum())


def test_a_bound_far_away_takes_few_parts_and_one_at_the_value_takes_all():
    for bound, answer in ((0.2, False), (5.0, True)):
        taken: list[int] = []
        assert EarlyRatio(parts(taken)).at_most(bound) == answer and len(taken) < 5
    taken = []
    exact = UNITS[0].sum() / UNITS[1].sum()
    assert not EarlyRatio(parts(taken)).at_most(exact * (1 - 1e-9)) and len(taken) == UNITS.shape[1]


def test_what_was_looked_at_for_one_bound_serves_the_next():
    taken: list[int] = []
    found = EarlyRatio(parts(taken))
    answers = [found.at_most(bound) for bound in np.linspace(0.8, 1.2, 41)]
    ratio = UNITS[0].sum() / UNITS[1].sum()
    assert answers == [ratio <= bound for bound in np.linspace(0.8, 1.2, 41)]
    assert taken == sorted(set(taken)), "no part is taken twice"


def test_a_single_unit_is_compared_as_it_is():
    assert EarlyRatio([(np.array([1.0]), np.array([2.0]))]).at_most(0.5)
    assert not EarlyRatio([(np.array([1.0]), np.array([2.0]))]).at_most(0.4)
