"""Latents shared out to processes that train together: equal to one process, with half of everything in each."""

import json
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.callbacks import AtProgress
from tests.groups import ranks
from tests.small import WORLD, experiment
from tests.test_groups import errors, killed_and_resumed
from tests.test_train import assert_equal_runs, weights
from unbraid import seeding
from unbraid.dictionary.activations.batch_topk import BatchTopK
from unbraid.dictionary.activations.gated import Gated
from unbraid.dictionary.activations.jumprelu import JumpReLU
from unbraid.dictionary.activations.relu import ReLU
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import PrincipalComponents
from unbraid.dictionary.latent_shards import BLOCK, own_rows_of_normal
from unbraid.experiment.experiment import Experiment
from unbraid.objective.objective import Objective, TargetL0
from unbraid.objective.step_data import ExtraInputs
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.stream import Stream
from unbraid.system.group import ALONE, Group
from unbraid.terms.dead_latents.aux_k import AuxK, most_active
from unbraid.terms.geometry.orthogonality import Orthogonality
from unbraid.terms.reconstruction.nested_reconstruction import NestedReconstruction
from unbraid.terms.reconstruction.reconstruction import Reconstruction
from unbraid.terms.sparsity.l0 import L0
from unbraid.terms.sparsity.l1 import L1
from unbraid.terms.sparsity.log_cosh import LogCosh
from unbraid.terms.sparsity.lp import Lp
from unbraid.terms.sparsity.tanh import Tanh
from unbraid.training.checkpoint import steps_saved
from unbraid.training.groups import check_group
from unbraid.training.interrupt import Interrupted
from unbraid.training.learner import Learner
from unbraid.training.loop import train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

STEPS = 30
CLOSE = 2e-6
"""Largest difference of parameters between two processes and one, after so many steps: some roundings of float32."""


def by_latents(group: Group) -> Group:
    return replace(group, of="latents")


def short(of: Experiment, **training: Any) -> Experiment:
    given = {"tokens": STEPS * 160, "score_every": 1600, "dead_after": 160, **training}
    return replace(of, training=replace(of.training, **given))


def controlled() -> Experiment:
    """JumpReLU with an L0 target: thresholds learn, and dead latents are revived."""
    penalties = {"sparsity": L0(), "aux_k": AuxK()}
    objective = Objective(
        reconstruction=Reconstruction(), penalties=penalties, target_l0=TargetL0(l0=3.0, penalty="sparsity")
    )
    return replace(experiment("jumprelu", activation=JumpReLU()), objective=objective)


def cohort() -> list[Experiment]:
    """Every activation and every penalty whose latents can be shared out."""
    sums = {"l1": L1(weight=0.01), "tanh": Tanh(weight=0.01), "log_cosh": LogCosh(weight=0.01), "lp": Lp(weight=0.01)}
    held = experiment("held")
    members = [
        experiment("topk", activation=TopK(2)),
        experiment("wide", activation=TopK(40)),  # more than a process has
        experiment("batchtopk", activation=BatchTopK(3, first_k=4.0)),
        controlled(),
        experiment("relu", activation=ReLU(), **sums),
        replace(held, dictionary=replace(held.dictionary, min_cosine_to_init=0.9, aligned=True)),
    ]
    return [short(member) for member in members]


def logged(run: Path) -> list[dict[str, float]]:
    return [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]


def assert_shards_equal_one(members: Sequence[Experiment], root: Path) -> None:
    """Train a cohort by one process and by two with half of the latents each: equal but for rounding."""
    together = lambda group: str(train(members, root / "two", checkpoint_steps=7, group=by_latents(group)))
    ranks(together, root / "group")
    for one in train(members, root / "one", checkpoint_steps=7):
        two = root / "two" / one.name
        for name, tensor in weights(one).items():
            torch.testing.assert_close(
                weights(two)[name], tensor, rtol=0, atol=CLOSE, msg=lambda text, run=one.name: f"{run}: {text}"
            )
        rows, others = logged(one), logged(two)
        assert [row.keys() for row in rows] == [row.keys() for row in others]
        for row, other in zip(rows, others, strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-5)
        provenance = json.loads((two / "provenance.json").read_text())
        assert (provenance["processes"], provenance["shared_out"]) == (2, "latents")


