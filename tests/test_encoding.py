"""What `encode` and `decode` are given: the right answer, or one sentence."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.exact import ACTIVATIONS, BATCH, D_IN, D_SAE, batch, dictionary
from tests.small import experiment
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.codes import DenseCodes
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.training.loop import train

every_path = pytest.mark.parametrize("path", ["auto", "sparse", "dense"])
every_activation = pytest.mark.parametrize("activation", [*ACTIVATIONS, MatchingPursuit(4)], ids=str)


def single(activation: Any) -> Dictionary:
    """In float32, as runs are."""
    return dictionary(activation).float()


GIVEN = {
    "int64": lambda x: x.long(), "int8": lambda x: x.to(torch.int8), "bool": lambda x: x > 0,
    "float64": lambda x: x.double(), "float16": lambda x: x.half(), "bfloat16": lambda x: x.bfloat16(),
    "array": lambda x: x.numpy(), "array of float64": lambda x: x.double().numpy(),
    "array of integers": lambda x: x.long().numpy(), "array of the other byte order": lambda x: x.numpy().astype(">f4"),
    "array upside down": lambda x: x.numpy()[::-1], "locked array": lambda x: locked(x.numpy()),
    "transposed": lambda x: x.T.contiguous().T, "with gradient": lambda x: x.clone().requires_grad_(),
}  # fmt: skip


def locked(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.setflags(write=False)
    return array


@every_path
@every_activation
@pytest.mark.parametrize("kind", GIVEN)
def test_fault_05_every_kind_of_number_gives_the_codes_of_its_float32(kind: str, activation: Any, path: Any):
    made, given = single(activation), GIVEN[kind](3 * batch().float())
    plain = torch.as_tensor(given.astype(np.float32) if isinstance(given, np.ndarray) else given.detach().float())
    codes = made.codes(given, path)
    assert torch.equal(codes.dense(), made.codes(plain, path).dense())
    assert codes.dense().dtype == torch.float32 and float(codes.l0()) > 0


def test_fault_05_integers_do_not_cut_the_weights():
    made, x = single(ReLU()), torch.arange(2 * D_IN).view(2, D_IN) % 5
    torch.testing.assert_close(made(x), made(x.float()))
    assert float(made.codes(x).l0()) == float(made.codes(x.float()).l0()) > 0


@every_path
@every_activation
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e300])
def test_fault_05_rows_that_are_not_finite_are_refused(bad: float, activation: Any, path: Any):
    x = batch()
    x[4, 2] = bad
    with pytest.raises(ValueError, match=rf"1 of {BATCH} activations hold NaN or infinity .*given to encode"):
        single(activation).codes(x, path)
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        single(activation)(x)


@every_path
@every_activation
def test_fault_05_no_rows_have_no_codes(activation: Any, path: Any):
    made = single(activation)
    codes = made.codes(torch.zeros(0, D_IN), path)
    assert codes.dense().shape == (0, D_SAE) and made.decode(codes).shape == (0, D_IN)
    assert [len(part) for part in codes.entries()] == [0, 0, 0] and codes.firings().sum() == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (torch.zeros(D_IN), r"\[batch, 7\], got \[7\]; give x\[None\]"),
        (torch.zeros(2, 3, D_IN), r"got \[2, 3, 7\]; give x\.flatten\(0, -2\)"),
        (torch.zeros(3, D_IN + 1), r"got \[3, 8\]$"),
        (torch.tensor(1.0), r"\[batch, 7\], got \[\]$"),
        (np.zeros((3, 2)), r"got \[3, 2\]$"),
        ([[0.0] * D_IN], "as a tensor or NumPy array, got a list"),
        (None, "got a NoneType"),
        (np.array([["a"] * D_IN]), "of real numbers, got an array of <U1"),
        (np.zeros((2, D_IN), dtype=complex), "real numbers, got an array of complex128"),
        (torch.zeros(2, D_IN, dtype=torch.cfloat), "real numbers, got torch.complex64"),
        (torch.zeros(2, D_IN).to_sparse(), "dense tensor"),
        (torch.zeros(2, D_IN, device="meta"), "activations are on meta, the dictionary on cpu"),
    ],
    ids=str,
)
def test_fault_05_what_is_no_rows_of_activations_is_refused(given: Any, says: str):
    with pytest.raises(ValueError, match=says):
        single(TopK(4)).codes(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (torch.zeros(3, D_IN + 1), r"expected activations \[\.\.\., 7\], got \[3, 8\]$"),
        (torch.tensor(1.0), r"got \[\]$"),
        ("text", "as a tensor or NumPy array, got a str"),
        (torch.full((2, 3, D_IN), torch.nan), "6 of 6 activations hold NaN or infinity .*given to encode"),
        (torch.zeros(2, D_IN, device="meta"), "activations are on meta, the dictionary on cpu"),
    ],
    ids=str,
)
def test_what_cannot_be_encoded_is_refused(given: Any, says: str):
    for use in (single(TopK(4)).encode, single(TopK(4))):
        with pytest.raises(ValueError, match=says):
            use(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (torch.zeros(3, 9), r"expected latents \[\.\.\., 24\], got \[3, 9\]$"),
        (torch.zeros(24, device="meta"), "latents are on meta, the dictionary on cpu"),
        (np.full((1, 24), np.nan), "NaN or infinity .*given to decode"),
        ("text", "expected latents as a tensor or NumPy array, got a str"),
    ],
    ids=str,
)
def test_what_cannot_be_decoded_is_refused(given: Any, says: str):
    with pytest.raises(ValueError, match=says):
        single(TopK(4)).decode(given)


@every_activation
def test_latents_keep_the_leading_dimensions_of_tensors_and_arrays(activation: Any):
    made, x = single(activation), batch().float()
    z = made.encode(x)
    assert torch.equal(z, made.codes(x).dense()) and z.shape == (BATCH, D_SAE)
    cube = x.view(3, 7, D_IN)
    for given in (cube, cube.numpy()):
        assert torch.equal(made.encode(given), made.codes(cube.flatten(0, 1)).dense().view(3, 7, D_SAE))
    torch.testing.assert_close(made.decode(z), made.decode(made.codes(x)))
    torch.testing.assert_close(made.decode(made.encode(cube).detach().numpy()), made(cube))


def test_a_lone_vector_is_encoded_and_decoded():
    made, x = single(ReLU()), batch().float()
    z = made.encode(x[5])
    assert z.shape == (D_SAE,)
    torch.testing.assert_close(z, made.encode(x)[5])
    torch.testing.assert_close(made.decode(z), made(x[5]))


def test_a_dictionary_says_what_it_is():
    assert repr(single(TopK(4))) == "Dictionary(d_in=7, d_sae=24, TopK(k=4, first_k=1.0, anneal=0.8), float32 on cpu)"
    used = single(BatchTopK(4)).for_inference(batch().float())
    assert repr(used) == "Dictionary(d_in=7, d_sae=24, BatchTopK -> JumpReLU, float32 on cpu)"


def test_reconstructions_have_the_shape_of_what_was_given():
    made, x = single(TopK(4)), batch().float()
    torch.testing.assert_close(made(x.view(3, 7, D_IN)), made(x).view(3, 7, D_IN))
    torch.testing.assert_close(made(x[5]), made(x)[5])
    assert made(x[:0].view(0, 4, D_IN)).shape == (0, 4, D_IN)


def test_fault_05_codes_of_another_dictionary_are_refused():
    made, x = single(TopK(4)), batch().float()
    with pytest.raises(ValueError, match="these codes are of 9 latents, the dictionary has 24"):
        made.decode(DenseCodes(torch.zeros(2, 9), torch.zeros(2, 9)))
    with pytest.raises(ValueError, match=r"these codes are torch\.float32 on cpu, the dictionary is torch\.float64"):
        dictionary(TopK(4)).decode(made.codes(x))


@every_activation
def test_gradients_reach_what_is_encoded(activation: Any):
    made, x = single(activation), batch().float().requires_grad_()
    made(x).square().sum().backward()
    assert x.grad is not None and (x.grad != 0).any()


def test_training_does_not_check_rows_twice(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A check of every row waits for the device at every step; the source's rows are known to be finite."""
    monkeypatch.setattr(Normaliser, "check", lambda *args: None)  # which is after training, and may
    monkeypatch.setattr(Dictionary, "encode", lambda *args: pytest.fail("training takes the unchecked path"))
    plain = experiment(tokens=800)
    train([replace(plain, training=replace(plain.training, resample_every=400))], tmp_path)
