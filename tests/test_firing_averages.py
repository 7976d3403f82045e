"""Moving averages of firing: one batch by hand, equal weights at first, and never less than the batch at hand."""

import pytest
import torch

from tests.coded import sparse, step
from unbraid.terms.statistics.firing_averages import averaged, measured


def test_the_moments_of_a_batch_by_hand():
    now = measured(step(torch.tensor([[0.0, 1.0], [4.0, 1.0]]).double()).z)
    assert (now.rate.tolist(), now.mean.tolist(), now.square.tolist()) == ([0.5, 1], [2, 1], [8, 1])
    assert (now.variance().tolist(), now.rms().tolist()) == ([4, 0], [4, 1])


def test_two_batches_weigh_alike():
    memory: dict[str, torch.Tensor] = {}
    for seed in (0, 1):
        average, _ = averaged(step(sparse(100, 4, 0.3, seed)).z, memory, 0.99)
    together = torch.cat([sparse(100, 4, 0.3, seed) for seed in (0, 1)])
    torch.testing.assert_close(average.mean, together.mean(0))
    torch.testing.assert_close(average.variance(), together.var(0, correction=0))


def test_a_latent_that_comes_to_life_is_divided_by_its_deviation_in_the_batch():
    memory: dict[str, torch.Tensor] = {}
    for _ in range(20):
        averaged(step(torch.zeros(10, 1).double()).z, memory, 0.99)
    average, deviation = averaged(step(torch.tensor([[0.0], [2.0]]).double()).z, memory, 0.99)
    assert deviation.item() == pytest.approx(1) and average.variance().item() < 0.2


def test_deviations_have_a_floor_and_silence_is_survived():
    _, deviation = averaged(step(torch.tensor([[0.0, 3.0], [0.0, 3.0]]).double()).z, {}, 0.99)
    assert deviation.tolist() == pytest.approx([1e-12, 3 * 1e-3**0.5])


def test_fault_08_a_batch_that_varies_more_than_usual_does_not_count():
    """The larger of the usual deviation and the batch's is too large on average."""
    memory: dict[str, torch.Tensor] = {}
    found = []
    for seed in range(60):
        average, deviation = averaged(step(sparse(256, 20, 0.1, seed)).z, memory, 0.99)
        found.append(deviation.square() / average.variance())
    assert torch.stack(found[1:]).max() == pytest.approx(1)
