"""bfloat16 products propose the pairs of sparse codes, exact values choose among them; dense codes are of rounded
factors."""

from functools import cache

import pytest
import torch
from torch import Tensor

from tests.exact import normal
from unbraid.dictionary import weights
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.codes import DenseCodes, SparseCodes
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoder import encoded
from unbraid.dictionary.products import decoded, product
from unbraid.experiment.experiment import Experiment, Training
from unbraid.objective.objective import Objective
from unbraid.objective.step_data import ExtraInputs
from unbraid.sources.stream import Stream
from unbraid.sources.world.world import World
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.training.learner import Learner

ROWS, D_IN, D_SAE, K = 512, 64, 1024, 16
WORLD = World(factors=256, d_in=D_IN, l0=8.0, roots=32, block_rows=ROWS)
KINDS = [TopK(K), BatchTopK(K), ReLU(), JumpReLU(bandwidth=0.0), JumpReLU(bandwidth=0.2)]


@pytest.fixture(autouse=True)
def rounded_at_any_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many latents are active in these small dictionaries that they would propose none."""
    monkeypatch.setattr(weights, "PROPOSED_UP_TO", 1.0)


def at_random(activation: Activation) -> tuple[Dictionary, Tensor]:
    """Random readers, some ten times as long as others, with biases; rows of different sizes."""
    made = Dictionary(D_IN, D_SAE, activation)
    length = torch.linspace(0.1, 1, D_SAE)
    with torch.no_grad():
        made.W_enc.copy_(normal(D_IN, D_SAE, seed=0) * length / D_IN**0.5)
        made.W_dec.copy_(normal(D_SAE, D_IN, seed=1))
        made.b_enc.copy_(normal(D_SAE, seed=2) / 4)
    made.renormalise()
    return made, (normal(ROWS, D_IN, seed=3) * torch.linspace(0.5, 2, ROWS).unsqueeze(1)).float()


@cache
def trained() -> tuple[Dictionary, Tensor]:
    experiment = Experiment(
        name="trained", source=WORLD, objective=Objective(reconstruction=Reconstruction()),
        dictionary=DictionaryConfig(d_sae=D_SAE, activation=TopK(K)),
        training=Training(tokens=120 * ROWS, batch_size=ROWS),
    )  # fmt: skip
    stream = Stream(WORLD, ROWS, seed=0)
    learner = Learner(experiment, next(stream).x)
    for index in range(120):
        learner.step(next(stream), index, ExtraInputs(WORLD, 0, index))
    return learner.dictionary, learner.normaliser(next(stream).x)


def with_activation(of: Dictionary, activation: Activation, x: Tensor) -> Dictionary:
    """The same weights; ReLU and JumpReLU with about as many active latents a row."""
    made = Dictionary(D_IN, D_SAE, activation)
    made.load_state_dict(of.state_dict())
    if isinstance(activation, ReLU | JumpReLU):
        with torch.no_grad():
            level = made.pre_activations(x).view(-1).kthvalue(ROWS * (D_SAE - K)).values
            made.b_enc.sub_(level) if isinstance(activation, ReLU) else made.threshold.fill_(float(level))
    return made


def pairs(z: SparseCodes) -> Tensor:
    return z.support.rows * D_SAE + z.support.latents


@pytest.mark.parametrize("activation", KINDS, ids=str)
@pytest.mark.parametrize("kind", ["random", "trained"])
def test_rounded_products_find_the_exact_support(activation: Activation, kind: str) -> None:
    of, x = at_random(activation) if kind == "random" else trained()
    made = with_activation(of, activation, x)
    exact = made.codes(x, "sparse")
    made.low_precision = True
    found = made.codes(x, "sparse")
    assert isinstance(exact, SparseCodes) and isinstance(found, SparseCodes)
    assert len(pairs(exact)) > ROWS * K / 2
    assert float(torch.isin(pairs(exact), pairs(found)).double().mean()) >= 0.999
    assert float(torch.isin(pairs(found), pairs(exact)).double().mean()) >= 0.999
    error, rounded = ((made.decode(z) - x).square().sum() for z in (exact, found))
    assert float(rounded.detach()) == pytest.approx(float(error.detach()), rel=1e-3)


def test_bfloat16_values_alone_would_choose_otherwise() -> None:
    made, x = at_random(TopK(K))
    products = (x - made.b_dec).bfloat16() @ made.W_enc.bfloat16() + made.b_enc.bfloat16()
    wanted, found = (pre.topk(K, dim=1).indices.sort(dim=1).values for pre in (made.pre_activations(x), products))
    assert float((wanted == found).all(1).double().mean()) < 0.9


def test_chunks_may_have_fewer_rows_than_the_error_is_measured_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = at_random(ReLU())
    made.low_precision = True
    whole = made.codes(x, "sparse")
    monkeypatch.setitem(weights.CHUNK_ENTRIES, "cpu", 3 * D_SAE)
    found = made.codes(x, "sparse")
    assert isinstance(whole, SparseCodes) and isinstance(found, SparseCodes)
    assert torch.equal(pairs(found), pairs(whole))


def test_a_product_rounds_factors_alone_where_the_processor_multiplies_so_and_else_nothing() -> None:
    left, right = normal(ROWS, D_IN, seed=0).float(), normal(D_IN, D_SAE, seed=1).float()
    found = product(left, right, bfloat16=True)
    assert found.dtype == torch.float32
    ways = [left.double() @ right.double(), left.bfloat16().double() @ right.bfloat16().double()]
    assert min(float((found - way).abs().max()) for way in ways) < 1e-4 < float((ways[0] - ways[1]).abs().max())
    torch.testing.assert_close(left @ right, ways[0].float())  # other products are as before


def dense_gradients(made: Dictionary, x: Tensor) -> dict[str, Tensor]:
    made.zero_grad()
    z = made.codes(x, "dense")
    nested = z.decode_nested(made.W_dec, (D_SAE // 4, D_SAE))
    (made.decode(z) - x).square().sum().add((nested - x.unsqueeze(1)).square().sum()).add(z.values.sum()).backward()
    return {name: p.grad.double() for name, p in made.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("activation", [ReLU(), JumpReLU(bandwidth=0.2), TopK(D_SAE // 4)], ids=str)
def test_dense_gradients_are_float64s_within_rounding(activation: Activation) -> None:
    of, x = at_random(activation)
    made = with_activation(of, activation, x)
    made.low_precision = True
    found = dense_gradients(made, x)
    exact = dense_gradients(made.double(), x.double())
    assert found.keys() == exact.keys() >= {"W_enc", "b_enc", "W_dec", "b_dec"}
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):  # thresholds': of the few pairs in a window
        grad = exact[name]
        # Most of it is of pairs that are active in one of them alone, as their values are within rounding of 0.
        assert float((found[name] - grad).norm() / grad.norm()) < 0.05, name


def test_gradients_of_products_are_float64s_but_for_the_rounding_of_factors() -> None:
    shapes = [(ROWS, D_IN), (D_IN,), (D_IN, D_SAE), (D_SAE,), (D_SAE, D_IN)]
    inputs = [normal(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]
    weight = normal(ROWS, D_IN, seed=9)

    def outcome(x: Tensor, b_dec: Tensor, W_enc: Tensor, b_enc: Tensor, atoms: Tensor) -> tuple[Tensor, ...]:
        z = encoded(x, b_dec, W_enc, b_enc, bfloat16=True)
        out = decoded(z, atoms, bfloat16=True)
        return z, out, *torch.autograd.grad((out * weight.to(out)).sum(), [x, b_dec, W_enc, b_enc, atoms])

    low, exact = outcome(*(tensor.detach().float().requires_grad_() for tensor in inputs)), outcome(*inputs)
    for ours, wanted in zip(low, exact, strict=True):
        # A factor is rounded by at most 2^-9 of itself.
        assert float(((ours - wanted).norm() / wanted.norm()).detach()) < 2**-7


def test_whole_matrices_pay_sooner_in_bfloat16_where_rows_are_wide() -> None:
    for d_in, low, kind in [(256, True, DenseCodes), (256, False, SparseCodes), (64, True, SparseCodes)]:
        made = Dictionary(d_in, 512, TopK(51), bfloat16=low)
        assert isinstance(made.codes(normal(8, d_in, seed=0).float()), kind), (d_in, low)


def test_where_more_latents_are_active_than_pay_nothing_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PROPOSED_UP_TO", 1.5 * K / D_SAE)
    for activation in (TopK, BatchTopK):
        for k, rounded in ((K, True), (2 * K, False)):
            made, x = at_random(activation(k))
            exact = made.codes(x, "sparse").pre
            made.low_precision = True
            # Values of proposed pairs are computed pair by pair, which rounds otherwise than a product.
            assert torch.equal(made.codes(x, "sparse").pre, exact) != rounded


@pytest.mark.parametrize("activation", [ReLU(), JumpReLU(bandwidth=0.2)], ids=str)
def test_thresholds_round_by_the_share_of_the_first_rows(
    activation: Activation, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, x = at_random(activation)
    made = with_activation(of, activation, x)
    exact = made.codes(x, "sparse").pre
    made.low_precision = True
    for limit, rounded in ((1.0, True), (-1.0, False)):  # the first rows are small, none of theirs may be active
        monkeypatch.setattr(weights, "PROPOSED_UP_TO", limit)
        found = made.codes(x, "sparse").pre
        assert (len(found) == len(exact) and torch.equal(found, exact)) != rounded
