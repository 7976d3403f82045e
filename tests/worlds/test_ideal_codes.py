"""The truth dictionary: exact where a linear reader can be, no worse than the plain transpose where none can."""

from dataclasses import dataclass, replace

import pytest
import torch
from benchmarks.toys.ideal_codes import best_cuts, ideal, truth_dictionary

from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import code_matrix
from unbraid.evals.shared.observe import observe
from unbraid.sources.truth import Labelled, NoTruth, Truth
from unbraid.sources.world.world import World

EXACT = World(factors=24, d_in=32, l0=2.0, roots=4, depth=1, noise=0.0, interactions=2)
CROWDED = World(factors=96, d_in=32, l0=5.0, roots=12)


def f1(dictionary: Dictionary, world: World) -> float:
    """Of each latent as a detector of its factor, mean over factors."""
    seen = observe(dictionary, world, rows=8192)
    both = torch.from_numpy(seen.joint_counts.diagonal())
    return float((2 * both / (seen.latent_counts + seen.factor_counts)).mean())


@pytest.mark.parametrize("world", [EXACT, replace(EXACT, correlation=0.8), EXACT.twin(), replace(EXACT, coherence=0.0)])
def test_with_room_for_all_factors_codes_are_the_magnitudes(world: World):
    dictionary, labelled = truth_dictionary(world), world.labelled(4096, split="eval")
    found, true = code_matrix(dictionary, labelled.x).toarray(), labelled.dense().double().numpy()
    assert abs(found - true).max() < 1e-3
    x_hat = dictionary(labelled.x)
    torch.testing.assert_close(x_hat, labelled.x, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(dictionary.b_dec.data, world.offset, atol=1e-4, rtol=1e-4)


def test_in_superposition_it_detects_better_than_the_transpose_with_the_same_care():
    dictionary = truth_dictionary(CROWDED)
    transpose = truth_dictionary(replace(CROWDED, noise=30.0))  # noise drowns the others: w_i = d_i
    torch.testing.assert_close(transpose.W_enc.data, CROWDED.directions.T, atol=0.01, rtol=0)
    transpose.threshold.data.fill_(0.5)
    assert f1(dictionary, CROWDED) > f1(transpose, CROWDED) + 0.1
    assert torch.equal(dictionary.W_dec.data, CROWDED.directions)


def test_a_factor_passes_at_gain_1_and_the_others_add_nothing_on_average():
    dictionary, labelled = truth_dictionary(CROWDED), CROWDED.labelled(30_000, split="eval")
    with torch.no_grad():
        gains = (dictionary.W_enc.T * CROWDED.directions).sum(1)
        pre = dictionary.pre_activations(labelled.x)
    torch.testing.assert_close(gains, torch.ones(96))
    assert (pre - labelled.dense()).mean(0).abs().max() < 0.02


def test_dense_factors_always_on_are_read_too():
    world = replace(EXACT, dense=2, dense_probability=(1.0, 1.0))
    assert f1(truth_dictionary(world), world) > 0.999


def test_the_ideal_observer_sees_the_magnitudes():
    labelled = EXACT.labelled(500, split="eval")
    seen = ideal(labelled)
    assert (seen.latents.toarray() == labelled.dense().double().numpy()).all()
    assert torch.equal(torch.from_numpy(seen.joint_counts.diagonal()), seen.factor_counts)


def test_cuts_of_best_f1_by_hand():
    pre = torch.tensor([[3.0, 1.0, 9.0, 5.0], [2.0, 4.0, 8.0, 6.0], [1.0, 2.0, 7.0, 7.0], [0.0, 3.0, 6.0, 8.0]])
    present = torch.tensor([[True, False, True, False], [True, True, True, False], [False, False, True, False]])
    present = torch.cat([present, torch.tensor([[False, True, True, False]])])
    # Two of four; the two largest; all, so below the smallest but not below 0; none, so what is told.
    assert best_cuts(pre, present, 0.5).tolist() == [1.5, 2.5, 0.0, 0.5]


@dataclass(frozen=True)
class Undirected(Truth):
    """Factors that are not directions."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("one",)

    @property
    def parents(self) -> torch.Tensor:
        return torch.tensor([-1])

    @property
    def directions(self) -> None:
        return None

    def labelled(self, count: int, *, split, seed: int = 0) -> Labelled:
        raise AssertionError("not needed")


def test_factors_that_are_not_directions_have_no_truth_dictionary():
    with pytest.raises(NoTruth, match="not directions"):
        truth_dictionary(Undirected())
