"""Processes that train one cohort together: equal to one process, and ended by nothing but a sentence."""

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tests.callbacks import AtProgress
from tests.groups import ends, ranks, start
from tests.small import WORLD, experiment
from tests.terms.test_contract import dictionary, gradients
from tests.terms.test_contract import step as contract_step
from tests.test_train import assert_equal_runs, mixed_cohort, weights
from unbraid import seeding
from unbraid.catalog import terms
from unbraid.dictionary.activations.selection import largest
from unbraid.dictionary.activations.topk import TopK
from unbraid.dictionary.codes import SparseCodes
from unbraid.dictionary.joined_codes import joined_codes
from unbraid.dictionary.weights import Path as Form
from unbraid.experiment.experiment import Experiment
from unbraid.objective.objective import Step, Term, TermOutput
from unbraid.objective.weighted_sum import rows_of
from unbraid.system.group import ALONE, Group
from unbraid.system.neighbour import Neighbour
from unbraid.terms.independence.correlation import Correlation
from unbraid.training.groups import check_alike, check_data, check_equal, check_group
from unbraid.training.loop import train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

STEPS = 12
CLOSE = 2e-6
"""Largest difference of parameters between two processes and one, after a few steps: some roundings of float32."""


def short(of: Experiment) -> Experiment:
    return replace(of, training=replace(of.training, tokens=STEPS * 160, score_every=960, resample_every=960))


def cohort() -> list[Experiment]:
    """Members of every kind, one whose penalty is of the whole batch, and one by the ratio of gradients."""
    more = [
        experiment("correlation", correlation=Correlation(every=2)),
        experiment("ratio", correlation=Correlation(gradient_ratio=0.1)),
    ]
    return [short(member) for member in [*mixed_cohort(), *more]]


