"""The calibrated radius equals its closed form on a quadratic slice, and its absence is explained."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from tests.data import data_folder

from unbraid.effects import radius
from unbraid.effects.effect import pooled_effect
from unbraid.effects.radius import DIRECTIONS, PRECISION, calibrate_radius, first_order, radius_of, random_units
from unbraid.sources.base import Contexts
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.world.world import World


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def around(slice_of, d_in: int = 8) -> Contexts:
    """One token of norm 1, and a slice given as a function of the distance from it."""
    acts = torch.zeros(1, 1, d_in, dtype=torch.float64)
    acts[..., 0] = 1
    downstream = lambda moved: slice_of(moved - acts)
    return Contexts(acts, torch.ones(1, 1, dtype=torch.bool), downstream(acts), downstream)


def quadratic(d_in: int, d_out: int, *, skip: bool):
    """J v + H(v, v) / 2, and the closed form of the radius: ratio / sqrt(mean |H(v, v) / 2|^2 / |J v|^2)."""
    jacobian = torch.randn(d_out, d_in, dtype=torch.float64, generator=rng(1))
    hessian = 1e-2 * torch.randn(d_out, d_in, d_in, dtype=torch.float64, generator=rng(2))

    def slice_of(acts: torch.Tensor) -> torch.Tensor:
        out = acts @ jacobian.T + 0.5 * torch.einsum("oij,...i,...j->...o", hessian, acts, acts)
        return acts + out if skip else out

    def radius(ratio: float, seed: int) -> float:
        v = random_units(DIRECTIONS, d_in, rng(seed)).double()
        curved = 0.5 * torch.einsum("oij,ki,kj->ko", hessian, v, v)
        return ratio / float((curved.square().sum(1) / (v @ jacobian.T).square().sum(1)).mean().sqrt())

    return slice_of, radius


@pytest.mark.parametrize("ratio", [0.1, 0.5])
@pytest.mark.parametrize("skip", [False, True])
def test_the_radius_equals_its_closed_form_on_a_quadratic_slice(ratio: float, skip: bool):
    slice_of, radius = quadratic(8, 8 if skip else 5, skip=skip)
    found = calibrate_radius(around(slice_of), rng=rng(3), ratio=ratio, bracket=(1e-3, 1e4))
    assert found == pytest.approx(radius(ratio, 3), rel=PRECISION)


def test_the_radius_scales_with_the_activations():
    """Scaling the input of a slice down and its output up leaves the ratio as it was, at a radius scaled up."""
    world = World(factors=32, d_in=16, l0=2.0, roots=4, interactions=2)
    small = world.contexts(4, split="eval", seed=0)
    downstream = lambda acts: 10 * world.downstream(acts / 10)
    large = Contexts(10 * small.acts, small.mask, 10 * small.base, downstream)
    radii = [calibrate_radius(contexts, rng=rng()) for contexts in (small, large)]
    assert radii[1] == pytest.approx(10 * radii[0], rel=1e-3)


def test_the_first_order_effect_agrees_with_finite_differences_through_attention():
    weight = torch.randn(3, 8, 8, dtype=torch.float64, generator=rng(4))

    def attend(acts: torch.Tensor) -> torch.Tensor:
        query, key, value = (acts @ w for w in weight)
        return acts + torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)

    acts = torch.randn(2, 5, 8, dtype=torch.float64, generator=rng(5))
    contexts = Contexts(acts, torch.ones(2, 5, dtype=torch.bool), attend(acts), attend)
    v = random_units(4, 8, rng(6)).double()
    numeric = (pooled_effect(contexts, 1e-5 * v) - pooled_effect(contexts, -1e-5 * v)) / 2e-5
    torch.testing.assert_close(first_order(contexts, v), numeric, atol=1e-8, rtol=1e-6)


def test_a_linear_slice_has_no_radius_and_the_error_says_what_was_found():
    weight = torch.randn(8, 5, dtype=torch.float64, generator=rng(1))
    with pytest.raises(ValueError, match=r"at the lower end and .* at the upper\. Downstream layers are nearly linear"):
        calibrate_radius(around(lambda acts: acts @ weight), rng=rng())


def test_a_bracket_beyond_the_radius_is_told_to_move_down():
    slice_of, radius = quadratic(8, 5, skip=False)
    with pytest.raises(ValueError, match="Lower the bracket"):
        calibrate_radius(around(slice_of), rng=rng(3), bracket=(2 * radius(0.5, 3), 1e6))


def test_an_identity_slice_is_told_to_choose_a_later_target():
    with pytest.raises(ValueError, match="later target layer"):
        calibrate_radius(around(lambda acts: acts), rng=rng())


def test_a_slice_that_overflows_inside_the_bracket_still_has_a_radius():
    contexts = around(lambda acts: torch.cat([torch.expm1(acts), torch.expm1(-acts)], -1), d_in=1)
    radius = calibrate_radius(contexts, rng=rng(), bracket=(1e-3, 1e4))
    rests = math.expm1(radius) - radius, math.expm1(-radius) + radius
    assert math.hypot(*rests) / math.hypot(radius, radius) == pytest.approx(0.5, rel=PRECISION)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.slow
def test_fault_28_a_16_bit_model_has_the_radius_of_its_float32_self(dtype: Literal["bfloat16", "float16"]):
    folder = data_folder()
    exact = LanguageModel(
        model=str(folder / "models" / "stories260K"), text=str(folder / "corpora" / "tinystories_1000.jsonl.xz"),
        layer=2, context=32, buffer_tokens=2048,
    )  # fmt: skip
    radii = [
        calibrate_radius(of.contexts(2, split="train", seed=0), rng=rng())
        for of in (exact, replace(exact, dtype=dtype))
    ]
    assert radii[1] == pytest.approx(radii[0], rel=0.03)


@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_fault_28_pushes_that_rounding_swallows_are_not_taken_for_a_nonlinear_slice(strength: float):
    """A slice that rounds to bfloat16 has the radius of one that does not; also where it lies below the first look."""
    acts = 1 + torch.rand(4, 16, 8, generator=rng(5))
    matrix = torch.randn(8, 8, generator=rng(6))

    def of(dtype: torch.dtype) -> Contexts:
        after = lambda moved: torch.sin(strength * moved.to(dtype).float() @ matrix)[..., :5]
        mask = torch.ones(4, 16, dtype=torch.bool)
        return Contexts(acts, mask, after(acts), after, torch.finfo(dtype).eps)

    radii = [calibrate_radius(of(dtype), rng=rng()) for dtype in (torch.float32, torch.bfloat16)]
    assert radii[1] == pytest.approx(radii[0], rel=0.2)


def test_who_asks_for_the_radius_of_the_same_contexts_shares_one_calibration(monkeypatch):
    world = World(factors=32, d_in=16, l0=2.0, roots=4, interactions=2)
    contexts, looked = world.contexts(4, split="train", seed=0), []
    original = radius.nonlinearity
    monkeypatch.setattr(radius, "nonlinearity", lambda *of: (looked.append(of[-1]), original(*of))[1])
    found = radius_of(contexts)
    count = len(looked)
    assert 3 <= count == len(set(looked)), "no length is looked at twice"
    assert radius_of(contexts) == found and len(looked) == count
    again = replace(contexts)
    assert radius_of(again) == found and len(looked) == 2 * count, "other contexts, the same directions"
    monkeypatch.setattr(radius, "PRECISION", 1e-9)
    assert radius_of(replace(contexts)) == pytest.approx(found, rel=1e-3)
    assert len(looked) > 3 * count, "a finer one takes more looks"
