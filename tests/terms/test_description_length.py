"""Description length as a loss: bits by hand, near the entropy of known latents, and whom its gradient pushes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.stats import norm
from tests.coded import step
from torch import Tensor

from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.metrics.description_length import description_length, rounded
from unbraid.terms.sparsity.description_length import DescriptionLength, Prior, entry_of, gate_bits, value_bits

ROWS, LATENTS = 20_000, 40


def known(slab: str, seed: int = 0) -> Tensor:
    """Independent latents of many rates and magnitudes."""
    rng = np.random.default_rng(seed)
    rate, size = rng.random(LATENTS) * 0.2 + 0.01, rng.random(LATENTS) * 4 + 1
    normal = rng.standard_normal((ROWS, LATENTS))
    values = {
        "normal": (size + (rng.random(LATENTS) * 0.8 + 0.2) * normal).clip(0.05),
        "lognormal": size * np.exp(0.25 * normal),
        "gamma": size / 2 * rng.gamma(4, 0.5, (ROWS, LATENTS)),
    }
    return torch.from_numpy(values[slab] * (rng.random((ROWS, LATENTS)) < rate))


def followed(term: DescriptionLength, codes: Tensor, batch: int = 1000) -> float:
    """The mean rate over all rows, once the prior has seen them."""
    memory: dict[str, Tensor] = {}
    parts = codes.split(batch)
    run = lambda: [term(step(part, seed=i, memory=memory, progress=0.1)).loss.item() for i, part in enumerate(parts)]
    run()
    return float(np.mean(run()))


def entropy(codes: Tensor, size: float, code: str = "factorised") -> float:
    """Bits of plain rounding, an active latent never to zero."""
    whole = (codes / size).round().clamp_min(1) * (codes > 0) * size
    return description_length(rounded(csr_array(whole.numpy()), size), 1).total(code)  # pyright: ignore


@pytest.mark.parametrize("slab", ["normal", "lognormal", "gamma"])
@pytest.mark.parametrize("size", [1.0, 0.5, 0.25])
def test_the_relaxed_rate_is_within_two_percent_of_the_entropy_of_known_latents(slab: str, size: float):
    codes = known(slab)
    assert followed(DescriptionLength(step=size), codes) == pytest.approx(entropy(codes, size), rel=0.02)


def test_a_value_worked_out_by_hand():
    """One latent, open in half the rows at 4: a bit for the gate, and its share of what has seen 4 alone."""
    out = DescriptionLength(step=1.0)(now := step(torch.tensor([[4.0], [0.0]]).double(), seed=3))
    noise = torch.rand(1, generator=torch.Generator().manual_seed(3), dtype=torch.float64).item() - 0.5
    mean, value = math.log(4 + noise), 4 + noise
    mass = norm.cdf((math.log(value + 0.5) - mean) / 0.05) - norm.cdf((math.log(value - 0.5) - mean) / 0.05)
    assert out.metrics["gate_bits"].item() == pytest.approx(1)
    assert out.metrics["value_bits"].item() == pytest.approx(-math.log2(mass) / 2)
    assert out.loss.item() == pytest.approx(1 - math.log2(mass) / 2) and now.memory["rate"].item() == 0.5


@pytest.mark.parametrize(("mean", "deviation", "size"), [(0.0, 0.5, 0.5), (1.0, 0.2, 1.0), (-1.0, 1.0, 0.25)])
def test_probabilities_of_whole_levels_sum_to_one(mean: float, deviation: float, size: float):
    levels = torch.arange(1, 20_000, dtype=torch.float64) * size
    bits = value_bits(levels, torch.full_like(levels, mean), torch.full_like(levels, deviation), size)
    assert torch.exp2(-bits).sum().item() == pytest.approx(1, abs=1e-6)


def test_bits_near_half_a_step_and_far_out_in_the_tails_are_positive_and_finite():
    for dtype in (torch.float32, torch.float64):
        values = torch.tensor([0.5, 0.51, 1.0, 1e3, 1e6], dtype=dtype, requires_grad=True)
        bits = value_bits(values, torch.zeros_like(values), torch.full_like(values, 0.05), 1.0)
        (grad,) = torch.autograd.grad(bits.sum(), values)
        assert (bits > 0).all() and bits.isfinite().all() and grad.isfinite().all()


def test_gate_bits_are_the_logarithm_of_the_probability_of_all_gates():
    rng = torch.Generator().manual_seed(0)
    width, batch = 6, 50
    parent = torch.tensor([-1, 0, 0, 1, -1, 4])
    on, off = (torch.rand(width, generator=rng).double() * 0.8 + 0.1 for _ in range(2))
    on = torch.where(parent >= 0, on, off)
    gates = torch.rand(batch, width, generator=rng) < 0.4
    rows, latents = gates.nonzero(as_tuple=True)
    prior = Prior(on, off, on, on)
    found = gate_bits(
        torch.ones(len(rows)).double(), latents, entry_of(rows, latents, parent, width), parent, prior, batch
    )
    beside = torch.where(parent >= 0, gates[:, parent.clamp_min(0)], False)
    p = torch.where(beside, on, off)
    direct = -torch.where(gates, p, 1 - p).log2().sum() / batch
    assert found.item() == pytest.approx(direct.item())


def nested(absorbed: bool = False) -> Tensor:
    """Parents 0 to 9, each with a child that fires in 0.4 of its rows; and silent there itself, when absorbed."""
    rng = np.random.default_rng(1)
    parents = rng.random((ROWS, 10)) < 0.1
    children = parents & (rng.random((ROWS, 10)) < 0.4)
    gates = np.concatenate([parents & ~children if absorbed else parents, children], 1)
    return torch.from_numpy(gates * np.exp(0.25 * rng.standard_normal(gates.shape)))


def test_down_a_tree_the_rate_is_that_of_the_tree_code():
    codes = nested()
    size = 0.25
    tree, alone = (DescriptionLength(step=size, tree=on, leak=1e-3, rows=1000) for on in (True, False))
    assert followed(tree, codes) == pytest.approx(entropy(codes, size, "tree"), rel=0.02)
    assert followed(alone, codes) == pytest.approx(entropy(codes, size), rel=0.02)
    assert followed(tree, codes) < followed(alone, codes) - 1


def test_a_settled_tree_charges_absorption_that_latent_by_latent_is_rewarded():
    tree, alone = (DescriptionLength(step=0.25, tree=on, leak=1e-3, rows=1000, decay=0.0) for on in (True, False))
    rate = {}
    for term in (tree, alone):
        memory: dict[str, Tensor] = {}
        term(step(nested()[:2000], memory=memory, progress=0.0))
        for absorbed in (False, True):
            rate[term.tree, absorbed] = term(step(nested(absorbed)[2000:], memory=memory, progress=0.9)).loss.item()
    assert rate[False, True] < rate[False, False] - 0.5
    assert rate[True, True] > rate[True, False] + 0.5


def test_parents_follow_until_they_settle():
    term = DescriptionLength(tree=True, apart=1, settled=0.5, step=0.25)
    memory: dict[str, Tensor] = {}
    turned = nested()[:, torch.arange(19, -1, -1)]
    term(step(nested()[:1000], memory=memory, progress=0.0))
    first = memory["parent"].clone()
    term(step(turned[:1000], memory=memory, progress=0.6))
    assert torch.equal(memory["parent"], first) and first[10:].tolist() == list(range(10))
    term(step(turned[:1000], memory=memory, progress=0.4))
    assert memory["parent"].tolist() == [*range(10, 20), *[-1] * 10]


def pushed(codes: Tensor, **settings) -> Tensor:
    """Gradient of the loss for each latent's pre-activation."""
    wanted = codes.clone().requires_grad_()
    term = DescriptionLength(step=1e-3, temperature=1.0, **settings)
    (grad,) = torch.autograd.grad(term(step(wanted)).metrics["gate_bits"], wanted)
    return grad