def errors(work: Any) -> Any:
    """`work`, whose error is what it gives."""

    def caught(group: Group) -> str:
        try:
            work(group)
        except (ValueError, OSError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    return caught


def test_what_ranks_add_up_gather_and_decide_is_the_same_on_all(tmp_path):
    def work(group: Group) -> list[Any]:
        own = torch.arange(group.rank + 1) + 10 * group.rank
        return [
            group.sum(own[:1]), group.mean(own[:1].float()), group.joined(own), group.joined(own[: group.rank]),
            group.any(group.rank == 1), group.first(group.rank + 5.0), group.counts(group.rank),
            group.texts("é" * group.rank),
            group.named_tensors({"a": own > 0, "b": own.double()} if group.leads else {}), group.share(torch.arange(6)),
        ]  # fmt: skip

    one, other = ranks(work, tmp_path / "group")
    assert one[:9][0].tolist() == [10] and one[1].tolist() == [5.0] and one[2].tolist() == [0, 10, 11]
    assert one[3].tolist() == [10] and one[4:8] == [True, 5.0, [0, 1], ["", "é"]]
    assert one[8]["a"].tolist() == [False] and other[8]["b"].tolist() == [0.0]
    assert str(one[:9]) == str(other[:9])
    assert (one[9].tolist(), other[9].tolist()) == ([0, 1, 2], [3, 4, 5])
    assert ALONE.joined(one[2]) is one[2] and ALONE.mean(one[2]) is one[2]


@pytest.mark.parametrize("bfloat16", [False, True])
def test_batchtopk_chooses_the_largest_of_the_whole_batch_however_they_are_spread(tmp_path, bfloat16, monkeypatch):
    monkeypatch.setattr("unbraid.dictionary.weights.PROPOSED_UP_TO", 1.0)
    of = dictionary(torch.float32, bfloat16=bfloat16)
    # Nearly all of the largest are in the rows of one process.
    x = WORLD.sample(64, seed=0).x * torch.linspace(0.2, 4, 64).unsqueeze(1)

    def chosen(rows: Tensor, group: Group) -> list[Tensor]:
        of.group = group
        values, support = largest(of.chunks(rows), 3)
        of.group = ALONE
        return [values, support.latents, support.offsets.diff()]

    whole = chosen(x, ALONE)
    parts = ranks(lambda group: chosen(group.share(x), group), tmp_path / "group")
    for one, both in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(one, torch.cat(both))
    assert len(parts[0][0]) < len(parts[1][0]) / 2


def assert_shared_out(kinds: dict[str, type[Term]], root: Path) -> None:
    """In float64: the mean of terms over processes, each with a share of the rows, is that of one with all rows."""

    def outcome(term: Term, now: Step, group: Group) -> list[Tensor]:
        out = term(replace(rows_of(now, term), rng=seeding.stream(0, "term"), memory={}))
        return [group.mean(out.loss.detach()), *(group.mean(grad) for grad in gradients(out, now.dictionary).values())]

    def shared_out(kind: type[Term], group: Group) -> list[Tensor]:
        of = dictionary()
        whole = contract_step(of)
        x = group.share(whole.x)
        own = replace(whole, x=x, z=of.codes(x), batch=group.share(whole.batch), group=group, shared={})
        return outcome(kind(), own, group)

    def work(group: Group) -> dict[str, list[Tensor]]:
        return {name: shared_out(kind, group) for name, kind in kinds.items()}

    for name, found in ranks(work, root)[0].items():
        wanted = outcome(kinds[name](), contract_step(dictionary()), ALONE)
        for ours, one in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, one, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


def test_a_term_has_the_gradient_of_the_whole_batch(tmp_path):
    assert_shared_out({name: terms()[name] for name in ("reconstruction", "aux_k", "redundancy")}, tmp_path / "group")


@pytest.mark.slow  # all terms; its quick sibling is the test before
def test_every_term_has_the_gradient_of_the_whole_batch(tmp_path):
    assert_shared_out(terms(), tmp_path / "group")


def test_joined_codes_are_those_of_the_batch_and_carry_the_gradient_of_their_rows(tmp_path):
    x = WORLD.sample(64, seed=0).x.double()
    weights_of = lambda z: torch.arange(z.values.numel(), dtype=torch.float64).view_as(z.values)

    paths: list[Form] = ["sparse", "dense"]

    def work(group: Group) -> list[Tensor]:
        found = []
        for path in paths:
            of = dictionary()
            z = joined_codes(of.codes(group.share(x), path), group)
            (z.values * weights_of(z)).sum().backward()
            assert of.W_enc.grad is not None
            found += [z.dense().detach(), group.mean(of.W_enc.grad)]
        return found

    one, _ = ranks(work, tmp_path / "group")
    of = dictionary()
    for path, z_dense, grad in zip(paths, one[::2], one[1::2], strict=True):
        of.zero_grad()
        z = of.codes(x, path)
        assert isinstance(z, SparseCodes) == (path == "sparse")
        (z.values * weights_of(z)).sum().backward()
        torch.testing.assert_close(z_dense, z.dense().detach())
        torch.testing.assert_close(grad, of.W_enc.grad)


def assert_two_equal_one(members: Sequence[Experiment], root: Path) -> None:
    """Train a cohort by one process and by two: parameters and logs are equal but for rounding."""
    ranks(lambda group: str(train(members, root / "two", checkpoint_steps=5, group=group)), root / "group")
    for one in train(members, root / "one", checkpoint_steps=5):
        two = root / "two" / one.name
        for name, tensor in weights(one).items():
            torch.testing.assert_close(
                weights(two)[name], tensor, rtol=0, atol=CLOSE, msg=lambda t, n=one.name: f"{n}: {t}"
            )
        rows, others = (
            [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)
        )
        assert [row.keys() for row in rows] == [row.keys() for row in others]
        for row, other in zip(rows, others, strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-6)
        assert json.loads((two / "provenance.json").read_text())["processes"] == 2


def test_two_processes_train_what_one_does_and_write_it_once(tmp_path):
    assert_two_equal_one([short(experiment(correlation=Correlation(gradient_ratio=0.1, every=2)))], tmp_path)


@pytest.mark.slow  # the whole cohort; its quick sibling is the test before
def test_two_processes_train_a_cohort_of_every_kind_as_one_does(tmp_path):
    assert_two_equal_one(cohort(), tmp_path)


class Ended(Neighbour):
    """A neighbour that has ended."""

    def __init__(self) -> None:
        self._lost = threading.Event()
        self._lost.set()


def test_one_that_waits_in_vain_sees_that_another_has_ended(tmp_path):
    """gloo itself waits for ever where a process is killed as a message is on its way to it."""
    given = tmp_path / "group" / "0.pt"

    def work(group: Group) -> str:
        if group.leads:
            return errors(lambda group: group.sum(torch.zeros(1)))(replace(group, neighbour=Ended()))
        for _ in range(600):  # takes no part, and is still there
            time.sleep(0.0 if given.exists() else 0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        return ""

    assert ends(start(work, tmp_path / "group")) == [0, -signal.SIGKILL]
    assert "Lost: another of the processes" in torch.load(given, weights_only=True)


@pytest.mark.parametrize("killed", [False, True])
def test_the_next_process_is_lost_when_it_is_killed_and_not_when_it_is_done(tmp_path, killed):
    def work(group: Group) -> bool:
        assert group.neighbour is not None
        if group.rank == 1:
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
            return False
        group.neighbour.part()
        return group.neighbour.lost

    assert ends(start(work, tmp_path / "group")) == [0, -signal.SIGKILL if killed else 0]
    assert torch.load(tmp_path / "group" / "0.pt", weights_only=True) == killed


def killed_and_resumed(
    members: Sequence[Experiment], root: Path, *, at: int, of: Literal["rows", "latents"] = "rows"
) -> None:
    """Train by two processes of which one dies at a step; then again, to the end. `of`: what is shared out to them."""

    def die(group: Group) -> str:
        kill = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done >= at * 160 else None
        dying = [AtProgress(kill)]
        try:
            train(members, root / "killed", checkpoint_steps=3, group=replace(group, of=of), callbacks=dying)
        except ConnectionError as error:
            return str(error)
        return "not killed"

    codes = ends(start(die, root / "group"))
    assert codes == [-signal.SIGKILL, 0], "the first dies, and the other ends by itself"
    said = torch.load(root / "group" / "1.pt", weights_only=True)
    assert "has ended" in said and "--resume" in said and "\n" not in said
    resumed = lambda group: str(
        train(members, root / "killed", resume=True, checkpoint_steps=3, group=replace(group, of=of))
    )
    ranks(resumed, root / "group")
    ranks(lambda group: str(train(members, root / "whole", group=replace(group, of=of))), root / "group")


def test_a_group_of_which_one_was_killed_resumes_bit_for_bit(tmp_path):
    member = short(experiment())
    killed_and_resumed([member], tmp_path, at=8)
    assert_equal_runs(tmp_path / "whole" / member.folder, tmp_path / "killed" / member.folder)


@pytest.mark.slow  # members that keep an L0 target, a radius, ratios; its quick sibling is the test before
def test_a_cohort_of_which_a_process_was_killed_resumes_bit_for_bit(tmp_path):
    members = [member for member in cohort() if member.name in ("jumprelu", "effect", "ratio")]
    assert len(members) == 3
    killed_and_resumed(members, tmp_path, at=8)
    for member in members:
        assert_equal_runs(tmp_path / "whole" / member.folder, tmp_path / "killed" / member.folder)


def test_a_stop_that_one_is_asked_for_stops_all_with_their_checkpoints_written(tmp_path):
    member = short(experiment())

    def work(group: Group) -> str:
        ask = lambda done, total: os.kill(os.getpid(), signal.SIGTERM) if done == 4 * 160 else None
        try:
            train([member], tmp_path / "runs", group=group, callbacks=[AtProgress(ask)])
        except Exception as stop:
            return str(stop)
        return ""

    assert ranks(work, tmp_path / "group") == ["stopped at step 4 of 12; continue with --resume"] * 2
    assert (tmp_path / "runs" / member.folder / "checkpoints" / "4.safetensors").is_file()


@dataclass(frozen=True, kw_only=True)
class Exploding(Term):
    """Not finite from a step on, in the rows of one process alone."""

    family = "control"
    splits = True

    def __call__(self, step: Step) -> TermOutput:
        bad = step.progress >= 0.5 and step.group.rank == 1
        return TermOutput(step.x_hat.square().mean() * (float("nan") if bad else 1.0))


def test_a_member_that_one_process_alone_sees_fail_fails_for_all_and_the_others_go_on(tmp_path):
    members = [short(experiment("bad", exploding=Exploding())), short(experiment("good"))]
    work = errors(lambda group: train(members, tmp_path / "runs", group=group))
    one, other = ranks(work, tmp_path / "group")
    assert one == other and "term 'exploding' gave nan at step 6" in one
    assert (tmp_path / "runs" / members[1].folder / "provenance.json").is_file()


def test_processes_that_differ_are_refused_with_the_first_difference(tmp_path):
    def settings(group: Group) -> None:
        member = experiment()
        check_group([replace(member, training=replace(member.training, lr=1e-3 + group.rank))], {}, group)

    def version(group: Group) -> None:
        check_alike({"version": {"unbraid": f"0.{group.rank}"}}, group)

    def data(group: Group) -> None:
        check_data(WORLD, WORLD.sample(100, seed=group.rank).x, group)

    for work, words in (
        (settings, "training.lr is 0.001 in process 0 and 1.001 in process 1"),
        (version, "version.unbraid is '0.0' in process 0 and '0.1' in process 1"),
        (data, "process 1 reads other activations than process 0"),
    ):
        one, other = ranks(errors(work), tmp_path / "group")
        assert one == other and words in one and one.count("\n") == 0


@dataclass(frozen=True)
class Mine(TopK):
    splits = False


def test_what_a_group_cannot_share_out_is_refused(tmp_path):
    member = experiment()
    for changed, words in (
        (replace(member, training=replace(member.training, batch_size=161)), "set --training.batch-size 160"),
        (replace(member, training=replace(member.training, device="cuda:0")), "set cuda, of which each takes its own"),
        (
            replace(member, dictionary=replace(member.dictionary, activation=Mine(3))),
            "Mine may look at the whole batch",
        ),
    ):
        one, _ = ranks(errors(lambda group, of=changed: check_group([of], {}, group)), tmp_path / "group")
        assert words in one


def test_parameters_that_come_to_differ_end_the_group(tmp_path):
    from unbraid.sources.fitting_sample import fitting_sample
    from unbraid.training.learner import Learner

    def work(group: Group) -> None:
        learner = Learner(experiment(), fitting_sample(WORLD, 0), group=group)
        check_equal({Path("run"): learner}, group)
        learner.dictionary.b_enc.data[0] += 1e-7 * group.rank
        check_equal({Path("run"): learner}, group)

    assert all("run has come to differ" in said for said in ranks(errors(work), tmp_path / "group"))
