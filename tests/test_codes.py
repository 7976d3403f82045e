"""The sparse path is tested against the dense one, in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.exact import ACTIVATIONS, BATCH, D_IN, D_SAE, batch, dictionary, normal
from unbraid.dictionary import row_blocks, weights
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.codes import Codes, DenseCodes, SparseCodes, SparseSupport, find_sorted
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoder import encoded, encoded_pairs
from unbraid.dictionary.weights import Path

WIDTHS = (1, 9, 10, D_SAE)


@pytest.fixture(autouse=True)
def chunks_of_five_rows(monkeypatch):
    """Several chunks and blocks a batch, the last one smaller."""
    monkeypatch.setitem(weights.CHUNK_ENTRIES, "cpu", 5 * D_SAE)
    monkeypatch.setitem(row_blocks.ENTRIES, "cpu", 5 * D_SAE)


def both(activation: Any, x: Tensor, **kwargs: Any) -> tuple[Codes, Codes, Dictionary]:
    made = dictionary(activation, **kwargs)
    sparse, dense = made.codes(x, "sparse"), made.codes(x, "dense")
    assert isinstance(sparse, SparseCodes) and isinstance(dense, DenseCodes)
    return sparse, dense, made


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_sparse_codes_equal_dense_codes(activation):
    sparse, dense, made = both(activation, batch())
    torch.testing.assert_close(sparse.dense(), dense.dense())
    torch.testing.assert_close(sparse.decode(made.W_dec), dense.decode(made.W_dec))
    torch.testing.assert_close(sparse.decode_nested(made.W_dec, WIDTHS), dense.decode_nested(made.W_dec, WIDTHS))
    assert torch.equal(sparse.firings(), dense.firings())
    assert sparse.l0() == dense.l0() > 0
    assert (sparse.firings()[[3, 17]] == 0).all()
    for ours, theirs in zip(sparse.entries(), dense.entries(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_a_prefix_decodes_as_the_first_atoms_alone(activation):
    sparse, dense, made = both(activation, batch())
    nested = sparse.decode_nested(made.W_dec, WIDTHS)
    for level, width in enumerate(WIDTHS):
        torch.testing.assert_close(nested[:, level], dense.dense()[:, :width] @ made.W_dec[:width])


def gradients(made: Dictionary, path: Path, x: Tensor) -> dict[str, Tensor]:
    """Of a loss that reads everything differentiable in a code, by parameter, and for x."""
    x = x.clone().requires_grad_()
    made.zero_grad()
    z = made.codes(x, path)
    nested = z.decode_nested(made.W_dec, WIDTHS)
    per_entry = z.values * z.per_entry(made.W_dec.square().cumsum(1)[:, 3]) + z.values.pow(3)
    loss = (made.decode(z) - x).square().sum() + (nested * normal(*nested.shape, seed=9)).sum() + per_entry.sum()
    loss.backward()
    grads = {name: p.grad for name, p in made.named_parameters() if p.requires_grad} | {"x": x.grad}
    return {name: grad for name, grad in grads.items() if grad is not None}


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("seed", [0, 10])
def test_sparse_gradients_equal_dense_gradients(activation, seed):
    made, x = dictionary(activation, seed=seed), batch(seed=seed)
    sparse, dense = gradients(made, "sparse", x), gradients(made, "dense", x)
    assert sparse.keys() == dense.keys() and {"x", "W_enc", "b_enc", "W_dec", "b_dec"} <= sparse.keys()
    for name, grad in dense.items():
        assert grad.abs().sum() > 0, name
        torch.testing.assert_close(sparse[name], grad, msg=lambda text, name=name: f"{name}: {text}")
    assert ("threshold" in sparse) == activation.learns_threshold


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_rows_without_an_active_latent_decode_to_zero(activation):
    x = batch()
    sparse, dense, made = both(activation, x, shift=-4.0)
    empty = (dense.dense() == 0).all(1)
    assert 0 < int(empty.sum()) < BATCH
    assert (sparse.decode(made.W_dec)[empty] == 0).all()
    torch.testing.assert_close(sparse.dense(), dense.dense())
    grads = gradients(made, "sparse", x), gradients(made, "dense", x)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("shift", [-1.0, -50.0])
def test_an_all_zero_batch_is_no_special_case(activation, shift):
    made, x = dictionary(activation, shift=shift), torch.zeros(BATCH, D_IN, dtype=torch.float64)
    torch.testing.assert_close(made.codes(x, "sparse").dense(), made.codes(x, "dense").dense())
    torch.testing.assert_close(gradients(made, "sparse", x), gradients(made, "dense", x))


def random_support(*, seed: int = 0) -> SparseSupport:
    """About a fifth of all pairs, an empty first, last and middle row, latent 2 in no row."""
    mask = normal(6, 5, seed=seed) > 0.0
    mask[[0, 3, 5]] = False
    mask[:, 2] = False
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), mask.sum(1).cumsum(0)])
    return SparseSupport(mask.nonzero()[:, 1], offsets, d_sae=5)


def test_summing_atoms_passes_gradcheck():
    support = random_support()
    values = normal(support.latents.numel(), seed=1).requires_grad_()
    atoms = normal(5, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, a: SparseCodes(v, v, support).decode(a), (values, atoms))
    nested = lambda v, a: SparseCodes(v, v, support).decode_nested(a, (2, 4, 5))
    assert torch.autograd.gradcheck(nested, (values, atoms))


def test_encoding_pairs_passes_gradcheck():
    support = random_support()

    def at_support(x: Tensor, b_dec: Tensor, W_enc: Tensor, b_enc: Tensor) -> Tensor:
        pre = (torch.addmm(b_enc, x - b_dec, W_enc)).detach()[support.rows, support.latents]
        return encoded_pairs(x, b_dec, W_enc, b_enc, pre, support)

    inputs = [normal(*shape, seed=n) for n, shape in enumerate([(6, 3), (3,), (3, 5), (5,)])]
    assert torch.autograd.gradcheck(at_support, [tensor.requires_grad_() for tensor in inputs])


def test_encoding_all_pairs_passes_gradcheck():
    inputs = [normal(*shape, seed=n) for n, shape in enumerate([(6, 3), (3,), (3, 5), (5,)])]
    assert torch.autograd.gradcheck(encoded, [tensor.requires_grad_() for tensor in inputs])


def stored_elements(tensor: Tensor) -> int:
    return tensor.numel() if tensor.layout == torch.strided else tensor._nnz()


class LargestOutput(TorchDispatchMode):
    """Stored elements of the largest tensor any operation returns."""

    def __init__(self):
        super().__init__()
        self.largest, self.by = 0, ""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor) and (stored := stored_elements(tensor)) > self.largest:
                self.largest, self.by = stored, str(func)
        return out


@pytest.mark.parametrize("activation", [ReLU(), TopK(16), BatchTopK(16), JumpReLU()], ids=str)
def test_no_tensor_of_a_sparse_step_is_larger_than_a_chunk_or_a_weight(activation, monkeypatch):
    d_in, d_sae, rows, chunk = 8, 512, 64, 8
    monkeypatch.setitem(weights.CHUNK_ENTRIES, "cpu", chunk * d_sae)
    made = Dictionary(d_in, d_sae, activation)
    with torch.no_grad():
        made.W_enc.copy_(normal(d_in, d_sae, seed=0))
        made.W_dec.copy_(normal(d_sae, d_in, seed=1))
        made.b_enc.fill_(-5.5)  # about 3 % of latents above zero
    x = normal(rows, d_in, seed=2).float()
    with LargestOutput() as seen:
        z = made.codes(x)
        loss = (z.decode_nested(made.W_dec, (128, d_sae)) + made.decode(z).unsqueeze(1)).square().sum()
        loss.backward()
    assert isinstance(z, SparseCodes)
    # Neither batch x d_sae (32,768 elements) nor active pairs x d_in (about 8,000) is ever formed.
    assert z.support.latents.numel() * d_in > chunk * d_sae
    assert seen.largest <= max(chunk * d_sae, d_in * d_sae), seen.by


def test_keys_are_found_where_they_are_and_said_to_be_missing_where_not():
    keys, wanted = torch.tensor([2, 3, 7]), torch.tensor([[7, 1, 9], [3, 2, 5]])
    place, there = find_sorted(keys, wanted)
    assert there.tolist() == [[True, False, False], [True, True, False]]
    assert torch.equal(keys[place][there], wanted[there])
    assert find_sorted(keys[:0], wanted)[1].sum() == 0 and find_sorted(keys, wanted[:0])[0].shape == (0, 3)
