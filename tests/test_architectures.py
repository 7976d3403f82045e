"""Gated, matching pursuit and resampling: trained, saved as what SAELens loads, restarted where dead."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.exact import D_IN, D_SAE, batch, dictionary, normal
from tests.resumed import assert_resumed_equals_whole
from tests.small import WORLD, experiment
from unbraid.dictionary.activations.gated import Gated
from unbraid.dictionary.activations.matching_pursuit import MatchingPursuit
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.codes import DenseCodes, SparseCodes
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.normaliser import Normaliser
from unbraid.experiment.experiment import Experiment
from unbraid.objective.objective import Objective
from unbraid.objective.step_data import ExtraInputs
from unbraid.runs.run import Run
from unbraid.seeding import stream
from unbraid.sources.stream import Stream, held_out
from unbraid.terms.reconstruction.gate_reconstruction import GateReconstruction
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.gate_l1 import GateL1
from unbraid.training.learner import Learner
from unbraid.training.loop import train
from unbraid.training.resampling import GAIN, resample

GATE = {"sparsity": GateL1(weight=0.1), "gate": GateReconstruction()}


def gated() -> Experiment:
    base = experiment("gated", activation=Gated())
    return replace(base, objective=Objective(reconstruction=Reconstruction(), penalties=GATE))


def pursuing() -> Experiment:
    return experiment("pursuit", activation=MatchingPursuit(3))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    members = [gated(), pursuing()]
    paths = train(members, tmp_path_factory.mktemp("runs"))
    return {member.name: path for member, path in zip(members, paths, strict=True)}


@pytest.mark.parametrize(("name", "architecture"), [("gated", "jumprelu"), ("pursuit", "matching_pursuit")])
def test_saelens_loads_it_with_equal_outputs(name: str, architecture: str, runs: dict[str, Path]):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sae_lens = pytest.importorskip("sae_lens")
        theirs = sae_lens.SAE.load_from_disk(str(runs[name]), device="cpu")
    cfg = json.loads((runs[name] / "cfg.json").read_text())
    ours, x = Run.open(runs[name]).dictionary(), held_out(WORLD, 512).x
    assert cfg["architecture"] == architecture
    assert cfg["metadata"]["training_architecture"] in ("gated", "matchingpursuit")
    torch.testing.assert_close(theirs.encode(x), ours.encode(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(theirs(x), ours(x), rtol=0, atol=1e-5)


def test_both_learn(runs: dict[str, Path]):
    for path in runs.values():
        log = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        first, last = (log[i]["metrics/reconstruction/fvu"] for i in (0, -1))
        assert last < 0.9 * first, path.name


def test_resumed_equals_uninterrupted_with_gate_and_with_resampling(tmp_path: Path):
    base = gated()
    members = [replace(base, training=replace(base.training, resample_every=1600, dead_after=480))]
    assert_resumed_equals_whole(members, tmp_path, steps=23, every=7)


def test_a_gated_dictionary_is_a_jumprelu_one_with_the_same_codes():
    made = dictionary(Gated(), shift=0.0)
    with torch.no_grad():
        made.get_parameter("r_mag").copy_(normal(D_SAE, seed=8))
        made.get_parameter("b_mag").copy_(normal(D_SAE, seed=9))
    saved, x = made.for_inference(batch()), batch()
    z = made.encode(x)
    assert (z != 0).any() and (z == 0).any()
    torch.testing.assert_close(saved.encode(x), z)


@pytest.mark.parametrize("path", ["sparse", "dense"])
@pytest.mark.parametrize("activation", [Gated(), MatchingPursuit(4)], ids=str)
def test_sparse_and_dense_codes_and_gradients_agree(activation, path):
    wanted, made = dictionary(activation), dictionary(activation)
    for of in (wanted, made):
        of.tie()
    x = batch()
    z = made.codes(x, path)
    assert isinstance(z, SparseCodes if path == "sparse" else DenseCodes)
    for of, codes in ((wanted, wanted.codes(x, "dense")), (made, z)):
        (of.decode(codes) - x).square().sum().backward()
    for (name, a), (_, b) in zip(wanted.named_parameters(), made.named_parameters(), strict=True):
        if a.requires_grad and a.grad is not None:
            assert b.grad is not None, name
            torch.testing.assert_close(a.grad, b.grad)


def test_pursuit_on_orthonormal_atoms_takes_the_largest_coordinates():
    made = Dictionary(4, 4, MatchingPursuit(2)).double()
    made.W_dec.data.copy_(torch.eye(4))
    made.tie()
    z = made.codes(torch.tensor([[3.0, -5.0, 1.0, 2.0], [0.0, 0.0, 0.5, 0.0]], dtype=torch.float64))
    assert z.dense().tolist() == [[3.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.5, 0.0]]


@pytest.mark.parametrize("path", ["sparse", "dense"])
def test_pursuit_may_choose_an_atom_twice_and_counts_it_once(path):
    made = Dictionary(2, 2, MatchingPursuit(3)).double()
    made.W_dec.data.copy_(torch.tensor([[1.0, 0.0], [-0.6, 0.8]], dtype=torch.float64))
    made.tie()
    # Two of the first leave (0, 1); .8 of the second leave (.48, .36); .48 more of the first.
    codes = made.codes(torch.tensor([[2.0, 1.0]], dtype=torch.float64), path)
    assert codes.dense()[0].tolist() == pytest.approx([2.48, 0.8], abs=1e-6) and float(codes.l0()) == 2


def test_pursuit_stops_at_its_residual_and_scales_with_its_inputs():
    made = dictionary(MatchingPursuit(6, 0.5))
    made.tie()
    x = batch() + made.b_dec
    z = made.codes(x)
    left = torch.linalg.vector_norm(x - made.decode(z), dim=1)
    counts = (z.dense() != 0).sum(1)
    assert (left[counts < 3] < 0.5).all() and counts.max() > counts.min()
    normaliser = Normaliser(torch.zeros(D_IN, dtype=torch.float64), torch.tensor(8.0, dtype=torch.float64))
    folded = normaliser.fold(made)
    assert folded.activation == MatchingPursuit(6, 4.0)


def test_a_tied_encoder_is_not_trained_and_stays_the_atoms():
    made = dictionary(MatchingPursuit(4))
    assert not made.W_enc.requires_grad and not made.b_enc.requires_grad
    made.W_dec.data.mul_(3.0)
    made.renormalise()
    assert torch.equal(made.W_enc, made.W_dec.T) and (made.b_enc == 0).all()


def test_dead_latents_start_at_badly_explained_rows():
    made, x = dictionary(ReLU()), batch()
    dead = torch.zeros(D_SAE, dtype=torch.bool).index_fill(0, torch.tensor([3, 17]), True)
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    new = resample(made, x, dead, stream(0, "resample"))
    assert new.tolist() == [3, 17]
    directions = torch.nn.functional.normalize(x - made.b_dec, dim=1)
    assert ((made.W_dec[new] @ directions.T).amax(1) > 1 - 1e-9).all(), "each is a row's direction"
    size = torch.linalg.vector_norm(before["W_enc"][:, ~dead], dim=0).mean()
    torch.testing.assert_close(made.W_enc[:, new].T, GAIN * size * made.W_dec[new])
    assert torch.equal(made.W_dec[~dead], before["W_dec"][~dead]) and (made.b_enc[new] == 0).all()
    assert (made.encode(x)[:, new] > 0).any(), "they fire again"


def test_rows_explained_perfectly_start_nothing():
    made = Dictionary(3, 3, ReLU()).double()
    made.W_dec.data.copy_(torch.eye(3))
    made.W_enc.data.copy_(torch.eye(3))
    x = torch.rand(5, 3, dtype=torch.float64)
    assert len(resample(made, x, torch.tensor([True, False, False]), stream(0, "resample"))) == 0


def test_training_restarts_what_is_dead_when_it_is_due_and_forgets_its_moments():
    base = experiment(activation=ReLU())
    due = replace(base, training=replace(base.training, resample_every=2 * 160))
    sample = WORLD.sample(1024, seed=3).x
    learner, extra = Learner(due, sample), ExtraInputs(WORLD, 0, 0)
    stream_ = Stream(WORLD, 160, seed=0)
    learner.dictionary.b_enc.data[5] = -100.0
    learner.step(next(stream_), 0, extra)
    learner.dead_latents.since_fired[5] = 10**6
    old = learner.dictionary.W_dec[5].clone()
    assert learner.optimiser.adam.state[learner.optimiser.stored["W_dec"]]["exp_avg"][6].abs().sum() > 0
    learner.step(next(stream_), 1, extra)
    assert learner.dead_latents.since_fired[5] == 0 and learner.dictionary.b_enc[5] == 0
    assert not torch.allclose(learner.dictionary.W_dec[5], old)
    for name in ("W_enc", "b_enc", "W_dec"):
        moments = learner.optimiser.adam.state[learner.optimiser.stored[name]]
        assert (moments["exp_avg"][5] == 0).all() and (moments["exp_avg_sq"][5] == 0).all(), name
    assert learner.optimiser.adam.state[learner.optimiser.stored["W_dec"]]["exp_avg"][6].abs().sum() > 0, (
        "the living keep theirs"
    )


def test_nothing_is_restarted_in_the_last_decay():
    base = experiment(activation=ReLU())
    due = replace(base, training=replace(base.training, resample_every=160))
    learner = Learner(due, WORLD.sample(1024, seed=3).x)
    learner.dead_latents.since_fired[5] = 10**6
    learner.dictionary.b_enc.data[5] = -100.0
    learner.step(next(Stream(WORLD, 160, seed=0)), learner.steps - 2, ExtraInputs(WORLD, 0, 0))
    assert learner.dead_latents.since_fired[5] > 10**6
