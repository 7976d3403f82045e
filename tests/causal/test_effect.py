"""Pooled effects: the mean over kept tokens, the skip path removed, one fold equal to a loop."""

import pytest
import torch

from unbraid.effects.effect import pooled_effect
from unbraid.sources.base import Contexts


def contexts(downstream, d_in: int = 6, seq: int = 2, pos: int = 3) -> Contexts:
    acts = torch.randn(seq, pos, d_in, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(seq, pos, dtype=torch.bool)
    mask[0, 0] = False
    return Contexts(acts, mask, downstream(acts), downstream)


def mixing(d_in: int = 6, d_out: int = 4):
    """A slice in which tokens see one another, as attention lets them."""
    weight = torch.randn(d_in, d_out, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return lambda acts: torch.tanh((acts + 0.5 * acts.cumsum(-2)) @ weight)


def directions(k: int, d_in: int = 6) -> torch.Tensor:
    return torch.randn(k, d_in, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_folding_copies_into_the_batch_equals_a_loop():
    given = contexts(mixing())
    kept = given.mask.unsqueeze(-1)
    one_by_one = []
    for theta in directions(5):
        moved = given.downstream(torch.where(kept, given.acts + theta, given.acts)) - given.base
        one_by_one.append(moved[given.mask].mean(0))
    for copies in (1, 2, 16):
        torch.testing.assert_close(pooled_effect(given, directions(5), copies), torch.stack(one_by_one))


def test_the_identity_slice_has_no_effect():
    effect = pooled_effect(contexts(lambda acts: acts), directions(3))
    torch.testing.assert_close(effect, torch.zeros(3, 6, dtype=torch.float64), atol=1e-14, rtol=0)


def test_the_skip_path_is_removed_once():
    plus_half = pooled_effect(contexts(lambda acts: 1.5 * acts), directions(3))
    torch.testing.assert_close(plus_half, 0.5 * directions(3))


def test_tokens_left_out_are_neither_perturbed_nor_averaged():
    given = contexts(lambda acts: acts.cumsum(-2)[..., :4])
    wanted = directions(1)[0, :4] * (1 + 2 + 1 + 2 + 3) / 5  # the first sequence keeps two tokens, the second three
    torch.testing.assert_close(pooled_effect(given, directions(1))[0], wanted)


def test_effects_are_differentiable():
    given = contexts(mixing())
    assert torch.autograd.gradcheck(lambda v: pooled_effect(given, v, 2), (directions(3).requires_grad_(),))


def test_contexts_without_a_kept_token_are_refused():
    given = contexts(mixing())
    empty = Contexts(given.acts, torch.zeros_like(given.mask), given.base, given.downstream)
    with pytest.raises(ValueError, match="kept"):
        pooled_effect(empty, directions(1))
