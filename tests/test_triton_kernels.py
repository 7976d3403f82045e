"""Triton's kernels, run by its interpreter, against torch's operations and the dense path in float64."""

import importlib.util
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.exact import ACTIVATIONS, batch, dictionary, normal
from tests.test_codes import WIDTHS, gradients, random_support
from unbraid.dictionary import weights
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.codes import SparseCodes, SparseSupport
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.kernels import Kernels, kernels_named
from unbraid.experiment.experiment import Experiment, Training
from unbraid.objective.objective import Objective
from unbraid.objective.step_data import ExtraInputs
from unbraid.sources.stream import Stream
from unbraid.sources.world.world import World
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.training.checks import check_needs
from unbraid.training.learner import Learner

interpreted = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed here (a gigabyte; pip install triton)"
)


@pytest.fixture
def kernels() -> Kernels:
    made = kernels_named("triton", "cpu")
    assert made is not None
    return made


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    """How often each kernel was asked for."""
    from unbraid.dictionary.triton_kernels import TritonKernels

    counts: Counter[str] = Counter()

    def counting(name: str) -> Any:
        original = getattr(TritonKernels, name)

        def call(self: Kernels, *args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return original(self, *args, **kwargs)

        return call

    for name in ("sums", "products", "largest_in_rows"):
        monkeypatch.setattr(TritonKernels, name, counting(name))
    return counts


@interpreted
@pytest.mark.parametrize(("d_sae", "k"), [(7, 1), (7, 7), (64, 5), (1500, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_of_rows_are_those_of_torch(kernels, d_sae, k, dtype):
    pre = normal(4, d_sae, seed=d_sae).to(dtype)
    values, latents = kernels.largest_in_rows(pre, k)
    assert torch.equal(values.sort(dim=1).values, pre.topk(k, dim=1).values.sort(dim=1).values)
    assert torch.equal(pre.gather(1, latents), values) and bool((latents.diff(dim=1) > 0).all())


@interpreted
def test_of_equal_values_the_first_latents_are_chosen(kernels):
    pre = torch.tensor([[0.0, -1.0, 2.0, 0.0, 0.0, -3.0], [-2.0, -2.0, -2.0, -5.0, -2.0, -2.0]])
    assert kernels.largest_in_rows(pre, 3)[1].tolist() == [[0, 2, 3], [0, 1, 2]]


@interpreted
def test_values_of_every_size_and_sign_are_in_order(kernels):
    pre = torch.tensor([[1e-38, -1e38, 3e38, 0.0, -1e-40, 1e-40, -2.0, 2.0]])
    for k in range(1, 9):
        assert torch.equal(kernels.largest_in_rows(pre, k)[1], pre.topk(k).indices.sort().values)


@interpreted
def test_the_largest_of_float64_are_refused_as_its_digits_are_not_counted(kernels):
    with pytest.raises(ValueError, match="float32 or less, and these are torch.float64; use --training.kernels torch"):
        kernels.largest_in_rows(normal(2, 8, seed=0), 2)


def pairs_of(kernels: Kernels | None) -> SparseSupport:
    """A support with empty rows, and a latent in no row."""
    support = random_support()
    return SparseSupport(support.latents, support.offsets, support.d_sae, kernels)


@interpreted
def test_sums_and_products_over_pairs_equal_those_of_torch(kernels):
    values, atoms, rows = normal(len(pairs_of(None).latents), seed=1), normal(5, 1030, seed=2), normal(6, 1030, seed=3)

    def both(support: SparseSupport) -> list[Tensor]:
        return [
            SparseCodes(values, values, support).decode(atoms),
            support.sum_by_latent(values, rows, support.rows_by_latent),
            support.products(rows, atoms, support.rows_by_latent),
        ]

    for ours, torchs in zip(both(pairs_of(kernels)), both(pairs_of(None)), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-12)


@interpreted
def test_decoding_passes_gradcheck(kernels):
    support = pairs_of(kernels)
    values = normal(support.latents.numel(), seed=1).requires_grad_()
    atoms = normal(5, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, a: SparseCodes(v, v, support).decode(a), (values, atoms))


@interpreted
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_codes_and_gradients_equal_the_dense_ones_in_float64(kernels, calls, activation, monkeypatch):
    monkeypatch.setitem(weights.CHUNK_ENTRIES, "cpu", 5 * 24)
    made, x = dictionary(activation), batch()
    dense, expected = made.codes(x, "dense"), gradients(made, "dense", x)
    for parameter in made.parameters():
        parameter.grad = None
    # TopK is chosen in float32: what is compared is then rounded.
    rounded = isinstance(activation, TopK)
    if rounded:
        made, x = made.float(), x.float()
    made.kernels = kernels
    sparse = made.codes(x, "sparse")
    tolerance: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4} if rounded else {"rtol": 1e-11, "atol": 1e-11}
    torch.testing.assert_close(sparse.dense().double(), dense.dense(), **tolerance)
    nested, whole = sparse.decode_nested(made.W_dec, WIDTHS), dense.decode_nested(made.W_dec.double(), WIDTHS)
    torch.testing.assert_close(nested.double(), whole, **tolerance)
    for name, found in gradients(made, "sparse", x).items():
        torch.testing.assert_close(found.double(), expected[name].double(), msg=name, **tolerance)
    assert calls["sums"] > 3 and calls["products"] > 1 and bool(calls["largest_in_rows"]) == rounded


def experiment(activation: Any, name: Any) -> Experiment:
    """A small one, in bfloat16 where three latents are kept."""
    world = World(factors=256, d_in=12, l0=8.0, roots=32, block_rows=64)
    low = "bfloat16" if activation == TopK(3) else "float32"
    return Experiment(
        name="kernels", source=world,
        objective=Objective(reconstruction=Reconstruction(), penalties={"aux_k": AuxK()}, ramp=0.0),
        dictionary=DictionaryConfig(d_sae=48, activation=activation),
        training=Training(tokens=64 * 100, batch_size=32, kernels=name, matmul=low, dense_above=1.0),
    )  # fmt: skip


def trained(activation: Any, name: Any, *, steps: int = 2) -> Learner:
    """A learner after a few steps, a third of its latents dead."""
    made = experiment(activation, name)
    stream = Stream(made.source, 32, seed=0)
    learner = Learner(made, next(stream).x)
    learner.dead_latents.since_fired[:16] = 10**9
    for index in range(steps):
        learner.step(next(stream), index, ExtraInputs(made.source, 0, index))
    return learner


@pytest.mark.slow
@interpreted
@pytest.mark.parametrize("activation", [TopK(2), TopK(3), BatchTopK(2), MatchingPursuit(2)], ids=str)
def test_training_by_triton_gives_the_dictionary_of_torch(calls, activation):
    torchs = trained(activation, "torch").dictionary.state_dict()
    assert not calls
    ours = trained(activation, "triton").dictionary.state_dict()
    assert {"sums", "products"} <= calls.keys()
    for name, found in ours.items():
        torch.testing.assert_close(found, torchs[name], rtol=1e-4, atol=1e-5, msg=name)


def test_kernels_of_a_package_that_is_missing_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="training.kernels is triton, and the package triton is not installed; pip"):
        check_needs([experiment(TopK(2), "triton")])


def test_kernels_are_refused_on_a_device_that_cannot_run_them(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="run on cuda, and training.device is cpu; train on cuda, or leave"):
        check_needs([experiment(TopK(2), "triton")])


def test_torchs_operations_need_nothing():
    assert kernels_named("torch", "cpu") is None
