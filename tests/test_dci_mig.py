"""Modularity: every score by hand on small matrices, and what they say of no latents, one factor, or nothing known."""

import math

import pytest
import torch
from torch import Tensor

from unbraid.metrics.dci_mig import concentration, dci, gap, modularity, modularity_of_all


def exact(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


ONE_TO_ONE = exact([0, 0.3, 0], [0, 0, 2], [1, 0, 0], [0, 0, 0])


def test_one_to_one_is_the_top_of_every_score():
    assert dci(ONE_TO_ONE) == pytest.approx((1, 1, 1, 1))
    assert modularity(ONE_TO_ONE) == concentration(ONE_TO_ONE) == concentration(ONE_TO_ONE.T) == 1
    assert gap(ONE_TO_ONE) == pytest.approx(3.3 / 3)


def test_all_alike_is_the_bottom():
    alike = torch.ones(4, 8, dtype=torch.float64)
    assert dci(alike) == pytest.approx((0, 0, 8, 4))
    assert modularity(alike) == concentration(alike) == concentration(alike.T) == gap(alike) == 0


def test_dci_weighs_latents_by_their_importance():
    # The first latent carries 3 of 4 for one factor; the second is read for both alike.
    found = dci(exact([3, 0], [0.5, 0.5]))
    assert found.disentanglement == pytest.approx(3 / 4)
    assert found.factors_per_latent == pytest.approx(3 / 4 + 2 / 4)
    columns = [3.5, 0.5]
    h = -(3 / 3.5 * math.log2(3 / 3.5) + 0.5 / 3.5 * math.log2(0.5 / 3.5))
    assert found.completeness == pytest.approx((columns[0] * (1 - h) + columns[1]) / 4)
    assert found.latents_per_factor == pytest.approx((2**h + 1) / 2)


def test_completeness_hides_in_a_wide_dictionary_what_the_effective_count_shows():
    importance = torch.zeros(16_384, 2, dtype=torch.float64)
    importance[:10, 0] = importance[10:20, 1] = 0.1
    wide, narrow = dci(importance), dci(importance[:20])
    assert wide.completeness == pytest.approx(1 - math.log(10) / math.log(16_384)) == pytest.approx(0.76, abs=5e-3)
    assert wide.latents_per_factor == narrow.latents_per_factor == pytest.approx(10)
    assert dci(torch.ones(10, 1, dtype=torch.float64)).completeness == pytest.approx(0)


def test_a_gap_is_between_the_first_two_and_against_nothing_when_there_is_one():
    assert gap(exact([5, 1], [2, 4], [1, 2])) == (3 + 2) / 2
    assert gap(exact([5, 1])) == 3
    assert gap(torch.zeros(0, 2)) == 0


def test_modularity_by_hand():
    # (1 + 4) / (2 * 9) less than 1 for the first; the silent latent does not count.
    assert modularity(exact([1, 2, 3], [0, 0, 0])) == pytest.approx(1 - 5 / 18)


def test_concentration_by_hand():
    assert concentration(exact([3, 1, 0, 0], [0, 0, 0, 0])) == pytest.approx((3 / 4 - 1 / 4) / (3 / 4))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (3, 3)])
def test_where_nothing_is_known_nothing_is_claimed(shape: tuple[int, int]):
    nothing = torch.zeros(shape)
    assert all(math.isnan(value) for value in dci(nothing.double()))
    assert math.isnan(modularity(nothing)) and math.isnan(concentration(nothing))
    assert gap(nothing) == 0 if shape[1] else math.isnan(gap(nothing))


def test_one_factor_has_no_others_to_be_told_from():
    single = torch.ones(3, 1, dtype=torch.float64)
    assert math.isnan(dci(single).disentanglement) and dci(single).completeness == pytest.approx(0)
    assert math.isnan(modularity(single)) and math.isnan(concentration(single))


def test_fault_08_modularity_of_all_is_disentanglement_libs():
    """Transcribed from its definition: over codes, 1 - rest / (largest x (factors - 1)), and 0 where nothing is."""
    bits = torch.rand(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bits[30:] = 0

    def theirs(rows: list[list[float]]) -> float:
        found = []
        for row in rows:
            squared = [value * value for value in row]
            largest = max(squared)
            rest = sum(squared) - largest
            found.append(1 - rest / (largest * (len(row) - 1)) if largest else 0.0)
        return sum(found) / len(found)

    assert modularity_of_all(bits, 40) == pytest.approx(theirs(bits.tolist()))
    assert modularity_of_all(bits, 50) == pytest.approx(theirs([*bits.tolist(), *[[0.0] * 7] * 10]))
    assert modularity(bits) == pytest.approx(theirs(bits[:30].tolist()))
    assert modularity_of_all(bits[30:], 10) == 0
    assert math.isnan(modularity_of_all(bits[:, :1], 40))
