import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.callbacks import AtProgress
from tests.kills import forked
from tests.small import WORLD, experiment, seeded
from unbraid.config.serialise import to_json
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.codes import DenseCodes, SparseCodes
from unbraid.dictionary.config import DictionaryConfig
from unbraid.dictionary.initialisation import PrincipalComponents
from unbraid.experiment.experiment import Experiment
from unbraid.objective.objective import Objective, TargetL0
from unbraid.objective.step_data import ExtraInputs
from unbraid.runs.run import Run
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.tensor import Activations
from unbraid.terms.causal.effect import Effect
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.l0 import L0
from unbraid.terms.sparsity.l1 import L1
from unbraid.training.checkpoint import steps_saved
from unbraid.training.learner import Learner
from unbraid.training.loop import train, train_folders
from unbraid.training.schedule import schedule


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "sae_weights.safetensors")


def assert_equal_runs(left: Path, right: Path) -> None:
    ours, theirs = weights(left), weights(right)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def mixed_cohort() -> list[Experiment]:
    """One member of every kind: each must be unmoved by its neighbours, and survive a kill."""
    matryoshka = replace(experiment("nested").objective, reconstruction=NestedReconstruction())
    controlled = Objective(
        reconstruction=Reconstruction(), penalties={"sparsity": L0()}, target_l0=TargetL0(l0=3.0, penalty="sparsity")
    )
    return [
        experiment("plain"),
        experiment("relu", activation=ReLU(), sparsity=L1(weight=0.05)),
        experiment("topk", activation=TopK(3), orthogonality=Orthogonality(every=3)),
        replace(experiment("jumprelu", activation=JumpReLU()), objective=controlled),
        replace(experiment("nested"), objective=matryoshka),
        experiment("effect", effect=Effect(every=4, columns=4)),
        seeded(experiment("plain"), 1),
    ]


def test_folders_are_named_by_the_caller_and_hold_one_experiment(tmp_path):
    mine, other = tmp_path / "mine", replace(experiment(), seed=3)
    train_folders({mine: experiment()})
    (named,) = train([experiment()], tmp_path / "runs")
    assert_equal_runs(mine, named)
    before = (mine / "provenance.json").stat().st_mtime_ns
    train_folders({mine: experiment()})
    assert (mine / "provenance.json").stat().st_mtime_ns == before, "a finished run of the same is left as it is"
    for resume, overwrite in ((False, False), (True, False), (False, True)):
        with pytest.raises(
            ValueError, match=r"mine holds a finished run of another experiment \(seed is 0 there and 3"
        ):
            train_folders({mine: other}, resume=resume, overwrite=overwrite)


def test_an_unfinished_run_of_another_experiment_is_not_continued(tmp_path):
    mine, other = tmp_path / "mine", replace(experiment(), name="other")
    mine.mkdir()
    (mine / "experiment.json").write_text(json.dumps(to_json(other)))
    with pytest.raises(ValueError, match=r"unfinished run of another experiment \(name is 'other' there and 'small'"):
        train_folders({mine: experiment()}, resume=True)
    train_folders({mine: experiment()}, overwrite=True)
    assert Run.open(mine).experiment == experiment()


def test_one_folder_for_two_experiments_is_refused(tmp_path):
    both = {tmp_path / "mine": experiment(), tmp_path / "x" / ".." / "mine": experiment("other")}
    with pytest.raises(ValueError, match="are the same folder; give each its own"):
        train_folders(both)


def test_training_lowers_the_loss(tmp_path):
    (folder,) = train([experiment(tokens=32_000)], tmp_path)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["metrics/reconstruction/fvu"] < 0.5 * rows[0]["metrics/reconstruction/fvu"]
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert rows[-1]["step"] == 199 and rows[-1]["tokens"] == 32_000


def test_every_member_of_a_cohort_equals_training_it_alone_bit_for_bit(tmp_path, whole):
    for experiment_, folder in zip(mixed_cohort(), whole, strict=True):
        (alone,) = train([experiment_], tmp_path / "alone")
        assert_equal_runs(folder, alone)


