"""Whitening: what training sees is white, what is saved is for raw activations, and nothing else notices."""

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.resumed import assert_resumed_equals_whole
from tests.small import WORLD, experiment
from tests.test_architectures import gated
from tests.test_causal_training import CAUSAL, asking
from unbraid.dictionary.activations.base import Activation
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.gated import Gated
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.encoding import code_matrix
from unbraid.dictionary.from_truth import SupervisedProbes, TrueDirections
from unbraid.dictionary.initialisation import Initialisation, Origin
from unbraid.dictionary.normaliser import Normaliser, double
from unbraid.experiment.experiment import Experiment, Training
from unbraid.formats import recognise
from unbraid.formats.export import export
from unbraid.formats.widen import Extension
from unbraid.objective.objective import Objective
from unbraid.objective.step_data import ExtraInputs
from unbraid.runs.run import Run
from unbraid.saebench.targets import check
from unbraid.sources.base import Source
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.stream import held_out
from unbraid.sources.world.world import World
from unbraid.steering.melbo import Melbo
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction
from unbraid.training.held_out_scores import score
from unbraid.training.learner import Learner
from unbraid.training.loop import train

RNG = torch.Generator().manual_seed(0)
SAMPLE = torch.randn(4000, 12, generator=RNG) @ torch.randn(12, 12, generator=RNG) * torch.linspace(0.1, 30, 12) + 5


def white(of: Experiment, **settings: float) -> Experiment:
    return replace(of, training=replace(of.training, normalise="whiten", **settings))


def covariance(x: Tensor) -> Tensor:
    return torch.cov(x.double().T, correction=0)


# ---- the map


def test_without_a_ridge_the_covariance_is_the_identity():
    x = Normaliser.fit(SAMPLE, "whiten", ridge=0.0)(SAMPLE)
    torch.testing.assert_close(covariance(x), torch.eye(12, dtype=torch.float64), rtol=0, atol=1e-3)
    assert x.mean(0).abs().max() < 1e-3


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("ridge", [0.0, 1e-3, 1.0])
def test_the_mean_square_is_one_and_undo_is_the_inverse(power: float, ridge: float):
    normaliser = Normaliser.fit(SAMPLE, "whiten", ridge=ridge, power=power)
    assert float(normaliser(SAMPLE).square().mean()) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(normaliser.undo(normaliser(SAMPLE)), SAMPLE, rtol=1e-4, atol=1e-3)


def test_power_is_how_much_of_the_spread_of_variances_is_taken_away():
    plain = Normaliser.fit(SAMPLE, "centre-scale")
    torch.testing.assert_close(Normaliser.fit(SAMPLE, "whiten", power=0.0)(SAMPLE), plain(SAMPLE), atol=1e-5, rtol=0)
    half = torch.linalg.eigvalsh(covariance(Normaliser.fit(SAMPLE, "whiten", ridge=0.0, power=0.5)(SAMPLE)))
    whole = torch.linalg.eigvalsh(covariance(plain(SAMPLE)))
    assert float((half[-1] / half[0]).square()) == pytest.approx(float(whole[-1] / whole[0]), rel=1e-3)


def test_a_ridge_bounds_how_far_small_directions_are_blown_up():
    flat = SAMPLE.clone()
    flat[:, 3] = 2.0  # a constant dimension
    x = Normaliser.fit(flat, "whiten", ridge=1e-2)(flat)
    assert bool(x.isfinite().all()) and float(torch.linalg.eigvalsh(covariance(x))[0]) < 1e-6
    with pytest.raises(ValueError, match="vary in 11 of 12 dimensions.*whiten-ridge above 0"):
        Normaliser.fit(flat, "whiten", ridge=0.0)


def test_what_has_no_inverse_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="12 activations have no invertible covariance in 12 .*more than 12, or set"):
        Normaliser.fit(SAMPLE[:12], "whiten", ridge=0.0)
    assert bool(Normaliser.fit(SAMPLE[:3], "whiten")(SAMPLE).isfinite().all())
    with pytest.raises(ValueError, match="do not vary"):
        Normaliser.fit(torch.ones(10, 3), "whiten")


