"""Products of sparse columns equal the dense ones, with their gradients; sums over pairs equal the explicit ones."""

import pytest
import torch
from tests.coded import sparse, step
from torch import Tensor

from unbraid.terms.statistics.pair_sums import FREQUENT, SparseColumns, centred_products, products, rows_of, split_half


def columns(dense: Tensor) -> SparseColumns:
    """Of [batch, latent] or [batch, latent, r] numbers."""
    full = dense if dense.ndim == 3 else dense.unsqueeze(2)
    rows, places = (full != 0).any(2).nonzero(as_tuple=True)
    return SparseColumns(full[rows, places], rows, places, len(full), torch.arange(full.shape[1]))


def mixed(rows: int, seed: int, r: int = 1) -> Tensor:
    """Six rare latents, four frequent ones, and a silent one."""
    parts = [sparse(rows, 6 * r, 0.04, seed), sparse(rows, 4 * r, 0.6, seed + 1), torch.zeros(rows, r).double()]
    return torch.cat(parts, 1).view(rows, -1, r) if r > 1 else torch.cat(parts, 1)


def test_a_split_half_sum_worked_out_by_hand():
    # Both latents are (1, 0) in either half: all four covariances are 1/2, and the two own ones are taken away.
    copies = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).double()
    assert split_half(columns(copies), columns(copies)).item() == pytest.approx(4 * 0.25 - 2 * 0.25)


def test_a_table_puts_every_entry_where_it_belongs():
    dense = mixed(30, 2)
    made = columns(dense)
    assert torch.equal(made.table(made.values[:, 0]), dense.T)
    fewer = torch.tensor([7, 2])
    assert torch.equal(made.restricted(fewer).table(made.restricted(fewer).values[:, 0]), dense.T[fewer])


@pytest.mark.parametrize("r", [1, 3])
def test_products_and_their_gradients_equal_the_dense_ones(r: int):
    first, second = mixed(80, 1, r).requires_grad_(), mixed(60, 5, r).requires_grad_()
    a, b = columns(first), columns(second)
    assert bool((torch.minimum(a.firings(), b.firings()) >= FREQUENT).any())
    weights = torch.randn(80, 60, generator=torch.Generator().manual_seed(9)).double()
    found = products(a, b)
    wanted = first.flatten(1) @ second.flatten(1).T
    torch.testing.assert_close(found, wanted)
    got = torch.autograd.grad((weights * found).sum(), [first, second])
    expected = torch.autograd.grad((weights * wanted).sum(), [first, second])
    for one, other, codes in zip(got, expected, (first, second), strict=True):
        active = (codes.unflatten(1, (-1, 1)) if r == 1 else codes) != 0
        at = active.any(2, keepdim=True).expand_as(active).reshape(other.shape)
        torch.testing.assert_close(one, other * at)  # only active pairs have gradient


def test_the_form_in_rows_equals_the_form_in_latents():
    first, second = mixed(120, 1), mixed(100, 7)
    explicit = (torch.cov(first.T) * torch.cov(second.T)).fill_diagonal_(0).sum()
    torch.testing.assert_close(split_half(columns(first), columns(second)), explicit, rtol=1e-10, atol=1e-12)


def test_the_sum_over_latents_of_features_equals_the_explicit_blocks():
    first, second = mixed(90, 2, 3), mixed(70, 4, 3)
    width = first.shape[1]
    blocks = [torch.cov(part.flatten(1).T).view(width, 3, width, 3) for part in (first, second)]
    together = (blocks[0] * blocks[1]).sum((1, 3))
    torch.testing.assert_close(split_half(columns(first), columns(second)), together.fill_diagonal_(0).sum())


def test_all_pairs_of_hsic_are_one_trace():
    """sum_ij tr(K_i H K_j H) / (b - 1)^2 = tr(K H K H) / (b - 1)^2, K = sum_i K_i."""
    features = mixed(40, 3, 2)[:, :7]
    centre = torch.eye(40).double() - 1 / 40
    kernels = [centre @ (part @ part.T) @ centre for part in features.unbind(1)]
    explicit = torch.stack([(a * b).sum() for a in kernels for b in kernels]).sum() / 39**2
    both = columns(features)
    assert (centred_products(both, both).square().sum() / 39**2).item() == pytest.approx(explicit.item(), rel=1e-10)


def test_rows_are_renumbered_in_the_order_asked_for():
    codes = torch.tensor([[0.0, 1.0], [2.0, 3.0], [0.0, 0.0], [4.0, 0.0]]).double()
    got = rows_of(step(codes).z, torch.tensor([3, 1]))
    assert got.rows.tolist() == [0, 1, 1] and got.values.flatten().tolist() == [4, 2, 3]
    fewer = got.restricted(torch.tensor([1]))
    assert (fewer.latents.tolist(), fewer.values.flatten().tolist()) == ([1], [3])
