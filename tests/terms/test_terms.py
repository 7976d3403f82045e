"""Each standard term: one number worked out by hand, and zero where theory says zero."""

from dataclasses import replace

import pytest
import torch
from tests.exact import batch, dictionary
from torch import Tensor

from unbraid.dictionary import row_blocks
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.objective.objective import Step
from unbraid.sources.base import Batch
from unbraid.terms.dead_latents.aux_k import AuxK
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.l0 import L0
from unbraid.terms.sparsity.l1 import L1

X = torch.tensor([[3.0, 0.0], [1.0, 2.0]], dtype=torch.float64)


def no_contexts():
    raise AssertionError("these terms read no contexts")


def step(x: Tensor, dictionary: Dictionary, dead: list[bool] | None = None) -> Step:
    index = torch.arange(len(x))
    return Step(
        x=x, z=dictionary.codes(x), dictionary=dictionary, batch=Batch(x, index, index, index),
        dead=torch.tensor(dead if dead is not None else [False] * dictionary.d_sae), progress=0.5,
        contexts=no_contexts, rng=torch.Generator().manual_seed(0),
    )  # fmt: skip


def axes(activation=None) -> Dictionary:
    """Three latents on the plane: e1, e2 and (e1 + e2) / sqrt(2); each reads its own atom."""
    dictionary = Dictionary(2, 3, activation or ReLU()).double()
    atoms = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5**0.5, 0.5**0.5]], dtype=torch.float64)
    dictionary.W_dec.data.copy_(atoms)
    dictionary.W_enc.data.copy_(atoms.T)
    return dictionary


def value(term, now: Step) -> float:
    return term(now).loss.item()


def test_reconstruction_is_the_squared_error_a_token():
    # Codes (3, 0, 3/sqrt2) and (1, 2, 3/sqrt2): the third latent adds 1.5 to both coordinates of both rows.
    out = Reconstruction()(step(X, axes()))
    assert out.loss.item() == pytest.approx(2 * 1.5**2)
    assert out.metrics["fvu"].item() == pytest.approx(
        2 * 2 * 1.5**2 / 4
    )  # rows lie 1 off their mean in both coordinates


def test_reconstruction_of_an_explained_batch_is_zero():
    dictionary = axes()
    dictionary.b_enc.data[2] = -10
    assert value(Reconstruction(), step(X, dictionary)) == 0


def test_nested_reconstruction_averages_the_prefixes_errors():
    # First latent alone: row 2 misses its 2. First two: exact. All three: 1.5 too much in every coordinate.
    out = NestedReconstruction(shares=(1 / 3, 2 / 3, 1.0))(step(X, axes()))
    assert out.loss.item() == pytest.approx((4 / 2 + 0 + 2 * 1.5**2) / 3)
    assert out.metrics["fvu"].item() == pytest.approx(2.25)


def test_nested_reconstruction_with_one_prefix_is_reconstruction():
    now = step(X, axes())
    assert value(NestedReconstruction(shares=(1.0,)), now) == pytest.approx(value(Reconstruction(), now))


def test_nested_reconstruction_must_end_at_the_whole_dictionary():
    with pytest.raises(ValueError, match="end at 1"):
        NestedReconstruction(shares=(0.4,))(step(X, axes()))


def test_l1_is_the_sum_of_latents_a_token():
    assert value(L1(), step(X, axes())) == pytest.approx((3 + 1 + 2 + 2 * 3 * 0.5**0.5) / 2)


def test_l1_of_silence_is_zero():
    assert value(L1(), step(-X, axes())) == 0


def test_l0_counts_latents_above_threshold_and_moves_thresholds_alone():
    dictionary = axes(JumpReLU(bandwidth=0.5))
    dictionary.threshold.data.copy_(torch.tensor([1.1, 0.5, 2.0]))
    now = step(X, dictionary)
    out = L0()(now)
    assert out.loss.item() == (2 + 2) / 2  # (3, ., 2.12) and (., 2, 2.12) are above
    out.loss.backward()
    # Within 0.25 of a threshold: latent 1 in row 2 (1.0 against 1.1), latent 3 in both rows (2.12 against 2.0).
    assert dictionary.threshold.grad is not None
    assert dictionary.threshold.grad.tolist() == pytest.approx([-1 / 0.5 / 2, 0, -2 / 0.5 / 2])
    assert dictionary.W_enc.grad is None or not dictionary.W_enc.grad.any()


@pytest.mark.parametrize("entries", [1, 50, 10_000])
def test_l0_is_the_same_in_blocks_of_any_size(entries, monkeypatch):
    monkeypatch.setitem(row_blocks.ENTRIES, "cpu", entries)
    made, x = dictionary(JumpReLU(bandwidth=0.3)), batch()
    pre = made.pre_activations(x).detach()
    loss = L0()(replace(step(x, made), z=made.codes(x, "dense"))).loss
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float((pre > made.threshold).sum()) / len(x))
    inside = ((pre - made.threshold.detach()).abs() < 0.15).double().sum(0) / 0.3 / len(x)
    assert made.threshold.grad is not None
    torch.testing.assert_close(made.threshold.grad, -inside)


