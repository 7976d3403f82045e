"""Dictionaries without training: independent components, neurons, a random basis, directions of interchange."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.small import WORLD, experiment
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import Initialisation, Origin
from unbraid.dictionary.interchange_directions import InterchangeDirections, interchange_axes, rate_thresholds
from unbraid.dictionary.linear_bases import IndependentComponents, Neurons, RandomBasis
from unbraid.dictionary.normaliser import Normaliser
from unbraid.runs.run import Run
from unbraid.sources.truth import Labelled
from unbraid.training.loop import train

MIXING = torch.tensor([[2.0, 0, 0], [1, 1, 0], [0, 1, 1.5]])
BASES: list[Initialisation] = [IndependentComponents(), Neurons(), RandomBasis()]


def mixed(rows: int = 4000) -> torch.Tensor:
    """Three Laplacian sources, each along a direction of its own."""
    uniform = torch.rand(rows, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    return (-uniform.sign() * torch.log1p(-2 * uniform.abs())) @ MIXING


def built(init: Initialisation, x: torch.Tensor, d_sae: int = 6, origin: Origin | None = None) -> Dictionary:
    return DictionaryConfig(d_sae=d_sae, activation=ReLU(), init=init).build(x, seed=0, origin=origin)


@pytest.mark.parametrize("init", BASES, ids=lambda init: type(init).__name__)
def test_a_basis_in_both_signs_reconstructs_everything(init: Initialisation):
    made = built(init, mixed())
    torch.testing.assert_close(made(mixed()), mixed(), atol=1e-4, rtol=0)
    torch.testing.assert_close(made.W_dec[0::2], -made.W_dec[1::2])
    torch.testing.assert_close((made.W_dec * made.W_enc.T).sum(1), torch.ones(6))


def test_independent_components_are_the_directions_that_were_mixed():
    atoms = built(IndependentComponents(), mixed()).W_dec[0::2]
    cosines = (atoms @ torch.nn.functional.normalize(MIXING, dim=1).T).abs()
    assert bool((cosines.amax(0) > 0.995).all())


def test_an_ica_without_time_says_so(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        built(IndependentComponents(steps=1), mixed())
    assert "ICA had not converged after 1 steps" in caplog.text


def test_neurons_are_the_axes_of_raw_activations_by_variance_whitened_or_not():
    x = mixed()
    by_variance = x.var(0).argsort(descending=True)
    assert torch.equal(built(Neurons(), x).W_dec[0::2], torch.eye(3)[by_variance])
    whitener = Normaliser.fit(x, "whiten", ridge=1e-3, power=1.0)
    made = built(Neurons(), whitener(x), origin=Origin(WORLD, whitener))
    torch.testing.assert_close(whitener.directions(made.W_dec[0::2]), torch.eye(3)[by_variance], atol=1e-4, rtol=0)
    torch.testing.assert_close(made(whitener(x)), whitener(x), atol=1e-4, rtol=0)


@pytest.mark.parametrize("init", BASES, ids=lambda init: type(init).__name__)
def test_more_latents_than_signed_axes_are_refused(init: Initialisation):
    with pytest.raises(ValueError, match=r"only 6 signed directions.*got 8 latents: set --dictionary.d-sae 6"):
        built(init, mixed(), d_sae=8)


def test_components_that_do_not_vary_are_not_counted():
    flat = torch.cat([mixed(), torch.zeros(4000, 1)], 1)
    with pytest.raises(ValueError, match="vary in 3 of 4 dimensions"):
        built(IndependentComponents(), flat, d_sae=8)


def labelled(x: torch.Tensor, active: torch.Tensor) -> Labelled:
    rows, factors = active.nonzero(as_tuple=True)
    return Labelled(x, rows, factors, torch.ones(len(rows)), active.shape[1])


def test_factors_at_right_angles_are_interchanged_along_themselves():
    # c_i = var_i e_i, so the matrix is var_i at i and -var_j at j, whose leading eigenvector is e_i.
    active = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    of = labelled(active.float(), active)
    axes = interchange_axes(of, torch.eye(3, dtype=torch.float64), of.magnitudes.double())
    torch.testing.assert_close(axes[:2], torch.eye(3)[:2])
    assert bool(axes[2].isnan().all())  # never active
    assert rate_thresholds(of, axes.nan_to_num()).tolist() == [0.0, 0.0, 0.0]  # two rows are above it, two, none


def test_a_factor_next_to_a_louder_one_is_interchanged_away_from_it():
    # Factor 0 writes (1, 0), factor 1 (3, 3): the direction turns away from (1, 1), and still reads factor 0.
    active = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    x = active.float() @ torch.tensor([[1.0, 0.0], [3.0, 3.0]])
    of = labelled(x, active)
    axis = interchange_axes(of, torch.tensor([[1.0, 0.0], [3.0, 3.0]], dtype=torch.float64), of.magnitudes.double())[0]
    assert float(axis[0]) > 0.7 and float(axis[1]) < -0.5


def test_each_latent_fires_as_often_as_its_factor():
    origin = Origin(WORLD, Normaliser.fit(WORLD.sample(512, seed=0).x, "centre-scale", ridge=1e-3, power=1.0))
    config = DictionaryConfig(d_sae=WORLD.factors, activation=JumpReLU(), init=InterchangeDirections(rows=2048))
    made = config.build(origin.normaliser(WORLD.sample(512, seed=0).x), seed=0, origin=origin)
    truth = WORLD.truth().labelled(2048, split="train")
    wanted = torch.bincount(truth.factors, minlength=WORLD.factors)
    fired = made.codes(origin.normaliser(truth.x)).firings()
    assert float((fired - wanted).abs().double().mean()) < 2
    torch.testing.assert_close(made.W_enc / made.W_enc.norm(dim=0), made.W_dec.T, atol=1e-4, rtol=0)


def test_the_number_of_factors_is_asked_for():
    origin = Origin(WORLD, Normaliser.fit(mixed(), "none", ridge=1e-3, power=1.0))
    with pytest.raises(ValueError, match="needs one each: set --dictionary.d-sae 48"):
        built(InterchangeDirections(), WORLD.sample(64, seed=0).x, d_sae=40, origin=origin)


def test_a_run_of_neurons_is_scored_like_any_other(tmp_path: Path):
    base = experiment(tokens=0)
    (folder,) = train([replace(base, dictionary=replace(base.dictionary, d_sae=32, init=Neurons()))], tmp_path)
    assert Run.open(folder).dictionary().W_dec.abs().amax(1).tolist() == pytest.approx([1.0] * 32)
