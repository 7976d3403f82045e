"""Directions are as coherent as asked, and never less than Welch's bound lets them be."""

import pytest
import torch

from unbraid.sources.world.geometry import orthonormal, units, welch_bound


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def coherence(vectors: torch.Tensor) -> float:
    return float((vectors @ vectors.T).fill_diagonal_(0).abs().max())


@pytest.mark.parametrize(("count", "d_in", "target"), [(96, 32, 0.3), (256, 64, 0.2), (24, 32, 0.05), (300, 16, 0.6)])
def test_no_two_directions_overlap_more_than_asked(count: int, d_in: int, target: float):
    vectors = units(count, d_in, target, generator())
    assert 0.95 * target < coherence(vectors) <= target + 1e-6
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(count))
    assert coherence(units(count, d_in, None, generator())) > 1.2 * target


def test_coherence_0_is_orthonormal():
    vectors = units(24, 32, 0.0, generator())
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(24))


def test_a_coherence_that_chance_keeps_changes_nothing():
    assert torch.equal(units(24, 32, 0.99, generator()), units(24, 32, None, generator()))


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch):
    whole = units(96, 32, 0.3, generator())
    monkeypatch.setattr("unbraid.sources.world.geometry.CHUNK", 7)
    torch.testing.assert_close(units(96, 32, 0.3, generator()), whole, atol=1e-4, rtol=1e-4)


def test_welchs_bound_by_hand():
    # A regular simplex of 3 vectors in the plane: cos 120 degrees.
    assert welch_bound(3, 2) == pytest.approx(0.5)
    assert welch_bound(2, 2) == welch_bound(1, 1) == 0


@pytest.mark.parametrize("target", [-0.1, 0.0, 0.107, 1.5])
def test_a_coherence_below_welchs_bound_is_refused(target: float):
    with pytest.raises(ValueError, match=r"between 0\.108 \(the Welch bound\) and 1"):
        units(256, 64, target, generator())


def test_a_coherence_that_is_not_found_is_said_to_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unbraid.sources.world.geometry.ROUNDS", 20)
    with pytest.raises(ValueError, match="only of 0.*raise coherence"):
        units(64, 8, welch_bound(64, 8) + 1e-4, generator())


def test_gram_schmidt_keeps_the_first_direction():
    vectors = units(3, 8, None, generator())
    made = orthonormal(vectors)
    torch.testing.assert_close(made[0], vectors[0])
    torch.testing.assert_close(made @ made.T, torch.eye(3))
    assert (made * vectors).sum(1).min() > 0
