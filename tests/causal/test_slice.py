"""The slice as a function: where it looks, and its derivatives against finite differences."""

import pytest
import torch
from tests.causal.slices import around, attending, fitting, rng

from unbraid.steering.exponential_dct import ExponentialDct
from unbraid.steering.melbo import Melbo
from unbraid.steering.model_slice import Slice


def given(**settings) -> Slice:
    return Slice.of(attending(), **settings)


def directions(k: int = 5) -> torch.Tensor:
    return torch.randn(k, 8, dtype=torch.float64, generator=rng(2))


def test_only_the_last_kept_tokens_are_looked_at():
    contexts = attending()
    mask = contexts.mask.clone()
    mask[0, -1] = False
    kept = Slice.of(type(contexts)(contexts.acts, mask, contexts.base, contexts.downstream), last=2).targets
    assert kept[0].tolist() == [False, False, True, True, False]
    assert kept[1].tolist() == [False, False, False, True, True]


def test_pooled_effects_are_means_of_what_is_moved():
    after = given(last=2)
    moved = after.moved(directions())
    torch.testing.assert_close(after.pooled(directions()), moved[:, :, -2:].mean((1, 2)))


def test_the_skip_path_is_left_in_only_when_asked():
    pushed = given(keep_skip=True).pooled(directions()) - given().pooled(directions())
    torch.testing.assert_close(pushed, directions())


def test_an_identity_slice_moves_nothing_and_has_no_derivatives():
    after = Slice.of(around(lambda x: x, d_in=8))
    for found in (after.pooled(directions()), after.first(directions()), after.second(directions())):
        torch.testing.assert_close(found, torch.zeros(5, 8, dtype=torch.float64), atol=1e-12, rtol=0)


def test_the_first_derivative_agrees_with_finite_differences():
    after, v = given(), directions()
    numeric = (after.pooled(1e-5 * v) - after.pooled(-1e-5 * v)) / 2e-5
    torch.testing.assert_close(after.first(v), numeric, atol=1e-7, rtol=1e-6)


def test_the_second_derivative_agrees_with_finite_differences():
    after, v = given(), directions()
    numeric = (after.pooled(1e-3 * v) + after.pooled(-1e-3 * v)) / 1e-6
    torch.testing.assert_close(after.second(v), numeric, atol=1e-4, rtol=1e-4)


def test_the_second_derivative_is_symmetric():
    """u . T(v, w) from T(u, v, .) both ways."""
    after, v, w = given(), directions(), directions().flip(0)
    u = torch.randn(5, 8, dtype=torch.float64, generator=rng(3))
    ways = [(after.second_back(u, one) * other).sum(1) for one, other in ((v, w), (w, v))]
    torch.testing.assert_close(*ways)
    torch.testing.assert_close((after.second_back(u, v) * v).sum(1), (u * after.second(v)).sum(1))


def test_pulling_back_many_directions_at_once_equals_one_at_a_time():
    after, v = given(), directions(20)
    u = torch.randn(20, 8, dtype=torch.float64, generator=rng(3))
    whole = after.pull_back(v, u)
    single = torch.cat([after.pull_back(a[None], b[None]) for a, b in zip(v, u, strict=True)])
    torch.testing.assert_close(whole, single)
    torch.testing.assert_close((after.pull_back(0 * v, u) * v).sum(1), (u * after.first(v)).sum(1))


def test_contexts_without_a_kept_token_are_refused():
    contexts = attending()
    empty = type(contexts)(contexts.acts, torch.zeros_like(contexts.mask), contexts.base, contexts.downstream)
    with pytest.raises(ValueError, match="kept"):
        Slice.of(empty)


def test_layers_without_a_forward_mode_are_refused_with_a_remedy():
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.square()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, *grad_outputs):
            return grad_outputs

    after = Slice.of(around(lambda x: x + Opaque.apply(x + 1), d_in=8))
    with pytest.raises(ValueError, match="eager.* or set the radius by hand"):
        after.first(directions())
    for method in (Melbo(steps=2), ExponentialDct(steps=2)):
        assert bool(method.fit(2, fitting(after)).directions.isfinite().all()), "as the message says"
