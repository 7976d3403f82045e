"""Extension: old latents go on exactly where they stopped, on whatever scale the new run works."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.small import WORLD, experiment
from unbraid.config.serialise import OWN_PACKAGES, from_json, to_json
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import Origin
from unbraid.dictionary.normaliser import Normaliser
from unbraid.experiment.experiment import Experiment
from unbraid.formats.widen import Extension
from unbraid.runs.run import Run
from unbraid.seeding import stream
from unbraid.sources.stream import held_out
from unbraid.training.loop import train

KINDS = {"relu": ReLU(), "topk": TopK(3), "batchtopk": BatchTopK(3), "jumprelu": JumpReLU()}


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> dict[str, Path]:
    """A trained run of each activation."""
    members = [experiment(name, activation=activation) for name, activation in KINDS.items()]
    return dict(zip(KINDS, train(members, tmp_path_factory.mktemp("runs")), strict=True))


def extended(
    folder: Path, activation: Activation, d_sae: int, how: str = "centre-scale"
) -> tuple[Dictionary, Normaliser]:
    sample = WORLD.sample(4096, seed=7).x
    normaliser = Normaliser.fit(sample, how)
    config = DictionaryConfig(d_sae=d_sae, activation=activation, init=Extension(str(folder)))
    origin = Origin(WORLD, normaliser)
    return config.build(normaliser(sample), seed=0, origin=origin), normaliser


@pytest.mark.parametrize("how", ["centre-scale", "none"])
@pytest.mark.parametrize("name", ["relu", "topk", "jumprelu"])
def test_with_no_new_latents_it_is_the_same_dictionary(started: dict[str, Path], name: str, how: str):
    """On another sample, so with another mean and scale, or with none at all."""
    made, normaliser = extended(started[name], KINDS[name], 64, how)
    x = held_out(WORLD, 512).x
    wanted = Run.open(started[name]).dictionary()(x)
    torch.testing.assert_close(normaliser.undo(made(normaliser(x))), wanted, rtol=0, atol=1e-5)


def test_a_calibrated_batchtopk_goes_on_as_batchtopk(started: dict[str, Path]):
    made, normaliser = extended(started["batchtopk"], KINDS["batchtopk"], 64)
    x = held_out(WORLD, 4096).x
    assert float(made.codes(normaliser(x)).l0()) == pytest.approx(3.0)
    theirs = Run.open(started["batchtopk"]).dictionary().codes(x).firings()
    # Its one threshold was calibrated on another sample: most firings are the same.
    assert float((made.codes(normaliser(x)).firings() - theirs).abs().sum() / theirs.sum()) < 0.1


def test_new_atoms_come_after_the_old_and_are_unit(started: dict[str, Path]):
    made, _ = extended(started["jumprelu"], KINDS["jumprelu"], 80)
    old = Run.open(started["jumprelu"]).dictionary()
    assert torch.equal(made.W_dec[:64], old.W_dec) and torch.equal(made.W_enc[:, :64], old.W_enc)
    assert torch.equal(made.W_enc[:, 64:].T, made.W_dec[64:])
    assert torch.linalg.vector_norm(made.W_dec.detach(), dim=1) == pytest.approx(torch.ones(80), abs=1e-5)
    assert (made.threshold[64:] == made.threshold[:64].median()).all() and (made.b_enc[64:] == 0).all()


def test_what_cannot_be_continued_says_what_to_do(started: dict[str, Path]):
    with pytest.raises(ValueError, match="d-sae 64 or more"):
        extended(started["topk"], TopK(3), 32)
    with pytest.raises(ValueError, match="use TopK"):
        extended(started["topk"], JumpReLU(), 80)
    other = Dictionary(7, 80, TopK(3))
    with pytest.raises(ValueError, match="these activations have 7"):
        zero = torch.zeros(7)
        Extension(str(started["topk"]))(
            other, torch.zeros(4, 7), stream(0, "x"), Origin(WORLD, Normaliser(zero, zero.sum() + 1))
        )
    with pytest.raises(ValueError, match="origin"):
        DictionaryConfig(d_sae=80, init=Extension(str(started["topk"]))).build(WORLD.sample(8, seed=0).x, seed=0)


def test_an_extension_trains_is_saved_and_opens_again(started: dict[str, Path], tmp_path: Path):
    config = DictionaryConfig(d_sae=72, activation=TopK(3), init=Extension(str(started["topk"])))
    wider: Experiment = replace(experiment("wider", activation=TopK(3)), dictionary=config)
    assert from_json(to_json(wider), packages=OWN_PACKAGES) == wider
    (folder,) = train([wider], tmp_path)
    assert Run.open(folder).dictionary().d_sae == 72
