"""Magnitudes take the values and the moments they are said to."""

import pytest
import torch

from unbraid.sources.world.magnitudes import Magnitudes, folded_normal


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_quantised_magnitudes_take_equally_likely_levels():
    values, counts = Magnitudes("quantised", 0.5, 3).draw(30_000, generator()).unique(return_counts=True)
    # Three levels at distance d have variance 2 d^2 / 3.
    assert values.tolist() == pytest.approx([1 - 0.5 * 1.5**0.5, 1, 1 + 0.5 * 1.5**0.5])
    assert (counts / 30_000 - 1 / 3).abs().max() < 0.015


@pytest.mark.parametrize("spread", [0.25, 0.5, 1.0])
def test_pareto_magnitudes_follow_a_power_law_of_mean_1_and_the_stated_spread(spread: float):
    z = Magnitudes("pareto", spread, 1).draw(1_000_000, generator()).double()
    power = 1 + (1 + spread**-2) ** 0.5
    least = 1 - 1 / power
    assert z.min() >= least - 1e-6 and z.mean().item() == pytest.approx(1, abs=0.005)
    assert (z > 4 * least).double().mean().item() == pytest.approx(4**-power, rel=0.05)
    # The standard deviation of that law, by hand: least^2 power / ((power - 1)^2 (power - 2)) is spread^2.
    assert least**2 * power / ((power - 1) ** 2 * (power - 2)) == pytest.approx(spread**2)


def test_pareto_magnitudes_without_spread_are_1():
    assert Magnitudes("pareto", 0.0, 1).draw(4, generator()).tolist() == [1, 1, 1, 1]


def test_constant_magnitudes_are_1():
    assert Magnitudes("constant", 5.0, 1).draw(4, generator()).tolist() == [1, 1, 1, 1]


def test_dense_magnitudes_are_positive_and_near_normal():
    z = folded_normal(100_000, 0.25, generator())
    assert z.min() > 0 and [z.mean().item(), z.std().item()] == pytest.approx([1, 0.25], abs=0.005)


@pytest.mark.parametrize(
    ("kind", "spread", "levels", "remedy"),
    [("uniform", 0.6, 4, "less than 0.577"), ("quantised", 1.1, 2, "less than 1.000"), ("quantised", 0.1, 1, "2")],
)
def test_magnitudes_that_would_reach_0_are_refused(kind, spread, levels, remedy):
    with pytest.raises(ValueError, match=remedy):
        Magnitudes(kind, spread, levels)
