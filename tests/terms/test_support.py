"""Factorised support: grids are free, missing corners cost their distance, and gradients move corners to points."""

import pytest
import torch
from benchmarks.toys.penalty_table import hfs
from tests.coded import sparse, step
from torch import Tensor

from unbraid.terms.independence import factorised_support
from unbraid.terms.independence.factorised_support import Support, likely_pairs
from unbraid.terms.statistics.past_codes import PastCodes


def rows(*points: tuple[float, float], repeat: int = 40) -> Tensor:
    return torch.tensor(points).double().repeat(repeat, 1)


def value(codes: Tensor, term: Support | None = None, **given) -> float:
    return (term or Support())(step(codes, **given)).loss.item()


def test_a_full_grid_is_free():
    assert value(rows((0, 0), (1, 0), (0, 1), (1, 1))) == 0
    assert value(rows((0, 0), (1, 0), (0, 1), (1, 1)) * 7) == 0


def test_a_missing_corner_costs_its_distance():
    assert value(rows((0, 0), (1, 0), (0, 1))) == pytest.approx(1)
    assert value(rows((0, 0), (3, 0), (0, 5))) == pytest.approx(1)  # in units of the largest value


def test_a_missing_silence_costs_too():
    """Two latents that fire in turns are never both silent."""
    assert value(rows((1, 0), (0, 1))) == pytest.approx(1)
    assert value(rows((1, 1), (0, 1), (1, 0))) == pytest.approx(1)


def test_correlation_alone_is_free():
    assert value(torch.cat([rows((0, 0), (1, 1)), rows((1, 0), (0, 1), repeat=2)])) == 0


def test_it_is_the_exact_distance_where_values_are_few():
    codes = sparse(120, 2, 0.5)
    codes[codes > 0] = codes[codes > 0].mul(2).round().clamp(1, 4)
    codes = codes[(codes.sum(1) < 5) & (codes[:, 0] != 2)]  # leaves holes
    average = codes.sum(0) / (codes > 0).sum(0)
    spread = (codes.square().sum(0) / (codes > 0).sum(0) - average.square()).sqrt()
    unit = average + 2.326 * spread
    assert value(codes, Support(values=64)) == pytest.approx(hfs(codes / unit)) and hfs(codes / unit) > 0


def test_the_missing_corner_gets_its_gradient_from_either_side():
    codes = rows((0, 0), (1, 0), (0, 1)).requires_grad_()
    (grad,) = torch.autograd.grad(Support()(step(codes)).loss, codes)
    assert bool(grad.any())
    moved = codes - 0.1 * grad
    assert value(moved.detach()) < 1


def test_past_rows_count():
    memory: dict[str, Tensor] = {}
    value(rows((1, 1), (0, 0), repeat=60), memory=memory)
    assert value(rows((0, 0), (1, 0), (0, 1)), memory=memory) == 0
    assert value(rows((0, 0), (1, 0), (0, 1))) == pytest.approx(1)


def test_pairs_that_chance_would_not_show_together_are_left_out():
    codes = rows((0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (1, 0), (0, 1), repeat=10)
    now = step(codes)
    assert value(codes) == 0 and Support()(now).metrics["pairs"] == 0  # 10 x 10 / 80 rows
    assert value(codes, Support(least=1.0)) == pytest.approx(1)


def test_likely_pairs_are_drawn_evenly():
    codes = torch.zeros(100, 4).double()
    for latent, firings in enumerate((10, 20, 40, 80)):
        codes[:firings, latent] = 1
    known = PastCodes({}).with_past(step(codes).z)
    eligible = torch.tensor([True, True, True, True])
    pairs = likely_pairs(known, eligible, 6000, 8.0, torch.Generator().manual_seed(0))
    seen, counts = pairs.unique(dim=0, return_counts=True)
    # Expected together: 2, 4, 8, 8, 16, 32.
    assert seen.tolist() == [[0, 3], [1, 2], [1, 3], [2, 3]]
    # The most frequent two also meet themselves: 10 ordered draws, 2 of them for nothing.
    assert (counts / 6000).tolist() == pytest.approx([2 / 10] * 4, abs=0.03)
    assert not len(likely_pairs(known, torch.zeros(4, dtype=torch.bool), 10, 8.0, torch.Generator()))


@pytest.mark.parametrize("changed", [{"TABLE": 0}, {"PAIRS": 1}])
def test_how_partners_and_corners_are_found_changes_nothing(changed, monkeypatch):
    codes = sparse(300, 12, 0.3)
    expected = value(codes)
    assert expected > 0
    for name, number in changed.items():
        monkeypatch.setattr(factorised_support, name, number)
    assert value(codes) == expected
