"""Penalties on atoms alone: values worked out by hand, and what each can and cannot tell apart."""

import math

import pytest
import torch
from tests.steps import decoder_step, step, units, with_atoms
from torch import Tensor
from torch.nn.functional import normalize

from unbraid.objective import gradient_ratio as weighting
from unbraid.terms.controls.random_gradient import RandomGradient
from unbraid.terms.geometry.fourth_power import FourthPower
from unbraid.terms.geometry.frame_potential import FramePotential
from unbraid.terms.geometry.orthogonality_hinge import OrthogonalityHinge
from unbraid.terms.geometry.weight_decay import WeightDecay
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.log_cosh import LogCosh

THREE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
"""Cosines 0, 0.6, 0.8."""


def identity(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def value(term, atoms: Tensor, seed: int = 0) -> float:
    return term(decoder_step(atoms, seed=seed)).loss.item()


def test_the_hinge_charges_the_nearest_cosine_above_its_threshold():
    # Nearest: 0.6 for e1, 0.8 for the others.
    out = OrthogonalityHinge(threshold=0.5)(decoder_step(THREE))
    assert out.loss.item() == pytest.approx((0.1**2 + 2 * 0.3**2) / 3)
    assert out.metrics["max_cosine"].item() == pytest.approx(2.2 / 3)
    assert out.metrics["above"].item() == 1


def test_the_hinge_is_free_below_its_threshold_and_sees_who_is_parked_there():
    out = OrthogonalityHinge(threshold=0.81)(decoder_step(THREE))
    assert out.loss.item() == 0
    assert out.metrics["parked"].item() == pytest.approx(2 / 3)
    assert out.metrics["above"].item() == 0


def test_the_hinge_at_zero_is_orthogonality():
    assert value(OrthogonalityHinge(threshold=0.0), THREE) == pytest.approx((0.6**2 + 2 * 0.8**2) / 3)


def test_atoms_pushed_by_the_hinge_park_at_its_threshold():
    atoms = units(12, 6, seed=0)
    term, parked = OrthogonalityHinge(threshold=0.4), []
    for index in range(600):
        now = decoder_step(atoms, seed=index)
        out = term(now)
        parked.append(out.metrics["parked"].item())
        (grad,) = torch.autograd.grad(out.loss, now.dictionary.W_dec)
        atoms = normalize(atoms - 0.5 * grad, dim=1)
    assert parked[0] < 0.2
    assert value(term, atoms) < 1e-4
    cosines = (atoms @ atoms.T).fill_diagonal_(-1).amax(1)
    assert (cosines > 0.38).all()


def test_the_fourth_power_of_a_pair_is_worked_out_by_hand():
    assert value(FourthPower(), THREE) == pytest.approx(2 * (0.6**4 + 0.8**4) / 3)


def test_the_fourth_power_tells_copies_of_a_basis_from_random_atoms():
    """As sums over pairs of 64 atoms in 16 dimensions: 192 and, at random, 3 * 64 * 63 / (16 * 18) = 42."""
    copies = identity(16).repeat(4, 1)
    assert 64 * value(FourthPower(), copies) == pytest.approx(192)
    random = [64 * value(FourthPower(), units(64, 16, seed=seed)) for seed in range(20)]
    assert sum(random) / len(random) == pytest.approx(42, abs=1.5)
    out = FourthPower()(decoder_step(copies))
    assert out.metrics["over_random"].item() == pytest.approx(192 / 42)


def test_the_frame_potential_prefers_copies_of_a_basis_to_random_atoms_and_so_misses_splitting():
    """256 with the diagonal of 64, the least there is, against about 64 + 64 * 63 / 16 = 316."""
    assert 64 * value(FramePotential(), identity(16).repeat(4, 1)) + 64 == pytest.approx(256)
    random = [64 * value(FramePotential(), units(64, 16, seed=seed)) + 64 for seed in range(20)]
    assert sum(random) / len(random) == pytest.approx(316, abs=6)


def test_the_fourth_power_estimated_in_chunks_is_the_whole_on_average():
    atoms = units(50, 6, seed=1)
    whole = value(FourthPower(), atoms)
    chunks = [value(FourthPower(chunk=16), atoms, seed=seed) for seed in range(400)]
    assert sum(chunks) / len(chunks) == pytest.approx(whole, rel=0.02)


def test_the_fourth_power_of_orthonormal_or_lonely_atoms_is_zero():
    assert value(FourthPower(), identity(5)) == 0
    assert value(FourthPower(), identity(1)) == 0


def test_the_frame_potential_of_a_pair_is_worked_out_by_hand():
    assert value(FramePotential(), THREE) == pytest.approx(2 * (0.6**2 + 0.8**2) / 3)


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_copies_of_a_basis_are_a_tight_frame(copies: int):
    out = FramePotential()(decoder_step(identity(7).repeat(copies, 1)))
    atoms = 7 * copies
    assert atoms * out.loss.item() + atoms == pytest.approx(atoms**2 / 7)
    assert out.metrics["over_tight_frame"].item() == pytest.approx(1)


def test_the_frame_potential_is_orojars_variance_over_twice_the_atoms():
    """Exactly: over all 2^m sign vectors. J of a linear decoder is its atoms."""
    atoms = units(8, 3, seed=2)
    signs = 1 - 2.0 * torch.tensor([[n >> i & 1 for i in range(8)] for n in range(2**8)]).double()
    variance = (signs @ atoms).square().sum(1).var(correction=0)
    assert 2 * 8 * value(FramePotential(), atoms) == pytest.approx(variance.item())


def test_a_random_push_is_tangent_of_unit_norm_and_new_each_time():
    def push(seed: int) -> Tensor:
        now = decoder_step(units(30, 6, seed=3), seed=seed)
        out = RandomGradient()(now)
        assert out.loss.item() == pytest.approx(0, abs=1e-12)
        (grad,) = torch.autograd.grad(out.loss, now.dictionary.W_dec)
        torch.testing.assert_close((grad * now.dictionary.W_dec).sum(1), torch.zeros(30).double(), atol=1e-12, rtol=0)
        assert grad.norm().item() == pytest.approx(1)
        return grad

    assert torch.equal(push(0), push(0))
    assert abs((push(0) * push(1)).sum().item()) < 0.3


def test_a_random_push_has_no_favourite_direction():
    pushes = []
    for seed in range(600):
        now = decoder_step(THREE[:1], seed=seed)
        pushes.append(torch.autograd.grad(RandomGradient()(now).loss, now.dictionary.W_dec)[0])
    # One atom in the plane has two tangent directions.
    torch.testing.assert_close(torch.stack(pushes).mean(0), torch.zeros(1, 2).double(), atol=0.15, rtol=0)


def test_weight_decay_of_squares_is_the_encoders_alone():
    now = decoder_step(THREE)
    now.dictionary.W_enc.data.copy_(torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 1.0]]))
    out = WeightDecay(power=2)(now)
    assert out.loss.item() == pytest.approx((9 + 4 + 2) / 3)
    out.loss.backward()
    assert now.dictionary.W_dec.grad is None


