"""Orthonormal blocks: the nearest ones, at the start, throughout training, and after a resume."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.resumed import assert_resumed_equals_whole
from tests.small import WORLD, experiment
from unbraid.dictionary.orthonormalise import orthonormalise_blocks, polar
from unbraid.experiment.experiment import Experiment
from unbraid.runs.run import Run
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.training.learner import Learner
from unbraid.training.loop import train

SIZE = 8


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blocked(size: int = SIZE) -> Experiment:
    base = experiment(f"blocks-{size}")
    return replace(
        base,
        dictionary=replace(base.dictionary, orthonormal_blocks=size),
        training=replace(base.training, lr=1e-2),
    )


def off_blocks(atoms: Tensor, size: int = SIZE) -> float:
    """Largest entry by which a block misses orthonormality."""
    blocks = atoms.detach().double().unflatten(0, (-1, size))
    return float((blocks @ blocks.mT - torch.eye(size, dtype=torch.float64)).abs().max())


def test_two_atoms_at_an_angle_open_to_a_right_angle_by_equal_parts():
    """At 45 degrees, each turns by 22.5: the bisector stays."""
    turned = lambda degrees: [torch.tensor(degrees).deg2rad().cos(), torch.tensor(degrees).deg2rad().sin()]
    atoms = torch.tensor([turned(0.0), turned(45.0)]).double()
    wanted = torch.tensor([turned(-22.5), turned(67.5)]).double()
    torch.testing.assert_close(orthonormalise_blocks(atoms, 2), wanted, atol=1e-6, rtol=0)


def test_a_single_atom_is_only_normalised():
    atoms = normal(6, 5, seed=0)
    wanted = atoms / atoms.norm(dim=1, keepdim=True)
    torch.testing.assert_close(orthonormalise_blocks(atoms, 1), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.02, 0.1, 1.0, 50.0])
def test_the_polar_factor_is_the_svds_near_and_far(scale: float):
    """From a small step off (iterations) to anything (SVD)."""
    start = torch.linalg.qr(normal(3, 9, 6, seed=1))[0].mT
    matrices = start + scale * normal(3, 6, 9, seed=2) / 54**0.5
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    torch.testing.assert_close(polar(matrices), left @ right, atol=1e-5, rtol=0)


def test_no_other_orthonormal_block_is_nearer():
    matrices = normal(20, 4, 7, seed=3)
    nearest = polar(matrices)
    for seed in range(20):
        other = torch.linalg.qr(nearest.mT + 0.1 * normal(20, 7, 4, seed=seed + 4))[0].mT
        signs = (other * nearest).sum(2, keepdim=True).sign()
        assert ((matrices - nearest).norm(dim=(1, 2)) <= (matrices - signs * other).norm(dim=(1, 2)) + 1e-6).all()


def test_orthonormal_blocks_stay_as_they_are():
    atoms = torch.linalg.qr(normal(3, 9, 6, seed=5))[0].mT.flatten(0, 1)
    assert torch.equal(orthonormalise_blocks(atoms, 6), atoms)


def test_a_block_of_duplicates_comes_out_orthonormal():
    atoms = torch.cat([normal(1, 6, seed=6).expand(4, 6), normal(4, 6, seed=7)])
    assert off_blocks(orthonormalise_blocks(atoms, 4), 4) < 1e-6


def test_blocks_do_not_touch_each_other():
    atoms = normal(8, 6, seed=8)
    alone = orthonormalise_blocks(atoms[4:], 4)
    torch.testing.assert_close(orthonormalise_blocks(atoms, 4)[4:], alone, atol=1e-6, rtol=0)


def test_a_dictionary_starts_in_orthonormal_blocks_with_its_encoder():
    dictionary = Learner(blocked(), fitting_sample(WORLD, 0)).dictionary
    assert off_blocks(dictionary.W_dec) < 1e-5
    assert torch.equal(dictionary.W_enc, dictionary.W_dec.T)


@pytest.mark.parametrize("size", [1, SIZE, 16])
def test_a_trained_run_ends_in_orthonormal_blocks(tmp_path, size: int):
    (folder,) = train([blocked(size)], tmp_path)
    trained = Run.open(folder).dictionary()
    assert off_blocks(trained.W_dec, size) < 1e-5
    start = Learner(blocked(size), fitting_sample(WORLD, 0)).dictionary.W_dec
    assert (trained.W_dec * start).sum(1).min() < 0.95


def test_without_blocks_atoms_do_not_end_orthonormal(tmp_path):
    (folder,) = train([blocked(0)], tmp_path)
    assert off_blocks(Run.open(folder).dictionary().W_dec) > 0.1


def test_a_run_of_orthonormal_blocks_resumed_equals_one_never_stopped(tmp_path):
    assert_resumed_equals_whole([blocked()], tmp_path, steps=23, every=10)


@pytest.mark.parametrize(("size", "said"), [(7, "does not divide d_sae = 64"), (-8, "at least 0")])
def test_blocks_that_do_not_divide_the_dictionary_are_refused(size: int, said: str):
    with pytest.raises(ValueError, match=said):
        blocked(size)


def test_blocks_larger_than_the_space_are_refused():
    with pytest.raises(ValueError, match="32 atoms cannot be orthonormal in 16 dimensions: set .* to 16 or less"):
        Learner(blocked(32), fitting_sample(WORLD, 0))


def test_blocks_and_a_smallest_cosine_are_refused():
    with pytest.raises(ValueError, match="set only one of them"):
        replace(blocked().dictionary, min_cosine_to_init=0.8)