def test_l0_without_thresholds_says_what_to_use():
    with pytest.raises(ValueError, match="use L1"):
        L0()(step(X, axes()))


def test_aux_k_scores_how_well_dead_latents_explain_the_error():
    # Only the first latent lives: errors (0, 0) and (0, 2), of total square 2 about their mean. The dead read (0, 2.12)
    # in row 1 and (2, 2.12) in row 2; k = 1 keeps the third, decoded to (1.5, 1.5) in both rows.
    dictionary = axes(JumpReLU(bandwidth=0.0))
    dictionary.threshold.data.copy_(torch.tensor([0.0, 9.0, 9.0]))
    now = step(X, dictionary, dead=[False, True, True])
    assert value(AuxK(k_share=0.5), now) == pytest.approx((1.5**2 + 1.5**2 + 1.5**2 + 0.5**2) / 2)
    alone = replace(now, dead=torch.tensor([False, True, False]))
    assert value(AuxK(k_share=0.5), alone) == pytest.approx(0)


def test_aux_k_is_zero_while_nothing_is_dead():
    assert value(AuxK(), step(X, axes())) == 0


def test_aux_k_teaches_the_dead_alone():
    now = step(X, axes(TopK(1)), dead=[True, False, False])
    AuxK()(now).loss.backward()
    assert now.dictionary.W_dec.grad is not None
    assert now.dictionary.W_dec.grad.abs().sum(1).gt(0).tolist() == [True, False, False]


def dense_aux_k(step: Step, k: int) -> Tensor:
    """AuxK by dense matrices."""
    dictionary, dead = step.dictionary, step.dead.nonzero().squeeze(1)
    error = (step.x - step.x_hat).detach()
    pre = torch.addmm(dictionary.b_enc, step.x - dictionary.b_dec, dictionary.W_enc)[:, dead]
    values, index = pre.topk(k, dim=1)
    explained = torch.zeros_like(pre).scatter(1, index, values.relu()) @ dictionary.W_dec[dead]
    return (explained - error).square().sum() / (error - error.mean(0)).square().sum()


@pytest.mark.parametrize("shift", [1.5, -1.0, -20.0], ids=["all active", "some active", "none active"])
@pytest.mark.parametrize("dense_above", [0.0, 1.0], ids=["by whole matrices", "by pairs"])
def test_aux_k_and_its_gradients_are_those_of_dense_matrices(shift, dense_above):
    made = dictionary(TopK(3), shift=shift)
    made.dense_above = dense_above
    made.low_precision = dense_above == 0  # float64 is not rounded
    now = step(batch(), made, dead=[latent % 3 > 0 for latent in range(made.d_sae)])
    names = ("W_enc", "b_enc", "W_dec", "b_dec")
    weights = [getattr(made, name) for name in names]
    found, wanted = AuxK(k_share=0.7)(now).loss, dense_aux_k(now, round(0.7 * made.d_in))
    torch.testing.assert_close(found, wanted)
    ours, theirs = (torch.autograd.grad(loss, weights, retain_graph=True) for loss in (found, wanted))
    for name, grad, wanted in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(grad, wanted, msg=lambda text, name=name: f"{name}: {text}")
        assert bool(grad.any()) == (shift > -20), name


def test_orthogonality_is_the_mean_square_of_the_nearest_cosine():
    # cos(e1, e2) = 0, both lie at 45 degrees from the third: everyone's nearest is at cosine sqrt(1/2).
    out = Orthogonality()(step(X, axes()))
    assert out.loss.item() == pytest.approx(0.5)
    assert out.metrics["max_cosine"].item() == pytest.approx(0.5**0.5)


def atoms_only(atoms: Tensor) -> Step:
    dictionary = Dictionary(atoms.shape[1], len(atoms), ReLU()).double()
    dictionary.W_dec.data.copy_(atoms)
    return step(torch.zeros(1, atoms.shape[1], dtype=torch.float64), dictionary)


def test_orthogonality_of_orthonormal_and_of_opposite_atoms_is_zero():
    identity = torch.eye(4, dtype=torch.float64)
    assert value(Orthogonality(), atoms_only(identity)) == 0
    assert value(Orthogonality(), atoms_only(torch.cat([identity, -identity]))) == 0


def test_orthogonality_of_a_duplicated_basis_is_one():
    assert value(Orthogonality(), atoms_only(torch.eye(4, dtype=torch.float64).repeat(3, 1))) == 1


def test_orthogonality_differentiates_as_the_dense_expression_does():
    rng = torch.Generator().manual_seed(1)
    now = atoms_only(torch.nn.functional.normalize(torch.randn(30, 6, generator=rng, dtype=torch.float64), dim=1))
    atoms = now.dictionary.W_dec
    term = Orthogonality(chunk=8)
    parts = torch.randperm(30, generator=torch.Generator().manual_seed(0)).split(8)
    dense = torch.cat([(atoms[p] @ atoms[p].T - 9 * torch.eye(len(p))).amax(1) for p in parts]).relu().square().mean()
    (wanted,) = torch.autograd.grad(dense, atoms)
    loss = term(now).loss
    (got,) = torch.autograd.grad(loss, atoms)
    torch.testing.assert_close(loss, dense)
    torch.testing.assert_close(got, wanted)