def test_two_processes_with_half_of_the_latents_each_train_what_one_does(tmp_path):
    member = short(experiment("topk", activation=TopK(2)))
    assert_shards_equal_one([member], tmp_path)
    dead = [row["sparsity/dead"] for row in logged(tmp_path / "one" / member.folder)]
    assert max(dead) > 3, "AuxK has had something to do"


@pytest.mark.slow  # a cohort of every kind; its quick sibling is the test before
def test_every_activation_and_penalty_that_can_be_shared_out_is_trained_as_by_one_process(tmp_path):
    assert_shards_equal_one(cohort(), tmp_path)


def test_processes_agree_on_the_largest_of_all_latents(tmp_path):
    x = WORLD.sample(40, seed=0).x * torch.linspace(0.2, 4, 40).unsqueeze(1)
    dead = torch.arange(30, 64)  # two in one process, 32 in the other

    def found(of: Dictionary, some: Tensor) -> list[Tensor]:
        codes = [activation.encode(of, x, "auto").dense() for activation in (TopK(3), TopK(50), BatchTopK(3))]
        of_dead = [most_active(of, x, some, k).dense() for k in (3, 20, 34)]
        return [code.detach() for code in [*codes, *of_dead, most_active(of, x, some[:2], 2).dense()]]

    def of_process(group: Group) -> list[Tensor]:
        own, first = half(group), 32 * group.rank
        return found(own, dead[(dead >= first) & (dead < first + 32)] - first)

    halves = ranks(of_process, tmp_path / "group")
    for whole, *parts in zip(found(half(ALONE), dead)[:6], *(part[:6] for part in halves), strict=True):
        assert torch.equal(whole != 0, torch.cat(parts, 1) != 0)
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-6)
    assert not (halves[0][3] == 0).all(), "both processes have dead latents that are chosen"


