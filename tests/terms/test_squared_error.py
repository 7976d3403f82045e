"""Squared errors whose gradient is made in one pass, next to what autograd makes of the formula, bit for bit."""

import torch

from unbraid.terms.statistics.squared_error import squared_error, squared_errors_of_levels


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_gradient_of_a_squared_error_is_autograds():
    x, predicted = drawn(7, 5, seed=0), drawn(7, 5, seed=1).requires_grad_()
    ours = squared_error(predicted, x)
    theirs = (predicted - x).square().sum()
    assert torch.equal(ours, theirs)
    (got,), (wanted,) = (torch.autograd.grad(loss * 0.37, predicted) for loss in (ours, theirs))
    assert torch.equal(got, wanted)


def test_the_gradients_of_the_levels_errors_are_autograds():
    x, levels, b_dec = drawn(7, 5, seed=0), drawn(7, 3, 5, seed=1).requires_grad_(), drawn(5, seed=2).requires_grad_()
    ours = squared_errors_of_levels(levels, b_dec, x)
    inner = (levels[:, :-1] - (x - b_dec).unsqueeze(1)).square().sum()
    theirs = inner, (levels[:, -1] - (x - b_dec)).square().sum()
    for mine, autograds in zip(ours, theirs, strict=True):
        assert torch.equal(mine, autograds)
    got, wanted = (torch.autograd.grad(0.3 * i + 0.7 * w, (levels, b_dec)) for i, w in (ours, theirs))
    assert all(torch.equal(mine, autograds) for mine, autograds in zip(got, wanted, strict=True))


def test_a_single_level_has_no_inner_error():
    x, levels, b_dec = drawn(7, 5, seed=0), drawn(7, 1, 5, seed=1).requires_grad_(), drawn(5, seed=2)
    inner, whole = squared_errors_of_levels(levels, b_dec, x)
    assert inner == 0
    (got,) = torch.autograd.grad(inner + whole, levels)
    torch.testing.assert_close(got[:, 0], 2 * (levels[:, 0] + b_dec - x))