def test_opening_a_rare_latent_costs_more_than_opening_a_common_one():
    codes = torch.zeros(100, 2).double()
    codes[:40, 0], codes[:2, 1] = 1.0, 1.0
    grad = pushed(codes)
    odds = [math.log2(0.6 / 0.4), math.log2(0.98 / 0.02)]
    slope = 2 * (s := 1 / (1 + math.exp(-1))) * (1 - s) / 100
    assert grad[0].tolist() == pytest.approx([odds[0] * slope, odds[1] * slope]) and grad[50].tolist() == [0, 0]


def test_beside_its_child_a_parent_is_paid_to_stay_open():
    codes = torch.zeros(1000, 2).double()
    codes[:100, 0], codes[:40, 1], codes[200, 1] = 1.0, 1.0, 1.0
    factorised, tree = pushed(codes), pushed(codes, tree=True, rows=1000)
    assert factorised[0, 0] == factorised[60, 0] > 0
    assert tree[0, 0] < 0 < tree[60, 0], "with the child open, and without"
    assert tree[200, 1] > factorised[200, 1] > tree[0, 1], "the child without its parent, and with"


def test_thresholds_are_pushed_up_where_latents_are_pushed_down():
    now = step(torch.tensor([[1.0], [0.0], [0.0]]).double(), activation=JumpReLU(bandwidth=0.0))
    now.dictionary.threshold.data.fill_(0.9)
    now = replace(now, z=now.dictionary.codes(now.x))
    DescriptionLength()(now).loss.backward()
    threshold, bias = now.dictionary.threshold.grad, now.dictionary.b_enc.grad
    assert threshold is not None and bias is not None and threshold.item() < 0 < bias.item()