def test_settings_that_cannot_be_are_refused():
    for power in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="whiten_power"):
            Training(normalise="whiten", whiten_power=power)
    for ridge in (-1e-3, math.nan, math.inf):
        with pytest.raises(ValueError, match="whiten_ridge"):
            Training(normalise="whiten", whiten_ridge=ridge)
    with pytest.raises(ValueError, match="whiten_power is a setting of whitening: set normalise to whiten"):
        Training(whiten_power=0.5)
    with pytest.raises(ValueError, match="MatchingPursuit reads along the atoms it writes.*centre-scale"):
        white(experiment(activation=MatchingPursuit(3)))


# ---- folding


def shaken(activation: Activation, normaliser: Normaliser) -> Dictionary:
    """A dictionary of normalised activations with nothing at a special value."""
    made = DictionaryConfig(d_sae=30, activation=activation).build(normaliser(SAMPLE), seed=0)
    with torch.no_grad():
        for parameter in (made.b_enc, made.b_dec, *(made.get_parameter(name) for name in activation.extra_parameters)):
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        made.threshold.mul_(3)
    return made.for_inference(normaliser(SAMPLE))


@pytest.mark.parametrize("activation", [ReLU(), TopK(4), BatchTopK(4), JumpReLU(), Gated()], ids=str)
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_folding_gives_the_same_reconstruction_of_raw_activations(activation: Activation, power: float):
    normaliser = Normaliser.fit(SAMPLE, "whiten", power=power)
    final = shaken(activation, normaliser)
    folded = normaliser.fold(final)
    normaliser.check(final, folded, SAMPLE)
    exact, raw = normaliser.to(torch.float64), SAMPLE.double()
    # BatchTopK's threshold was put right below one of these codes, which rounding may move to the other side.
    same = (double(folded).encode(raw) > 0).eq(double(final).encode(exact(raw)) > 0).all(1)
    assert int((~same).sum()) <= (activation == BatchTopK(4))
    wanted = exact.undo(double(final)(exact(raw)))
    torch.testing.assert_close(double(folded)(raw)[same], wanted[same], rtol=1e-4, atol=1e-3)
    assert (folded.norms() == 1).all() == (activation != TopK(4))
    torch.testing.assert_close(normaliser.directions(final.W_dec), folded.unit_atoms(), rtol=0, atol=1e-5)
    torch.testing.assert_close(normaliser.atoms(folded.unit_atoms()), final.W_dec.detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("activation", [ReLU(), TopK(4), JumpReLU()], ids=str)
def test_unfolding_is_the_inverse(activation: Activation):
    normaliser = Normaliser.fit(SAMPLE, "whiten")
    made = shaken(activation, normaliser)
    again = normaliser.unfold(normaliser.fold(made))
    for name, value in made.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-3, atol=1e-3, msg=name)


def test_codes_times_norms_and_unit_atoms_write_the_same():
    normaliser = Normaliser.fit(SAMPLE, "whiten")
    folded = normaliser.fold(shaken(TopK(4), normaliser))
    z = torch.from_numpy(code_matrix(folded, SAMPLE).toarray()).float()
    torch.testing.assert_close(z @ folded.unit_atoms() + folded.b_dec, folded(SAMPLE), rtol=1e-4, atol=1e-3)


# ---- runs


def cohort() -> list[Experiment]:
    nested = replace(experiment("nested"), objective=Objective(reconstruction=NestedReconstruction()))
    plain = [experiment(name, activation=kind) for name, kind in KINDS.items()]
    return [white(member) for member in (*plain, nested, gated())]