def test_weight_decay_of_absolute_values_is_the_atoms_too():
    now = decoder_step(THREE)
    now.dictionary.W_enc.data.copy_(torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 1.0]]))
    assert WeightDecay(power=1)(now).loss.item() == pytest.approx((3 + 2 + 2 + 1 + 1 + 1.4) / 3)


def test_log_cosh_is_worked_out_by_hand():
    # Codes (3, 4, 5) and nothing.
    now = step(with_atoms(THREE), torch.tensor([[3.0, 4.0], [-3.0, -4.0]], dtype=torch.float64))
    wanted = sum(math.log(math.cosh(2 * z)) / 2 for z in (3, 4, 5)) / 2
    assert LogCosh(sharpness=2.0)(now).loss.item() == pytest.approx(wanted)


def test_log_cosh_has_the_gradient_of_tanh_and_does_not_overflow():
    now = step(with_atoms(identity(2)), torch.tensor([[0.1, 1000.0]], dtype=torch.float64))
    out = LogCosh()(now)
    (grad,) = torch.autograd.grad(out.loss, now.dictionary.b_enc)
    assert grad.tolist() == pytest.approx([math.tanh(0.3), 1.0])
    assert out.loss.item() == pytest.approx(math.log(math.cosh(0.3)) / 3 + 1000 - math.log(2) / 3)


def test_with_rho_a_random_push_is_a_share_of_the_reconstructions_pull_on_atoms():
    now = step(with_atoms(THREE), units(20, 2, seed=4))
    reconstruction, push = Reconstruction()(now).loss, RandomGradient()(now).loss
    (pull,) = torch.autograd.grad(reconstruction, now.dictionary.W_dec, retain_graph=True)
    tangent = pull - (pull * THREE).sum(1, keepdim=True) * THREE
    weight = weighting.weight(0.3, reconstruction, push, now.dictionary, {}, elapsed=0.0)
    assert weight == pytest.approx(0.3 * tangent.norm().item())