def test_seeds_change_the_result(tmp_path):
    first, second = train([experiment(), seeded(experiment(), 1)], tmp_path)
    assert not torch.equal(weights(first)["W_dec"], weights(second)["W_dec"])


def test_a_finished_run_is_not_trained_again(tmp_path):
    (folder,) = train([experiment()], tmp_path)
    before = (folder / "sae_weights.safetensors").stat().st_mtime_ns
    assert train([experiment()], tmp_path) == [folder]
    assert (folder / "sae_weights.safetensors").stat().st_mtime_ns == before


def test_an_unfinished_run_needs_a_word_from_the_user(tmp_path):
    folder = tmp_path / experiment().folder
    folder.mkdir()
    (folder / "experiment.json").write_text("{}")
    with pytest.raises(ValueError, match="--resume, or start anew with --overwrite"):
        train([experiment()], tmp_path)
    train([experiment()], tmp_path, overwrite=True)
    assert (folder / "provenance.json").is_file()


def train_until(how: signal.Signals, members: list[Experiment], root: Path, *, step: int, every: int) -> int:
    """The exit status of a process that trains these and gets a signal after a step."""

    def watch(tokens: int, total: int) -> None:
        if tokens >= 160 * step:
            os.kill(os.getpid(), how)

    status = forked(lambda: train(members, root, checkpoint_steps=every, callbacks=[AtProgress(watch)]))
    return os.waitstatus_to_exitcode(status)


def run_until(how: signal.Signals, root: Path) -> int:
    return train_until(how, mixed_cohort(), root, step=23, every=10)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[Path]:
    """The mixed cohort as nobody killed it."""
    return train(mixed_cohort(), tmp_path_factory.mktemp("whole"))


