"""MELBO and the DCTs on slices whose answer is known (the spec's numbers, and what each must refuse)."""

import math
from dataclasses import replace

import pytest
import torch
from tests.causal.slices import around, attending, beside_skip, fitting, recovered, rng, units

from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.initialisation import Origin, no_progress
from unbraid.dictionary.normaliser import Normaliser
from unbraid.effects import kernel
from unbraid.sources.world.world import World
from unbraid.steering.exponential_dct import ExponentialDct, amplitudes
from unbraid.steering.jacobian import jacobian, power_iteration, sketch, top_right
from unbraid.steering.linear_dct import LinearDct
from unbraid.steering.melbo import Melbo
from unbraid.steering.model_slice import Slice
from unbraid.steering.quadratic_dct import QuadraticDct

D = 12


def linear(top: float = 10.0) -> tuple[Slice, torch.Tensor]:
    """x + A x at one token, A with singular values top, top - .5, …"""
    left, right = (torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=rng(i))).Q for i in (1, 2))
    weight = left @ torch.diag(top - 0.5 * torch.arange(D, dtype=torch.float64)) @ right.T
    return beside_skip(lambda x: x @ weight.T, D), weight


def exponential(factors: int = 6, d_in: int = 24) -> tuple[Slice, torch.Tensor]:
    """x + sum_l s_l expm1(w_l . x) o_l, orthonormal w."""
    true = torch.linalg.qr(torch.randn(d_in, d_in, dtype=torch.float64, generator=rng(1))).Q[:factors]
    out = units(factors, d_in, 2) * torch.linspace(2, 1, factors, dtype=torch.float64).unsqueeze(1)
    return beside_skip(lambda x: torch.expm1(x @ true.T) @ out, d_in), true


# ---- MELBO