def test_with_topk_the_gate_opens_at_the_smallest_active_latent():
    codes = torch.tensor([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0]]).double()
    now = step(codes, activation=TopK(2))
    assert DescriptionLength()(now).metrics["gate_bits"].item() == pytest.approx(2.0, abs=1e-3), "two gates at 1/2"


@pytest.mark.parametrize("silent", [False, True])
def test_a_tree_gives_the_same_on_sparse_and_dense_codes_and_survives_silence(silent: bool):
    term, found = DescriptionLength(tree=True, apart=1), []
    for path in ("sparse", "dense"):
        codes = nested()[:500] * (not silent)
        now = step(codes.requires_grad_(), path=path)
        out = term(now)
        grad = torch.autograd.grad(out.loss, codes)[0] if not silent else torch.zeros(())
        found.append((out.loss.detach(), grad, now.memory["parent"]))
        assert out.loss.isfinite() and grad.isfinite().all()
    for sparse, dense in zip(*found, strict=True):
        torch.testing.assert_close(sparse, dense)


def test_moving_a_threshold_is_charged_the_bits_of_the_gates_that_it_shuts():
    """The slope against the difference: uniform pre-activations, one threshold, the rate of its gate moved a little."""
    pre = torch.linspace(0.0, 2.0, 20_001, dtype=torch.float64).unsqueeze(1)

    def bits(threshold: float) -> tuple[Tensor, Tensor]:
        now = step(pre, activation=JumpReLU(bandwidth=0.0))
        now.dictionary.threshold.data.fill_(threshold)
        now = replace(now, z=now.dictionary.codes(now.x), memory={})
        return DescriptionLength(temperature=0.05)(now).metrics["gate_bits"], now.dictionary.threshold

    found, threshold = bits(1.5)
    (slope,) = torch.autograd.grad(found, threshold)
    with torch.no_grad():
        difference = (bits(1.51)[0] - bits(1.49)[0]) / 0.02
    assert slope.item() == pytest.approx(difference.item(), rel=0.02)
