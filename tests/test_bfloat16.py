"""bfloat16 products propose the pairs of sparse codes; exact values choose among them."""

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
from unbraid.dictionary.codes import SparseCodes
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
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


def test_dense_codes_are_exact() -> None:
    made, x = at_random(ReLU())
    exact = made.codes(x, "dense").dense()
    made.low_precision = True
    assert torch.equal(made.codes(x, "dense").dense(), exact)
