"""Rows with some causes replaced: none of them at share 0, all at 1; and the term that reconstructs them."""

from dataclasses import replace

import pytest
import torch

from unbraid import seeding
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.objective.objective import Step
from unbraid.objective.step_data import ExtraInputs
from unbraid.sources.base import Batch
from unbraid.sources.language_model.language_model import LanguageModel
from unbraid.sources.tensor import Activations
from unbraid.sources.world.active_factors import add_factors
from unbraid.sources.world.world import World
from unbraid.terms.controls.masked import Masked

WORLD = World(factors=64, d_in=64, l0=4.0, roots=8, noise=0.0, coherence=0.0, interactions=4)
MODEL = LanguageModel(text="language://300", layer=1, max_norm_ratio=0.0)


def active(share: float) -> torch.Tensor:
    x = WORLD.corrupted(8192, share=share, split="train", seed=0) - WORLD.offset
    return (x @ WORLD.directions.T) > 0.05


def orphans(present: torch.Tensor) -> float:
    """Share of active factors whose parent is not active."""
    child = WORLD.parents >= 0
    alone = present[:, child] & ~present[:, WORLD.parents[child]]
    return float(alone.sum() / present[:, child].sum())


def test_nothing_is_replaced_at_share_0_and_the_forest_is_broken_above():
    assert orphans(active(0.0)) == 0
    assert 0.2 < orphans(active(0.3)) < orphans(active(1.0))


def test_the_factors_and_the_second_noise_are_those_that_were_always_drawn():
    """Fingerprints of old runs stand for these rows: the noise of rows that nobody sees is still drawn before."""
    world = replace(WORLD, noise=0.1, circles=3, dense=2, coherence=None)
    found = world.corrupted(512, share=0.0, split="train", seed=3)
    rng = seeding.stream(3, "corrupted/train")
    x, entries = world._sampler.draw(512, rng)
    torch.multinomial(world.probabilities, len(entries.factors), replacement=True, generator=rng)
    torch.rand(len(entries.factors), generator=rng)
    background = torch.randn(512, world.d_in, generator=rng).mul_(0.1).add_(world.offset)
    add_factors(background, entries, world.directions, world._manifolds)
    assert torch.equal(found, background) and not torch.equal(found, x)


def test_frequencies_stay():
    before, after = active(0.0).float().mean(0), active(1.0).float().mean(0)
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] > 0.98
    assert after.sum() == pytest.approx(float(before.sum()), rel=0.1)  # a factor drawn twice in a row counts once


def test_a_models_tokens_are_replaced_by_others_of_its_text():
    windows = MODEL.windows(4, split="train", seed=5)
    plain = MODEL.activations(windows)[windows.keep]
    same, some = (MODEL.corrupted(4 * MODEL.context, share=s, split="train", seed=5) for s in (0.0, 0.5))
    assert torch.allclose(plain, same, atol=1e-5)
    assert some.shape == plain.shape
    changed = (some - plain).norm(dim=1) > 1e-3
    assert changed.float().mean() > 0.5  # what comes after a replaced token changes too


def test_a_source_that_cannot_says_which_can():
    with pytest.raises(ValueError, match="World or LanguageModel"):
        Activations(torch.eye(8)).corrupted(4, share=0.1, split="train", seed=0)


def test_a_supply_draws_once():
    extra = ExtraInputs(WORLD, 0, 7)
    assert extra.corrupted(0.1) is extra.corrupted(0.1)
    assert extra.contexts() is extra.contexts() and extra.counterfactuals() is extra.counterfactuals()
    assert not torch.equal(extra.corrupted(0.1), ExtraInputs(WORLD, 0, 8).corrupted(0.1))


def test_masked_is_the_squared_error_on_corrupted_rows():
    made = Dictionary(2, 2, TopK(1)).double()
    made.W_dec.data.copy_(torch.eye(2))
    made.W_enc.data.copy_(torch.eye(2))
    x = torch.zeros(1, 2, dtype=torch.float64)
    index = torch.zeros(1, dtype=torch.long)
    now = Step(
        x=x, z=made.codes(x), dictionary=made, batch=Batch(x, index, index, index), progress=0.5,
        dead=torch.zeros(2, dtype=torch.bool), rng=torch.Generator(), contexts=lambda: pytest.fail("none"),
        corrupted=lambda share: torch.tensor([[3.0, 1.0], [0.0, 2.0]], dtype=torch.float64) * (share / 0.15),
    )  # fmt: skip
    assert Masked()(now).loss.item() == pytest.approx((1 + 0) / 2)
    assert Masked(share=0.3)(replace(now, memory={})).loss.item() == pytest.approx(4 / 2)