def half(group: Group) -> Dictionary:
    """The same dictionary of 64 latents, or this process's half of it."""
    own = Dictionary(16, 64 // group.size, TopK(3))
    own.shards = by_latents(group) if group.size > 1 else ALONE
    atoms = torch.randn(64, 16, generator=seeding.stream(0, "atoms")).chunk(group.size)[group.rank]
    own.W_enc.data.copy_(atoms.T)
    own.W_dec.data.copy_(atoms)
    return own


def test_one_process_without_dead_latents_takes_part_in_choosing_among_the_others(tmp_path):
    x = WORLD.sample(40, seed=0).x

    def chosen(of: Dictionary, some: Tensor) -> Tensor:
        return of.written(most_active(of, x, some, 5)).detach()

    work = lambda group: chosen(half(group), torch.arange(20) if group.leads else torch.arange(0))
    one, other = ranks(work, tmp_path / "group")
    assert torch.equal(one, other), "sums over processes are the same in all"
    torch.testing.assert_close(one, chosen(half(ALONE), torch.arange(20)))


@pytest.mark.parametrize("width", [64, 2 * BLOCK, 3 * BLOCK + 40])
def test_processes_draw_together_what_one_draws(width):
    whole = torch.randn(width, 5, generator=seeding.stream(0, "init"))
    drawn = [own_rows_of_normal(width // 2, 5, seeding.stream(0, "init"), Group(rank, 2)) for rank in range(2)]
    assert torch.equal(torch.cat(drawn), whole)


class Largest(TorchDispatchMode):
    """The number of entries of the largest tensor that any operation makes."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, list | tuple) else [out]
        self.entries = max(self.entries, *(one.numel() for one in made if isinstance(one, Tensor)), 0)
        return out


def test_no_process_has_more_than_its_share_of_weights_gradients_and_moments(tmp_path):
    wide = experiment(activation=TopK(3))
    wide = replace(
        wide,
        dictionary=replace(wide.dictionary, d_sae=1024),
        training=replace(wide.training, batch_size=8, tokens=8 * 8, dead_after=16),
    )
    entries = 1024 * WORLD.d_in  # of a matrix of weights

    def sizes(group: Group) -> list[int]:
        sample, stream = fitting_sample(WORLD, 0)[:256], Stream(WORLD, 8, seed=0)
        batches = [next(stream) for _ in range(4)]
        with Largest() as largest:
            learner = Learner(wide, sample, group=group)
            for index, batch in enumerate(batches):
                learner.step(batch, index, ExtraInputs(WORLD, 0, index))
        return [largest.entries, sum(tensor.numel() for tensor in learner.state().values())]

    largest, state = sizes(ALONE)
    assert largest == entries
    for own_largest, own_state in ranks(lambda group: sizes(by_latents(group)), tmp_path / "group"):
        assert own_largest == entries // 2
        assert state / 2 < own_state < state / 2 + 10 * WORLD.d_in, "all have b_dec and the normalisation"


def test_processes_with_latents_of_which_one_was_killed_resume_bit_for_bit(tmp_path):
    member = replace(short(experiment(activation=TopK(2))), name="killed")
    killed_and_resumed([member], tmp_path, at=8, of="latents")
    assert_equal_runs(tmp_path / "whole" / member.folder, tmp_path / "killed" / member.folder)


@pytest.mark.slow  # four trainings; its quick sibling is the test before
def test_a_checkpoint_of_two_processes_is_continued_by_one_and_by_four(tmp_path):
    member = short(experiment(activation=TopK(2)))

    def stop(group: Group) -> None:
        ask = lambda done, total: os.kill(os.getpid(), signal.SIGTERM) if done == 10 * 160 else None
        train([member], tmp_path / "one", group=by_latents(group), callbacks=[AtProgress(ask)])

    def stopped(group: Group) -> str:
        try:
            stop(group)
        except Interrupted as error:
            return str(error)
        return ""

    assert ranks(stopped, tmp_path / "group") == ["stopped at step 10 of 30; continue with --resume"] * 2
    assert steps_saved(tmp_path / "one" / member.folder) == [10]
    shutil.copytree(tmp_path / "one", tmp_path / "four")
    (one,) = train([member], tmp_path / "one", resume=True)
    go_on = lambda group: str(train([member], tmp_path / "four", resume=True, group=by_latents(group)))
    ranks(go_on, tmp_path / "group", size=4)
    (whole,) = train([member], tmp_path / "whole")
    for name, tensor in weights(whole).items():
        for run in (one, tmp_path / "four" / one.name):
            torch.testing.assert_close(weights(run)[name], tensor, rtol=0, atol=CLOSE)


def test_what_cannot_be_shared_out_by_latents_is_refused_before_anything_is_written(tmp_path):
    member = experiment()
    of = lambda **dictionary: replace(member, dictionary=replace(member.dictionary, **dictionary))
    nested = replace(member.objective, reconstruction=NestedReconstruction())
    trained = lambda **training: replace(member, training=replace(member.training, **training))
    cases = {
        "65 latents are not 2 equal shares: set --dictionary.d-sae 64": of(d_sae=65),
        "Gated may look at all latents together": of(activation=Gated()),
        "PrincipalComponents starts all latents together": of(init=PrincipalComponents(), d_sae=32),
        "term 'reconstruction' (NestedReconstruction) may look at latents together": replace(member, objective=nested),
        "term 'apart' (Orthogonality) may look at latents together": experiment(apart=Orthogonality()),
        "the weight of 'l1' is set by the gradients": experiment(activation=ReLU(), l1=L1(gradient_ratio=0.1)),
        "set --dictionary.orthonormal-blocks 0": of(orthonormal_blocks=8),
        "set --training.matmul float32": trained(matmul="bfloat16"),
        "set --training.resample-every 0": trained(resample_every=1600),
    }

    def refused(group: Group) -> list[str]:
        work = lambda case: errors(lambda group: train([case], tmp_path / "runs", group=by_latents(group)))(group)
        return [work(case) for case in cases.values()]

    one, other = ranks(refused, tmp_path / "group")
    assert one == other
    for said, words in zip(one, cases, strict=True):
        assert words in said and said.endswith("without --shard-latents") and said.count("\n") == 0
    assert not (tmp_path / "runs").exists()
    check_group([trained(batch_size=161)], {}, Group(of="latents"))
