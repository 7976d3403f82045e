"""Guards: Mahalanobis distances worked out by hand, and perplexities of continuations under the unpushed model."""

import math

import pytest
import torch
from tests.causal.slices import rng

from unbraid.effects.coherence import broken, perplexity
from unbraid.effects.departure import Spread, departures


def test_the_distance_is_in_standard_deviations_along_each_axis():
    corners = torch.tensor([[s * 3.0, t * 0.5] for s in (-1, 1) for t in (-1, 1)]).repeat(50, 1) + torch.tensor(
        [2.0, 1.0]
    )
    spread = Spread.of(corners, ridge=0.0)
    unbiased = (199 / 200) ** 0.5  # the covariance divides by 199
    found = spread.distances(torch.tensor([[2.0 + 3.0, 1.0], [2.0, 1.0 + 1.0], [2.0, 1.0]]))
    torch.testing.assert_close(found, unbiased * torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64))
    # every corner is at sqrt 2; pushed by 3 along the wide axis, half are at (2, 1) and half at (0, 1)
    pushes = torch.tensor([[0.0, 0.0], [12.0, 0.0], [0.0, 12.0]])
    near = departures(spread, corners, pushes)
    wide = (math.hypot(3.0, 1.0) / 2**0.5, math.hypot(23.0, 1.0) / 2**0.5)  # the lower of the two middle ones
    torch.testing.assert_close(near, torch.tensor([1.0, *wide], dtype=torch.float64))


def test_a_push_along_a_direction_that_hardly_varies_leaves_further_behind():
    sizes = torch.tensor([10.0, 1.0, 1.0, 0.01])
    draw = lambda count, seed: torch.randn(count, 4, generator=rng(seed)) * sizes
    far = departures(Spread.of(draw(4000, 0)), draw(500, 1), torch.eye(4))
    assert float(far[0]) == pytest.approx(1.0, abs=0.05)
    assert float(far[3]) > 10 * float(far[1]) > 10


def test_fewer_rows_than_dimensions_show_no_spread():
    with pytest.raises(ValueError, match="8 activations do not show how they spread in 8 dimensions"):
        Spread.of(torch.randn(8, 8, generator=rng(0)))


def test_the_perplexity_of_what_was_written_is_worked_out_by_hand():
    ids = torch.tensor([[0, 1, 2, 1]])
    p = torch.tensor([[[0.2, 0.5, 0.3], [0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [1.0, 0.0, 0.0]]])
    written = torch.tensor([[False, False, True, True]])
    assert float(perplexity(p.log(), ids, written)) == pytest.approx((1 / (0.25 * 0.8)) ** 0.5)
    assert math.isnan(float(perplexity(p.log(), ids, torch.zeros_like(written))))
    with pytest.raises(ValueError, match="nothing comes before"):
        perplexity(p.log(), ids, torch.ones_like(written))


def test_three_times_stranger_than_its_own_text_is_broken():
    assert broken(torch.tensor([5.9, 6.1]), torch.tensor([2.0, 2.0])).tolist() == [False, True]