@pytest.mark.parametrize(("steps", "within"), [(400, 1e-3), pytest.param(1500, 1e-6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("axis", ["tokens", "neurons"])
def test_melbo_on_a_linear_slice_finds_the_leading_eigenvectors_in_turn(axis, steps, within):
    """Over tokens: of sum_t A_t'A_t. With p = 2 both axes are the same objective."""
    weights = torch.randn(3, D, D, dtype=torch.float64, generator=rng(3))
    contexts = around(lambda x: x, D)
    acts = torch.ones(1, 3, D, dtype=torch.float64)
    downstream = lambda at: at + torch.einsum("toi,...ti->...to", weights, at - acts)
    after = Slice.of(type(contexts)(acts, torch.ones(1, 3, dtype=torch.bool), downstream(acts), downstream))
    values, vectors = torch.linalg.eigh(torch.einsum("toi,toj->ij", weights, weights))
    found = Melbo(steps=steps, q=1.0, axis=axis).fit(2, fitting(after)).directions
    assert float((found[0] @ vectors[:, -1]).abs()) > 1 - within
    assert float((found[1] @ vectors[:, -2]).abs()) > 1 - within
    assert abs(float(found[0] @ found[1])) < 1e-12


def test_the_published_axis_differs_from_the_released_one_above_p_2():
    moved = torch.randn(4, 2, 5, 7, dtype=torch.float64, generator=rng())
    score = lambda p, axis: Melbo(p=p, q=1.0, axis=axis).score(moved)
    torch.testing.assert_close(score(2.0, "tokens"), score(2.0, "neurons"))
    assert not torch.allclose(score(4.0, "tokens"), score(4.0, "neurons"), rtol=1e-2)


def test_the_objective_by_hand():
    """Two tokens moved by norms 5 and 13: p = 2, q = 1 gives 25 + 169; p = 4, q = 4 its fourth root."""
    moved = torch.tensor([[[[3.0, 4.0], [5.0, 12.0]]]], dtype=torch.float64)
    assert float(Melbo(q=1.0).score(moved)) == pytest.approx(194)
    assert float(Melbo(p=4.0, q=4.0).score(moved)) == pytest.approx((5**4 + 13**4) ** 0.25)


@pytest.mark.parametrize("orthogonality", ["sequential", "joint"])
def test_strict_orthogonality_is_strict(orthogonality):
    after, _ = exponential()
    found = Melbo(orthogonality=orthogonality, steps=20).fit(6, fitting(after)).directions
    torch.testing.assert_close(found @ found.T, torch.eye(6, dtype=torch.float64), atol=5e-6, rtol=0)


def test_without_orthogonality_all_directions_become_the_same():
    """The degenerate solution that the other forms are there for."""
    after, _ = exponential()
    free = Melbo(orthogonality="none", steps=200).fit(20, fitting(after)).directions
    apart = Melbo(orthogonality="repelled", steps=200).fit(20, fitting(after)).directions
    largest = lambda v: float((v @ v.T).abs().fill_diagonal_(0).amax(1).mean())
    assert largest(free) > 0.99
    assert largest(apart) < 0.5


def test_repelled_directions_may_outnumber_dimensions():
    after, true = exponential()
    found = Melbo(orthogonality="repelled", steps=100).fit(30, fitting(after)).directions
    assert found.shape == (30, 24)
    assert bool(torch.isfinite(found).all())


# ---- linear


def test_linear_dct_moves_by_the_singular_values():
    """The released code fails this: columns of V' in place of rows reach |J v| = 2.6 for a first value of 10."""
    after, weight = linear()
    found = LinearDct().fit(4, fitting(after))
    torch.testing.assert_close(found.strengths, torch.tensor([10.0, 9.5, 9.0, 8.5], dtype=torch.float64))
    torch.testing.assert_close((found.directions @ weight.T).norm(dim=1), found.strengths)


def test_power_iteration_agrees_with_the_decomposition():
    after, weight = linear()
    directions, values = power_iteration(after, 4, 200, rng(5), no_progress)
    torch.testing.assert_close(values, torch.linalg.svdvals(weight)[:4], rtol=1e-4, atol=0)
    torch.testing.assert_close((directions @ weight.T).norm(dim=1), values)


def test_a_projection_onto_all_rows_spans_what_the_whole_jacobian_does():
    after, weight = linear()
    whole = top_right(weight, 3)[0]
    seen = top_right(sketch(after, 4000, rng(6)), 3)[0]
    assert float(torch.linalg.svdvals(whole @ seen.T).min()) > 0.9


def test_sketched_lengths_estimate_the_jacobians():
    after, weight = linear()
    v = units(500, D, 7)
    estimated = (v @ sketch(after, 32, rng(8)).T).square().sum(1) * D / 32
    ratio = estimated / (v @ weight.T).square().sum(1)
    assert 0.6 < float(ratio.mean()) < 1.4
    torch.testing.assert_close(jacobian(after), weight)


def test_of_two_sides_the_one_that_moves_more_is_kept():
    after, true = exponential(factors=1)
    found = LinearDct().fit(1, fitting(after, radius=2.0)).directions
    assert float(found[0] @ true[0]) > 0.999  # expm1 grows on the positive side


# ---- quadratic


@pytest.mark.parametrize("linear_part", [1.0, pytest.param(0.0, marks=pytest.mark.slow)])
def test_quadratic_dct_recovers_planted_factors(linear_part):
    """The released code fails this: its second derivatives are first ones, and those are 0 here."""
    true = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=rng(1))).Q[:4]
    out, strength = units(4, D, 2), torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    weight = torch.randn(D, D, dtype=torch.float64, generator=rng(9))
    slice_of = lambda x: ((x @ true.T).square() / 2 * strength) @ out + linear_part * x @ weight
    found = QuadraticDct(rounds=60).fit(4, fitting(beside_skip(slice_of, D)))
    assert recovered(found.directions, true, 0.99) == 1
    torch.testing.assert_close(found.strengths.sort(descending=True).values, strength, rtol=1e-3, atol=0)


def test_a_linear_slice_has_nothing_quadratic():
    after, _ = linear()
    with pytest.raises(ValueError, match="no second derivative"):
        QuadraticDct().fit(3, fitting(after))


# ---- exponential


def test_the_kernel_form_interpolates_the_slice_at_its_directions():
    after, _ = exponential()
    v = units(10, 24, 3)
    effects = after.pooled(v)
    out = kernel.outputs(effects, v, ridge=0.0)
    torch.testing.assert_close(torch.expm1(v @ v.T) @ out, effects)


def test_what_is_explained_is_the_functional_loss_with_the_best_outputs():
    """L = const - 2 sum <U_l, E_l> + sum K_lm <U_l, U_m>, at U = Gamma^-1 E: -explained; any alpha alone less."""
    after, _ = exponential()
    v = units(10, 24, 3)
    effects = after.pooled(v)
    best = kernel.outputs(effects, v, ridge=0.0)
    loss = lambda u: -2 * (u * effects).sum() + ((u @ u.T) * torch.expm1(v @ v.T)).sum()
    explained = kernel.explained(effects, v, ridge=0.0)
    torch.testing.assert_close(loss(best), -explained)
    u = units(10, 24, 4)
    alpha = amplitudes(u, v, effects)
    assert float(loss(alpha.unsqueeze(1) * u)) > -float(explained)


def test_orthonormal_directions_make_dct_melbo():
    after, _ = exponential()
    v = torch.linalg.qr(torch.randn(24, 10, dtype=torch.float64, generator=rng(3))).Q.T
    effects = after.pooled(v)
    melbo = effects.square().sum() / (math.e - 1)
    torch.testing.assert_close(kernel.explained(effects, v, ridge=0.0), melbo)


def test_the_gradient_made_in_two_passes_is_the_gradient():
    after, _ = exponential()
    dct, v = ExponentialDct(), units(20, 24, 3)
    given = fitting(after, radius=0.7)
    own = v.clone().requires_grad_()
    kernel.explained(after.pooled(0.7 * own), own, dct.ridge).backward()
    torch.testing.assert_close(dct._gradient(v, given.length.begin(v), given).gradient, own.grad)


def nearness(found: torch.Tensor, true: torch.Tensor) -> float:
    """Mean |cosine| of true directions with the found one nearest to them."""
    return float((true @ found.T).abs().amax(1).mean())


def test_the_kernel_solver_recovers_planted_factors():
    after, true = exponential()
    assert recovered(ExponentialDct().fit(12, fitting(after)).directions, true, 0.95) == 1


@pytest.mark.parametrize("solver", ["sogi", "ogi"])
def test_gradient_iterations_come_near_planted_factors(solver):
    """They converge to no optimum of the loss: nearer than chance, further than the kernel solver."""
    after, true = exponential()
    found = ExponentialDct(solver=solver, steps=60).fit(12, fitting(after)).directions
    assert nearness(found, true) > 0.85 > 0.6 > nearness(units(12, 24, 0), true)


# ---- what cannot be had


@pytest.mark.parametrize(
    ("method", "count", "remedy"),
    [
        (Melbo(), D + 1, "repelled"),
        (LinearDct(), D + 1, "d-sae"),
        (LinearDct(form="projected", rows=2), 3, "rows"),
        (QuadraticDct(), D + 1, "d-sae"),
        (ExponentialDct(solver="ogi"), D + 1, "kernel"),
    ],
)
def test_what_a_method_cannot_give_is_refused_with_a_remedy(method, count, remedy):
    with pytest.raises(ValueError, match=remedy):
        method.fit(count, fitting(linear()[0]))


@pytest.mark.parametrize(
    "method",
    [
        Melbo(steps=3),
        Melbo(orthogonality="joint", steps=3),
        LinearDct(),
        LinearDct(form="projected"),
        LinearDct(form="power"),
        QuadraticDct(rounds=2),
        ExponentialDct(steps=3),
        ExponentialDct(solver="ogi", start="jacobian"),
        ExponentialDct(solver="sogi"),
    ],
    ids=str,
)
def test_every_method_gives_unit_vectors_through_attention(method):
    found = method.fit(4, fitting(Slice.of(attending(), last=2)))
    torch.testing.assert_close(found.directions.norm(dim=1), torch.ones(4, dtype=torch.float64), atol=1e-5, rtol=0)
    assert found.strengths.shape == (4,)


@pytest.mark.parametrize(
    "method",
    [
        Melbo(steps=3),
        Melbo(steps=3, orthogonality="joint"),
        Melbo(steps=3, orthogonality="repelled"),
        ExponentialDct(steps=5),
        ExponentialDct(solver="ogi"),
        ExponentialDct(solver="sogi"),
    ],
)
def test_layers_that_overflow_at_the_radius_are_told_with_the_remedy(method):
    """In single precision, where exponentials end at 88."""
    weight = torch.linalg.qr(torch.randn(D, D, generator=rng(2))).Q
    after = beside_skip(lambda x: torch.expm1(60 * (x @ weight)), D, torch.float32)
    with pytest.raises(ValueError, match="not finite; set a smaller radius"):
        method.fit(4, fitting(after, radius=9.9))


@pytest.mark.parametrize("method", [LinearDct(), QuadraticDct(rounds=2)])
def test_derivatives_that_are_not_finite_are_told_too(method):
    after = beside_skip(lambda x: (x.sum(-1, keepdim=True) * 0).sqrt() * x, D)
    with pytest.raises(ValueError, match="derivatives that are not finite"):
        method.fit(4, fitting(after))


def test_contexts_that_keep_no_token_are_refused_before_any_radius_is_looked_at(monkeypatch):
    world = World(factors=16, d_in=8, l0=2.0, roots=2, interactions=0)
    kept = world.contexts(2, split="train", seed=0)
    monkeypatch.setattr(World, "contexts", lambda *_, **__: replace(kept, mask=torch.zeros_like(kept.mask)))
    config = DictionaryConfig(d_sae=4, activation=TopK(2), init=Melbo(radius=1.0, contexts=2))
    origin = Origin(world, Normaliser(torch.zeros(8), torch.ones(())))
    with pytest.raises(ValueError, match="no token of these contexts is kept"):
        config.build(torch.randn(32, 8, generator=rng()), seed=0, origin=origin)


def test_a_direction_found_twice_shares_its_amplitude():
    """And the third gets what it is worth: in single precision, by the default solver, it was lost."""
    v = units(3, D, 7)
    v[1] = v[0]
    effects = units(3, D, 8)
    effects[1] = effects[0]
    found = amplitudes(effects.float(), v.float(), effects.float()).double()
    gram = (effects @ effects.T) * torch.expm1(v @ v.T)
    torch.testing.assert_close(gram @ found, torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-4)
    assert float((found[0] - found[1]).abs()) < 1e-4


@pytest.mark.parametrize(("setting", "value"), [("contexts", 0), ("last", -1), ("radius", -1.0)])
def test_settings_that_no_fit_can_have_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"Melbo.{setting} is {value}; it must be at least"):
        Melbo(**{setting: value})


def test_a_root_beyond_the_power_is_refused():
    with pytest.raises(ValueError, match="1 <= q <= p"):
        Melbo(p=1.0, q=2.0)
