"""MetaSAE: the charge by hand, the meta-SAE's own training, and which atoms it finds decomposable."""

import math

import pytest
import torch
from tests.steps import decoder_step, rng, units
from torch import Tensor
from torch.nn.functional import normalize

from unbraid.terms.geometry.meta_sae import MetaSAE

EVERY = MetaSAE(share=0.2, k=2, sample=1000, lr=1e-2, steps=1)


def given(encoder: Tensor, decoder: Tensor) -> dict[str, Tensor]:
    return {"encoder": encoder, "decoder": decoder, "steps": torch.tensor(5.0)}


def test_the_explained_share_is_worked_out_by_hand():
    # One meta-atom, e1, reads 0.6 of (0.6, 0.8): what is left is 0.64. Of e2 and -e1 it reads nothing.
    atoms = torch.tensor([[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    axis = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    out = MetaSAE(k=1, steps=0)(decoder_step(atoms, memory=given(axis, axis)))
    assert out.loss.item() == pytest.approx(0.36 / 3)


def test_atoms_explained_worse_than_by_nothing_are_not_charged():
    atoms = torch.tensor([[0.6, 0.8], [1.0, 0.0]], dtype=torch.float64)
    axis = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    out = MetaSAE(k=1, steps=0)(decoder_step(atoms, memory=given(3 * axis, axis)))
    # Readings 1.8 and 3: errors 1.44 + 0.64 and 4, of squares 1.
    assert out.loss.item() == 0
    assert out.metrics["explained"].item() == pytest.approx((-1.08 - 3) / 2)


def test_only_atoms_get_gradient_and_one_that_is_its_own_copy_gets_none():
    atoms = torch.eye(3, dtype=torch.float64)
    now = decoder_step(atoms, memory=given(atoms[:2], atoms[:2]))
    out = MetaSAE(k=2, steps=0)(now)
    assert out.loss.item() == pytest.approx(2 / 3)
    (grad,) = torch.autograd.grad(out.loss, now.dictionary.W_dec)
    tangent = grad - (grad * atoms).sum(1, keepdim=True) * atoms
    assert not tangent.any()
    assert not any(value.requires_grad for value in now.memory.values())


def test_meta_atoms_keep_unit_norm():
    memory: dict[str, Tensor] = {}
    for seed in range(4):
        EVERY(decoder_step(units(40, 6, seed=3), seed=seed, memory=memory))
    torch.testing.assert_close(memory["decoder"].norm(dim=1), torch.ones(8).double())


def explained_after(atoms: Tensor, calls: int = 300) -> float:
    memory: dict[str, Tensor] = {}
    explained = math.nan
    for seed in range(calls):
        now = decoder_step(atoms, seed=seed, memory=memory)
        explained = EVERY(now).metrics["explained"].item()
        memory = now.memory
    return explained


def test_sums_of_two_of_a_few_directions_are_found_decomposable_and_random_atoms_less():
    parts = torch.eye(12, dtype=torch.float64)
    pairs = torch.randint(0, 12, (60, 2), generator=rng(0))
    sums = normalize(parts[pairs[:, 0]] + parts[pairs[:, 1]], dim=1)
    assert explained_after(sums) > explained_after(units(60, 12, seed=1)) + 0.2


@pytest.mark.slow
def test_the_meta_sae_learns_and_sums_that_follow_the_penalty_become_harder_to_explain():
    parts = torch.eye(24, dtype=torch.float64)[:8]
    pairs = torch.randint(0, 8, (40, 2), generator=rng(2))
    atoms = normalize(parts[pairs[:, 0]] + parts[pairs[:, 1]] + 0.01 * units(40, 24, seed=3), dim=1)
    before = explained_after(atoms)
    assert before > explained_after(atoms, 1) + 0.1
    memory: dict[str, Tensor] = {}
    moved = atoms
    for seed in range(300):
        now = decoder_step(moved, seed=seed, memory=memory)
        (grad,) = torch.autograd.grad(EVERY(now).loss, now.dictionary.W_dec)
        moved = normalize(moved - 0.3 * grad, dim=1)
        memory = now.memory
    assert explained_after(moved) < before - 0.2


def test_memory_is_replaced_and_never_written_into():
    """The loop may ask a term twice about one step."""
    now = decoder_step(units(40, 6, seed=3))
    EVERY(now)
    before = {name: value.clone() for name, value in now.memory.items()}
    asked = decoder_step(units(40, 6, seed=3), seed=1, memory=dict(now.memory))
    EVERY(asked)
    assert all(torch.equal(now.memory[name], value) for name, value in before.items())
    assert not torch.equal(asked.memory["encoder"], before["encoder"])