KINDS = {"topk": TopK(3), "batchtopk": BatchTopK(3), "jumprelu": JumpReLU(), "relu": ReLU()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    members = cohort()
    paths = train(members, tmp_path_factory.mktemp("runs"))
    return {member.name: path for member, path in zip(members, paths, strict=True)}


@pytest.mark.parametrize("name", [*KINDS, "nested", "gated"])
def test_saelens_loads_a_whitened_run_with_equal_outputs(name: str, runs: dict[str, Path], tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sae_lens = pytest.importorskip("sae_lens")
        export(runs[name], tmp_path / "mine")
        theirs = sae_lens.SAE.load_from_disk(str(tmp_path / "mine"), device="cpu")
    ours, x = Run.open(runs[name]).dictionary(), held_out(WORLD, 512).x
    torch.testing.assert_close(theirs.encode(x), ours.encode(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(theirs(x), ours(x), rtol=0, atol=1e-5)
    assert (ours.norms() == 1).all() == (name != "topk")


def test_other_libraries_get_atoms_as_they_are(runs: dict[str, Path], tmp_path: Path):
    ours, x = Run.open(runs["topk"]).dictionary(), held_out(WORLD, 64).x
    export(runs["topk"], tmp_path / "sparsify", "sparsify")
    cfg = json.loads((tmp_path / "sparsify" / "cfg.json").read_text())
    stored = load_file(tmp_path / "sparsify" / "sae.safetensors")
    assert cfg["normalize_decoder"] is False
    pre = (x - stored["b_dec"]) @ stored["encoder.weight"].T + stored["encoder.bias"]
    values, latents = pre.relu().topk(cfg["k"], dim=1)
    z = torch.zeros_like(pre).scatter(1, latents, values)
    torch.testing.assert_close(z @ stored["W_dec"] + stored["b_dec"], ours(x), rtol=0, atol=1e-5)
    export(runs["batchtopk"], tmp_path / "dl", "dictionary_learning")
    assert (tmp_path / "dl" / "ae.pt").is_file()


def test_saebench_is_told_of_atoms_it_would_not_take(runs: dict[str, Path]):
    check(Run.open(runs["batchtopk"]))
    with pytest.raises(ValueError, match="whitened activations, and its TopK chooses other latents.*BatchTopK"):
        check(Run.open(runs["topk"]))


def test_an_exported_topk_run_of_whitened_activations_needs_no_import(runs: dict[str, Path], tmp_path: Path):
    export(runs["topk"], tmp_path / "mine")
    with pytest.raises(ValueError, match="whitened activations, and its topk chooses.*score the run folder"):
        recognise.read(tmp_path / "mine")
    export(runs["batchtopk"], tmp_path / "theirs")
    assert (recognise.read(tmp_path / "theirs").dictionary.norms() == 1).all()


def test_atoms_of_other_norms_are_only_taken_where_whitening_gave_them(runs: dict[str, Path]):
    cfg = json.loads((runs["topk"] / "cfg.json").read_text())
    assert cfg["metadata"]["unit_norm_atoms"] is False
    assert "unit_norm_atoms" not in json.loads((runs["relu"] / "cfg.json").read_text())["metadata"]


def test_a_whitened_run_with_every_causal_term_resumed_equals_the_uninterrupted_one(tmp_path: Path):
    members = [white(asking(CAUSAL)), white(experiment("half"), whiten_power=0.5)]
    whole = assert_resumed_equals_whole(members, tmp_path, steps=25, every=7)
    again = Normaliser.of(load_file(whole[1] / "normaliser.safetensors"))
    x, fresh = held_out(WORLD, 8).x, Normaliser.fit(fitting_sample(WORLD, 0, 6400), "whiten", power=0.5)
    assert torch.equal(again(x), fresh(x)) and torch.equal(again.undo(x), fresh.undo(x))


def test_held_out_error_is_of_raw_activations():
    learner = Learner(white(experiment(activation=TopK(3))), fitting_sample(WORLD, 0))
    x, sample = held_out(WORLD, 512).x, fitting_sample(WORLD, 0)
    found = score(learner.dictionary, learner.normaliser, x, sample)["heldout/fvu"]
    folded = learner.normaliser.fold(learner.dictionary)
    wanted = (folded(x).detach() - x).square().sum() / (x - x.mean(0)).square().sum()
    assert float(found) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize("name", [name for name in CAUSAL if name not in ("readback", "downstream", "repulsion")])
def test_causal_terms_push_along_the_raw_directions_of_atoms(name: str):
    """The same raw dictionary, trained on in either geometry, gives the same loss."""
    term = replace(CAUSAL[name], gradient_ratio=0.0, start=0.0, every=1)
    sample = fitting_sample(WORLD, 0)
    block = WORLD.block(0, split="train", seed=0)
    assert block is not None
    plain = asking({"term": term})
    first = Learner(replace(plain, dictionary=replace(plain.dictionary, activation=ReLU())), sample)
    second = Learner(white(first.experiment), sample)
    unfolded = second.normaliser.unfold(first.normaliser.fold(first.dictionary))
    second.dictionary.load_state_dict(unfolded.state_dict())
    losses = [one.step(block.rows[:160], 8, ExtraInputs(WORLD, 0, 8))["losses/term"] for one in (first, second)]
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-5)


# ---- initialisations


def built(init: Initialisation, activation: Activation, how: str, d_sae: int, source: Source = WORLD) -> Dictionary:
    """For raw activations."""
    sample = fitting_sample(source, 0)
    normaliser = Normaliser.fit(sample, how)
    config = DictionaryConfig(d_sae=d_sae, activation=activation, init=init)
    return normaliser.fold(config.build(normaliser(sample), seed=0, origin=Origin(source, normaliser)))


@pytest.mark.parametrize("init", [TrueDirections(rows=512), SupervisedProbes(rows=512)], ids=str)
def test_ceilings_are_the_same_in_either_geometry(init: Initialisation):
    plain, whitened = (built(init, JumpReLU(), how, WORLD.factors) for how in ("centre-scale", "whiten"))
    x = held_out(WORLD, 256).x
    torch.testing.assert_close(whitened.W_dec, plain.W_dec, rtol=0, atol=1e-5)
    torch.testing.assert_close(whitened.encode(x), plain.encode(x), rtol=1e-3, atol=1e-3)


def test_a_fit_leaves_its_directions_in_the_run():
    world = World(factors=16, d_in=8, l0=2.0, roots=2, interactions=2)
    init = Melbo(radius=1.0, contexts=2, steps=2)
    plain, whitened = (built(init, ReLU(), how, 4, world) for how in ("centre-scale", "whiten"))
    torch.testing.assert_close(whitened.W_dec, plain.W_dec, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["topk", "jumprelu", "relu"])
def test_a_whitened_run_is_continued_where_it_stopped(name: str, runs: dict[str, Path]):
    x = held_out(WORLD, 256).x
    again = built(Extension(str(runs[name])), KINDS[name], "whiten", 64)
    torch.testing.assert_close(again(x), Run.open(runs[name]).dictionary()(x), rtol=1e-3, atol=1e-4)


def test_latents_that_are_compared_are_not_continued_in_another_geometry(runs: dict[str, Path]):
    with pytest.raises(ValueError, match="cannot be continued: its TopK was trained .*normalised otherwise.*normalise"):
        built(Extension(str(runs["topk"])), TopK(3), "centre-scale", 80)
    x = held_out(WORLD, 256).x
    again = built(Extension(str(runs["jumprelu"])), JumpReLU(), "centre-scale", 64)
    torch.testing.assert_close(again(x), Run.open(runs["jumprelu"]).dictionary()(x), rtol=1e-3, atol=1e-4)


def test_fingerprints_of_old_experiments_stay():
    assert white(experiment()).folder != experiment().folder
    assert replace(experiment(), training=replace(experiment().training, whiten_ridge=1e-3)) == experiment()
