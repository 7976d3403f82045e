"""A fit is a run: strongest atom first, its radius beside it, the same again from the same seed, and trained on."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tests.callbacks import AtFit
from tests.small import WORLD, experiment

from unbraid.experiment.experiment import Experiment
from unbraid.runs.run import Run
from unbraid.steering.linear_dct import LinearDct
from unbraid.steering.melbo import Melbo
from unbraid.training.cohort import Failed
from unbraid.training.loop import train


def fitted(init, *, tokens: int = 0, **changes) -> Experiment:
    base = experiment()
    dictionary = replace(base.dictionary, init=init, d_sae=8, **changes)
    return replace(base, dictionary=dictionary, training=replace(base.training, tokens=tokens))


def test_a_fit_becomes_a_run_with_its_strengths_effects_and_radius(tmp_path):
    seen = []
    made = fitted(Melbo(orthogonality="joint", steps=5))
    (path,) = train([made], tmp_path, callbacks=[AtFit(lambda *told: seen.append(told))])
    fit = load_file(path / "fit.safetensors")
    assert fit["strengths"].diff().le(0).all() and fit["strengths"].shape == (8,)
    assert fit["effects"].shape == (8, WORLD.d_in)
    assert float(fit["radius"]) > 0 and 0 < float(fit["relative_radius"]) < 10
    assert seen == [(made.label, done, 5) for done in range(1, 6)]
    atoms = Run.open(path).dictionary().W_dec
    torch.testing.assert_close(atoms @ atoms.T, torch.eye(8), atol=1e-5, rtol=0)


def test_the_same_seed_fits_the_same_atoms(tmp_path):
    made = fitted(Melbo(steps=3))
    atoms = [Run.open(train([made], tmp_path / name)[0]).dictionary().W_dec for name in "ab"]
    assert torch.equal(*atoms)


def test_an_encoder_trained_for_fitted_atoms_leaves_them_as_they_are(tmp_path):
    """Two stages: decoder first, for its effects; then the encoder."""
    fixed = fitted(LinearDct(), tokens=2560, frozen=("W_dec",))
    (one,) = train([fitted(LinearDct())], tmp_path)
    (two,) = train([fixed], tmp_path)
    first, second = Run.open(one).dictionary(), Run.open(two).dictionary()
    torch.testing.assert_close(first.W_dec, second.W_dec)
    assert not torch.allclose(first.W_enc, second.W_enc)
    assert (two / "fit.safetensors").is_file()


def test_a_radius_no_calibration_would_look_at_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is outside .* leave it at 0"):
        train([fitted(LinearDct(radius=1e6))], tmp_path)


def test_layers_that_do_nothing_cannot_be_fitted(tmp_path):
    idle = replace(WORLD, effective=0.0, interactions=0)
    with pytest.raises(ValueError, match="no first-order effect"):
        train([replace(fitted(LinearDct()), source=idle)], tmp_path)


def test_a_fit_that_fails_leaves_the_others_of_its_cohort_to_finish(tmp_path):
    wide = replace(fitted(LinearDct()), name="wide")
    wide = replace(wide, dictionary=replace(wide.dictionary, d_sae=WORLD.d_in + 1))
    with pytest.raises(Failed, match=r"wide-\S*s0-\w+ stopped at step 0 for good: a Jacobian of 16 dimensions"):
        train([fitted(Melbo(steps=2)), wide], tmp_path)
    assert sum((folder / "provenance.json").is_file() for folder in tmp_path.iterdir()) == 1


def test_a_fit_that_fails_alone_says_so_at_once(tmp_path):
    wide = fitted(LinearDct())
    with pytest.raises(ValueError, match="set --dictionary.d-sae 16 or less"):
        train([replace(wide, dictionary=replace(wide.dictionary, d_sae=17))], tmp_path)