def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, whole):
    assert run_until(signal.SIGKILL, tmp_path / "killed") == -signal.SIGKILL
    resumed = train(mixed_cohort(), tmp_path / "killed", resume=True)
    for left, right in zip(whole, resumed, strict=True):
        assert_equal_runs(left, right)
        steps = [json.loads(line)["step"] for line in (right / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(40)), "the log holds every step once"
        assert not (right / "checkpoints").exists()


def test_a_kill_between_two_members_checkpoints_goes_back_to_the_step_all_have(tmp_path, whole):
    assert run_until(signal.SIGKILL, tmp_path / "killed") == -signal.SIGKILL
    first = tmp_path / "killed" / mixed_cohort()[0].folder
    last = tmp_path / "killed" / mixed_cohort()[-1].folder
    assert sorted(steps_saved(first)) == sorted(steps_saved(last)) == [10, 20]
    (last / "checkpoints" / "20.safetensors").unlink()
    for left, right in zip(whole, train(mixed_cohort(), tmp_path / "killed", resume=True), strict=True):
        assert_equal_runs(left, right)


def test_a_truncated_checkpoint_is_named_and_the_one_before_gone_on_with(tmp_path, whole, caplog):
    run_until(signal.SIGKILL, tmp_path / "killed")
    path = tmp_path / "killed" / mixed_cohort()[0].folder / "checkpoints" / "20.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    for left, right in zip(whole, train(mixed_cohort(), tmp_path / "killed", resume=True), strict=True):
        assert_equal_runs(left, right)
    assert "20.safetensors is damaged" in caplog.text and "goes on from step 10" in caplog.text


def test_sigterm_saves_and_says_how_to_go_on(tmp_path, whole):
    assert run_until(signal.SIGTERM, tmp_path / "stopped") == 1
    folder = tmp_path / "stopped" / mixed_cohort()[0].folder
    assert 23 in steps_saved(folder)
    for left, right in zip(whole, train(mixed_cohort(), tmp_path / "stopped", resume=True), strict=True):
        assert_equal_runs(left, right)


def test_members_that_cannot_share_a_stream_are_refused(tmp_path):
    other = replace(experiment("other"), training=replace(experiment().training, batch_size=80))
    with pytest.raises(ValueError, match="other-l0_3 and small-l0_3 differ in \\['training.batch_size'\\]"):
        train([experiment(), other], tmp_path)


def test_a_term_that_is_not_finite_names_itself_and_keeps_the_last_checkpoint(tmp_path):
    bad = experiment(sparsity=L1(weight=1.0))
    cohort = [replace(bad, training=replace(bad.training, lr=1e30, clip=1e30))]
    with pytest.raises(ValueError, match="term '(reconstruction|sparsity)' gave (nan|inf) at step \\d+"):
        train(cohort, tmp_path, checkpoint_steps=1)
    saved = tmp_path / cohort[0].folder / "checkpoints"
    assert list(saved.glob("*.safetensors"))


def test_a_slice_term_on_a_source_without_a_model_stops_before_training(tmp_path):
    slice_term = replace(experiment(effect=Effect()), source=Activations(WORLD.sample(4096, seed=0).x))
    with pytest.raises(ValueError, match="term 'effect' reads contexts, but .*LanguageModel or World"):
        train([slice_term], tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*/metrics.jsonl"))


@pytest.mark.slow
def test_the_controller_brings_l0_to_its_target(tmp_path):
    controlled = Objective(reconstruction=Reconstruction(), penalties={"sparsity": L1()}, target_l0=TargetL0(l0=4.0))
    base = replace(experiment(activation=ReLU(), tokens=160_000), objective=controlled)
    (folder,) = train([base], tmp_path)
    rows = [json.loads(line)["metrics/l0"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sum(rows[-30:]) / 30 == pytest.approx(4.0, rel=0.15)


def test_a_controller_without_its_penalty_is_refused():
    with pytest.raises(ValueError, match="penalty 'sparsity', but there are \\[\\]"):
        Objective(reconstruction=Reconstruction(), target_l0=TargetL0(penalty="sparsity"))


def test_dead_latents_are_counted_in_tokens():
    learner = Learner(experiment(activation=TopK(1)), fitting_sample(WORLD, 0))
    with torch.no_grad():
        learner.dictionary.b_enc[:60] = -1e3
    block = WORLD.block(0, split="train", seed=0)
    assert block is not None
    dead = [
        int(learner.step(block.rows[:160], index, ExtraInputs(WORLD, 0, index))["sparsity/dead"]) for index in range(12)
    ]
    assert dead[9] == 0 and dead[10] >= 60, "1,600 tokens are 10 steps of 160"


def test_steps_that_are_not_logged_train_alike():
    block = WORLD.block(0, split="train", seed=0)
    assert block is not None
    learners = [Learner(experiment(), fitting_sample(WORLD, 0)) for _ in range(2)]
    for index in range(5):
        rows, extra = block.rows[160 * index : 160 * (index + 1)], ExtraInputs(WORLD, 0, index)
        logged, silent = (
            learner.step(rows, index, extra, logged=said) for learner, said in zip(learners, (True, False), strict=True)
        )
        assert "metrics/reconstruction/fvu" in logged and silent == {}
    states = [learner.state() for learner in learners]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0, equal_nan=True)  # a controller that is off has NaN


def test_atoms_have_unit_norm_after_every_step():
    learner = Learner(experiment(), fitting_sample(WORLD, 0))
    block = WORLD.block(0, split="train", seed=0)
    assert block is not None
    for index in range(5):
        learner.step(block.rows[:160], index, ExtraInputs(WORLD, 0, index))
        assert torch.allclose(learner.dictionary.W_dec.norm(dim=1), torch.ones(64), atol=1e-6)


def test_clipping_and_the_fused_optimiser_equal_plain_torch():
    torch.manual_seed(0)
    learner = Learner(experiment(activation=TopK(3)), fitting_sample(WORLD, 0))
    reference = DictionaryConfig(d_sae=64, activation=TopK(3)).build(
        learner.normaliser(fitting_sample(WORLD, 0)), seed=0
    )
    optimiser = torch.optim.Adam([p for p in reference.parameters() if p.requires_grad], lr=1e-3)
    block = WORLD.block(0, split="train", seed=0)
    assert block is not None
    for index in range(6):
        rows = block.rows[160 * index : 160 * (index + 1)]
        learner.step(rows, index, ExtraInputs(WORLD, 0, index))
        x = learner.normaliser(rows.x)
        loss = (reference.decode(reference.codes(x, "dense")) - x).square().sum() / 160
        loss.backward()
        reference.project_gradient()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimiser.param_groups[0]["lr"] = 1e-3 * schedule(index, 40, learner.experiment.training)
        optimiser.step()
        optimiser.zero_grad()
        reference.renormalise()
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(learner.dictionary.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_the_schedule_rises_holds_and_falls():
    training = replace(experiment().training, warmup=0.1, decay=0.2)
    rates = [schedule(index, 100, training) for index in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0 and rates[50] == 1.0
    assert rates[90] == pytest.approx(0.5) and rates[99] == pytest.approx(0.05)


def test_untrained_controls_keep_their_initial_atoms(tmp_path):
    base = experiment("pca", activation=TopK(3))
    pca = replace(
        base,
        dictionary=replace(base.dictionary, d_sae=32, init=PrincipalComponents()),
        training=replace(base.training, tokens=0),
    )
    (folder,) = train([pca], tmp_path)
    atoms = Run.open(folder).dictionary().W_dec
    gram = atoms[::2] @ atoms[::2].T
    assert torch.allclose(gram, torch.eye(16), atol=1e-5) and torch.allclose(atoms[::2], -atoms[1::2])


def test_a_frozen_decoder_does_not_move(tmp_path):
    base = experiment("frozen")
    frozen = replace(base, dictionary=replace(base.dictionary, frozen=("W_dec",)))
    untrained = replace(base, name="untrained", training=replace(base.training, tokens=0))
    left, right = train([frozen, untrained], tmp_path)
    assert torch.equal(weights(left)["W_dec"], weights(right)["W_dec"])
    assert not torch.equal(weights(left)["W_enc"], weights(right)["W_enc"])


@pytest.mark.slow
def test_bfloat16_products_train_nearly_as_float32_does(tmp_path, monkeypatch):
    monkeypatch.setattr("unbraid.dictionary.weights.PROPOSED_UP_TO", 1.0)
    base = experiment(tokens=32_000)
    low = replace(base, name="low", training=replace(base.training, matmul="bfloat16"))
    losses = []
    for folder in train([base, low], tmp_path):
        assert all(t.dtype == torch.float32 for t in weights(folder).values())
        losses.append(json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["losses/reconstruction"])
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


@pytest.mark.parametrize(("dense_above", "form"), [(None, SparseCodes), (0.0, DenseCodes), (1.0, SparseCodes)])
def test_the_share_of_active_latents_above_which_steps_are_dense_is_a_setting(dense_above, form):
    base = experiment("topk", activation=TopK(3))
    chosen = replace(base, training=replace(base.training, dense_above=dense_above))
    rows = fitting_sample(WORLD, 0)
    of = Learner(chosen, rows)
    assert isinstance(of.dictionary.codes(of.normaliser(rows)), form)


def test_a_gradient_that_is_not_finite_leaves_the_parameters_alone():
    learner = Learner(experiment(), fitting_sample(WORLD, 0))
    block = WORLD.block(0, split="train", seed=0)
    assert block is not None
    before = {name: value.clone() for name, value in learner.dictionary.state_dict().items()}
    learner.dictionary.b_enc.register_hook(lambda grad: grad * torch.nan)
    with pytest.raises(ValueError, match="gradient of b_enc is not finite at step 0"):
        learner.step(block.rows[:160], 0, ExtraInputs(WORLD, 0, 0))
    assert all(torch.equal(value, before[name]) for name, value in learner.dictionary.state_dict().items())
