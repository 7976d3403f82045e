"""Terms and constraints of 2026: quadratic L0, frequency, KL of the next token, a sparse Jacobian, aligned readers."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.resumed import assert_resumed_equals_whole
from tests.small import experiment
from tests.terms.test_mechanism import at_origin
from tests.terms.test_mechanism import step as causal_step
from tests.terms.test_terms import X, axes, step

from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.config import DictionaryConfig
from unbraid.objective.objective import Step
from unbraid.runs.run import Run
from unbraid.sources.base import Contexts
from unbraid.terms.causal.jacobian_l1 import JacobianL1
from unbraid.terms.causal.next_token_kl import NextTokenKl
from unbraid.terms.geometry.fourth_power import FourthPower
from unbraid.terms.geometry.frame_potential import FramePotential
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.geometry.orthogonality_hinge import OrthogonalityHinge
from unbraid.terms.geometry.repulsion import Repulsion
from unbraid.terms.geometry.weight_decay import WeightDecay
from unbraid.terms.sparsity.frequency import Frequency
from unbraid.terms.sparsity.quadratic_l0 import QuadraticL0
from unbraid.training.loop import train


def thresholded() -> Step:
    """Latents 0 and 2 are above their thresholds in row 0, latents 1 and 2 in row 1: L0 2, rates .5, .5 and 1."""
    made = axes(JumpReLU(bandwidth=0.5))
    made.threshold.data.copy_(torch.tensor([1.1, 0.5, 2.0]))
    return step(X, made)


def threshold_gradient(term, now: Step) -> list[float]:
    term(now).loss.backward()
    made = now.dictionary
    assert made.threshold.grad is not None and (made.W_enc.grad is None or not made.W_enc.grad.any())
    return made.threshold.grad.tolist()


def test_quadratic_l0_pulls_from_both_sides():
    assert QuadraticL0(target=2.0)(thresholded()).loss.item() == 0
    assert QuadraticL0(target=4.0)(thresholded()).loss.item() == pytest.approx(0.25)
    # d L0 / d threshold is -1/(2 * .5) for latent 0 and twice that for latent 2 (see `l0`), times 2 (L0/t - 1) / t.
    assert threshold_gradient(QuadraticL0(target=1.0), thresholded()) == pytest.approx([-2.0, 0.0, -4.0])
    assert threshold_gradient(QuadraticL0(target=4.0), thresholded()) == pytest.approx([0.25, 0.0, 0.5])


@pytest.mark.parametrize("path", ["sparse", "dense"])
def test_frequency_charges_latents_by_the_square_of_how_often_they_fire(path):
    now = thresholded()
    now = replace(now, z=now.dictionary.codes(X, path))
    assert Frequency(scale=0.5)(now).loss.item() == pytest.approx((0.25 + 0.25 + 1) / 0.5)
    assert threshold_gradient(Frequency(scale=0.5), now) == pytest.approx([-2 * 0.5 / 0.5, 0.0, -2 * 1 / 0.5 * 2])


def test_penalties_on_thresholds_are_refused_where_there_are_none():
    for term in (QuadraticL0(), Frequency()):
        with pytest.raises(ValueError, match="moves JumpReLU's thresholds; BatchTopK has none"):
            term.check_activation(BatchTopK(2))


def predicting(logits: torch.Tensor) -> Contexts:
    """Two tokens at (3, 0) and (1, 2), whose next token has as logits what they are, times a matrix."""
    acts = X.unsqueeze(0)
    return Contexts(
        acts, torch.ones(1, 2, dtype=torch.bool), acts, lambda x: x, predict=lambda out, at: (out @ logits)[..., at, :]
    )


def test_kl_is_of_the_next_tokens_with_the_reconstruction_in_place():
    made = axes()  # writes 1.5 too much in both coordinates
    now = replace(
        step(X, made), contexts=lambda: predicting(torch.eye(2).double()), normalise=lambda x: x, restore=lambda x: x
    )
    assert NextTokenKl()(now).loss.item() == pytest.approx(0)  # the same shift in both logits
    made.b_enc.data[2] = -10.0
    made.b_enc.data[0] = -1.0  # codes 2 and 0 for 3 and 1
    odds = [(3.0, 2.0), (-1.0, -2.0)]  # logit of the first token against the second, before and after
    wanted = 0.0
    for before, after in odds:
        p, q = 1 / (1 + math.exp(-before)), 1 / (1 + math.exp(-after))
        wanted += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    now = replace(now, z=made.codes(X), shared={})
    assert NextTokenKl()(now).loss.item() == pytest.approx(wanted / 2)


def test_kl_is_refused_before_training_where_no_token_is_predicted(tmp_path: Path):
    with pytest.raises(
        ValueError, match="reads predictions, but these contexts predict no tokens; use .*LanguageModel"
    ):
        train([experiment(kl=NextTokenKl())], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_jacobian_of_an_atom_is_sparse_where_it_moves_one_output():
    matrix = torch.tensor([[2.0, 0, 0, 0], [1, 1, 1, 1]]).double()  # on e1 one output, on e2 all four
    contexts = at_origin(lambda acts: acts @ matrix, 2)
    term, atoms = JacobianL1(radius=0.1), torch.eye(2, dtype=torch.float64)
    for chosen, wanted in (([0], 0.5), ([1], 1.0), ([0, 1], 0.75)):
        assert term(causal_step(atoms[chosen], contexts)).loss.item() == pytest.approx(wanted)
    silent = at_origin(lambda acts: acts @ (0 * matrix), 2)
    assert term(causal_step(atoms, silent)).loss.item() == 0


@pytest.mark.parametrize("kind", [Orthogonality, OrthogonalityHinge, FourthPower, FramePotential, Repulsion])
def test_angles_are_measured_as_trained_or_in_raw_activations(kind):
    """At right angles as trained, at 60 degrees in raw activations."""
    trained, raw = torch.eye(2).double(), torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5]]).double()
    given = lambda atoms: replace(causal_step(atoms), directions=lambda _: raw)
    apart = kind(metric="trained")(given(trained)).loss.item()
    assert kind(metric="raw")(given(trained)).loss.item() == pytest.approx(kind()(given(raw)).loss.item())
    assert kind()(given(trained)).loss.item() == apart != kind(metric="raw")(given(trained)).loss.item()


def test_weight_decay_is_a_contender():
    assert WeightDecay.family == "geometry" and WeightDecay.claim == 2


def test_readers_and_atoms_have_a_product_of_1_stopped_and_resumed_or_not(tmp_path: Path):
    base = experiment()
    aligned = replace(base, dictionary=replace(base.dictionary, aligned=True))
    (folder,) = assert_resumed_equals_whole([aligned], tmp_path, steps=23, every=10)
    made = Run.open(folder).dictionary()
    torch.testing.assert_close((made.W_enc.T * made.W_dec).sum(1), torch.ones(made.d_sae), atol=1e-5, rtol=0)
    assert not torch.allclose(made.W_enc.T, made.W_dec, atol=1e-2)


def test_an_encoder_that_cannot_move_cannot_be_aligned():
    with pytest.raises(ValueError, match="W_enc is frozen: leave out one"):
        DictionaryConfig(aligned=True, frozen=("W_enc",))
    with pytest.raises(ValueError, match="MatchingPursuit has none"):
        DictionaryConfig(aligned=True, activation=MatchingPursuit(4))
