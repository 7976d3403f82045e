"""FactorVAE's block: its inputs by hand, what it says of copies and of independent latents, and when it refuses."""

import math

import pytest
import torch
from tests.coded import sparse, step
from torch import Tensor

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.topk import TopK
from unbraid.terms.independence.factor_vae import NAME, FactorVae, block_inputs, shuffled
from unbraid.terms.statistics.discriminator import logits


def test_inputs_worked_out_by_hand():
    now = step(torch.tensor([[3.0, 0.0, 7.0]]).double())
    inputs = block_inputs(now, torch.tensor([1, 0]), torch.tensor([1.0, 1.5, 1.0]).double() * 3, 10)
    assert inputs.flatten().tolist() == pytest.approx([0, 1, 0, math.log(2)])


def test_the_value_is_the_mean_logit_of_codes_before_it_learns():
    codes = sparse(64, 5, 0.5)
    memory: dict[str, Tensor] = {}
    term = FactorVae(rows=64)
    term(step(codes, memory=memory))
    state = {name.removeprefix(NAME): value.clone() for name, value in memory.items() if name.startswith(NAME)}
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))[:32]
    now = step(codes, memory=memory, seed=1)
    found = term(now).loss.item()
    rates, squares = (codes > 0).double().mean(0), codes.square().mean(0)
    values = codes[order][:, memory["block"]] / (squares / rates).sqrt()[memory["block"]]
    wanted = logits(state, torch.cat([(values > 0).double(), torch.log1p(values)], 1)).mean()
    assert found == pytest.approx(wanted.item())
    assert int(memory["discriminator.steps"]) == 2


def after(codes_of, applications: int = 150) -> tuple[float, float]:
    """Mean value and accuracy over the last 20 of them."""
    memory: dict[str, Tensor] = {}
    term = FactorVae(lr=3e-3)
    outs = [term(step(codes_of(seed), memory=memory, seed=seed)) for seed in range(applications)]
    value = torch.stack([out.loss.detach() for out in outs[-20:]]).mean()
    return value.item(), torch.stack([out.metrics["accuracy"] for out in outs[-20:]]).mean().item()


@pytest.mark.slow
def test_it_finds_copies_dependent_and_independent_latents_not():
    value, accuracy = after(lambda seed: sparse(256, 4, 0.5, seed).repeat(1, 2))
    assert value > 0.3 and accuracy > 0.7
    value, accuracy = after(lambda seed: sparse(256, 8, 0.5, seed))
    assert abs(value) < 0.1 and accuracy == pytest.approx(0.5, abs=0.05)


def test_mixed_rows_keep_each_latents_values_and_its_gate_with_them():
    inputs = torch.cat([(sparse(50, 6, 0.4) > 0).double(), sparse(50, 6, 0.4)], 1)
    mixed = shuffled(inputs, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed.sort(0).values, inputs.sort(0).values)
    assert torch.equal(mixed[:, :6], (mixed[:, 6:] > 0).double()) and not torch.equal(mixed, inputs)


def test_the_block_is_the_latents_that_fire_most_and_stays():
    codes = torch.cat([sparse(200, 2, 0.1), sparse(200, 2, 0.6)], 1)
    memory: dict[str, Tensor] = {}
    FactorVae(block=2)(step(codes, memory=memory))
    FactorVae(block=2)(step(codes.flip(1), memory=memory))
    assert sorted(memory["block"].tolist()) == [2, 3]


def test_top_k_is_refused_and_batch_top_k_is_not():
    codes = sparse(40, 8, 0.5)
    with pytest.raises(ValueError, match="BatchTopK or JumpReLU"):
        FactorVae()(step(codes, activation=TopK(2)))
    assert FactorVae()(step(codes, activation=BatchTopK(2))).loss.isfinite()


def test_a_discriminator_that_stays_certain_stops_training():
    term, memory = FactorVae(patience=3), {}
    for accuracy in (0.99, 0.99, 0.9, 0.99, 0.99):
        term._stop_when_certain(memory, accuracy)
    with pytest.raises(ValueError, match="3 times running"):
        term._stop_when_certain(memory, 0.96)


def test_a_state_that_starts_elsewhere_in_memory_gives_the_same_bits():
    """As one read from a file does."""
    codes, memory = sparse(300, 40, 0.3), {}
    FactorVae()(step(codes, memory=memory))
    moved = {}
    for name, value in memory.items():
        shifted = torch.zeros(value.numel() + 1, dtype=value.dtype)[1:].view(value.shape)
        moved[name] = shifted.copy_(value)
    losses = [FactorVae()(step(codes, memory=m, seed=1)).loss for m in (memory, moved)]
    assert torch.equal(*losses) and all(torch.equal(memory[name], moved[name]) for name in memory)
