"""The gates' budget: KL by hand, zero only at the prior, the same as the dense sum, and a budget that falls."""

import math
from dataclasses import replace

import pytest
import torch
from tests.coded import sparse, step

from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.objective.objective import Step
from unbraid.terms.sparsity.gate_kl import GateKl, gate_kl

EXACT = GateKl(rows=10_000, capacity=1.0)


def with_threshold(now: Step, threshold: float) -> Step:
    now.dictionary.threshold.data.fill_(threshold)
    return replace(now, z=now.dictionary.codes(now.x))


def test_kl_is_zero_at_the_prior_alone_and_there_is_a_gradient_away_from_it():
    rates = torch.tensor([1e-5, 0.01, 0.5, 0.9]).double()
    prior = rates.logit()
    for shift in (-1.0, 0.0, 1.0):
        logits = (prior + shift).requires_grad_()
        found = gate_kl(logits, rates)
        (grad,) = torch.autograd.grad(found.sum(), logits)
        assert torch.equal(found > 1e-9, torch.full((4,), shift != 0))
        assert torch.equal(grad.abs() > 1e-9, torch.full((4,), shift != 0)) and bool((grad * shift >= 0).all())


def test_a_value_worked_out_by_hand():
    # One gate, open at rate 1/2, at logits 1 and -1: ln 2 less the entropy of sigmoid(1), in both rows.
    codes = torch.tensor([[1.0], [0.0]]).double()
    now = with_threshold(step(codes, activation=JumpReLU(bandwidth=0.0)), 0.5)
    q = 1 / (1 + math.exp(-1))
    nats = math.log(2) + q * math.log(q) + (1 - q) * math.log(1 - q)
    out = replace(EXACT, temperature=0.5)(now)
    assert out.metrics["nats"].item() == pytest.approx(nats)
    assert out.loss.item() == pytest.approx(1 - nats)


@pytest.mark.parametrize("activation", [ReLU(), TopK(2), BatchTopK(2), JumpReLU(bandwidth=0.2)])
def test_over_all_rows_it_is_the_dense_sum(activation):
    codes = sparse(50, 8, 0.4)
    now = step(codes, activation=activation)
    if isinstance(activation, JumpReLU):
        now = with_threshold(now, 0.7)
    rates = (now.z.dense() != 0).double().mean(0).clamp(1e-5, 1 - 1e-5)
    rows, latents = torch.arange(50).repeat_interleave(8), torch.arange(8).repeat(50)
    logits = (codes - activation.thresholds(now.dictionary, now.z, rows, latents).view(50, 8)) / 0.1
    wanted = gate_kl(logits, rates).sum(1).mean()
    assert EXACT(now).metrics["nats"].item() == pytest.approx(wanted.item())


def test_a_few_rows_give_the_same_on_average():
    now = step(sparse(50, 8, 0.4), activation=TopK(2))
    nats = lambda seed: GateKl(rows=4)(replace(now, rng=torch.Generator().manual_seed(seed), memory={})).metrics["nats"]
    found = torch.stack([nats(seed) for seed in range(200)])
    assert abs(found.mean() - EXACT(replace(now, memory={})).metrics["nats"]) < 3 * found.std() / 200**0.5


def test_gates_open_where_the_smallest_active_latent_is():
    codes = torch.tensor([[3.0, 2.0, 1.0], [6.0, 5.0, 4.0]]).double()
    at = torch.tensor([0, 1])

    def opens(activation: Activation) -> list[float]:
        now = step(codes, activation=activation)
        return activation.thresholds(now.dictionary, now.z, at, at).tolist()

    assert (opens(TopK(2)), opens(BatchTopK(2)), opens(ReLU())) == ([2, 5], [3, 3], [0, 0])


def test_the_budget_falls_from_twice_to_once_the_entropy_of_the_gates():
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double()
    budget = lambda progress: GateKl()(step(codes, progress=progress)).metrics["budget"].item() / (2 * math.log(2))
    assert [budget(progress) for progress in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([2, 1.5, 1, 1])


def test_the_budget_is_kept_and_inactive_latents_are_remembered_in_between():
    term = GateKl(rows=10, apart=3)
    first = step(sparse(30, 6, 0.3), activation=TopK(2))
    term(first)
    later = step(sparse(30, 6, 0.3, 1), activation=TopK(2), memory=first.memory, seed=1)
    kept = first.memory["inactive"].clone()
    assert term(later).metrics["budget"] == first.memory["capacity"]
    assert torch.equal(later.memory["inactive"], kept)
    for _ in range(2):
        term(later)
    assert not torch.equal(later.memory["inactive"], kept)


def test_above_the_budget_open_gates_close_and_below_it_they_open():
    codes = torch.full((20, 1), 0.05).double()
    codes[5:] = -0.05
    for capacity, sign in ((1e-3, 1), (10.0, -1)):
        now = step(codes)
        out = replace(EXACT, capacity=capacity)(now)
        (grad,) = torch.autograd.grad(out.loss, now.dictionary.b_enc)
        assert grad.item() * sign > 0
