"""The loop; there is one. It trains a cohort of dictionaries on one stream of activations.

Members share the source, the batch size and the order of data, so the language model runs once for all of them; nothing
else is shared, and each result equals training that member alone, bit for bit on the CPU: a member that fails drops
out, and the others go on as if it had not been there. Everything random is a function of (seed, name, step), so a
checkpoint needs parameters, moments, counters and a position, and no generator's state.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from unbraid.config.serialise import check_stored
from unbraid.config.settings import NonNegativeFloat, NonNegativeInt, checked
from unbraid.experiment.experiment import Experiment
from unbraid.objective.step_data import ExtraInputs
from unbraid.objective.weighted_sum import NotFinite
from unbraid.runs.failure import failure, mark_failed
from unbraid.runs.provenance import machine
from unbraid.sources.base import Batch
from unbraid.sources.first_block import reading_once
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.stream import Position, Stream
from unbraid.system.group import ALONE, Apart, Group
from unbraid.system.locks import held
from unbraid.system.stopping import StopRequest, stopping
from unbraid.training.callbacks import Callback, Callbacks
from unbraid.training.checkpoint import Due
from unbraid.training.checks import check_finished, check_needs, check_shared, check_unfinished
from unbraid.training.cohort import (
    MEMBER_ERRORS,
    Failed,
    clear_finished,
    prepare_run_folder,
    resume_learners,
    start_learners,
)
from unbraid.training.finite_checks import FoundLate
from unbraid.training.groups import check_data, check_equal, check_group, failures_of_group, left_of_group
from unbraid.training.held_out_scores import HeldOutScores
from unbraid.training.interrupt import Interrupted, interrupted_at
from unbraid.training.learner import Learner
from unbraid.training.saving import save_checkpoints, save_runs
from unbraid.training.schedule import steps
from unbraid.training.step_log import StepLog


def train(
    cohort: Sequence[Experiment],
    root: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    checkpoint_seconds: float = 120.0,
    checkpoint_steps: int = 0,
    callbacks: Callback | Sequence[Callback] = (),
    group: Group = ALONE,
) -> list[Path]:
    """Train every experiment of `cohort` that has no finished run under `root`; the run folders, in order.

    A folder is called by its experiment's name, seed and fingerprint. All else is as in `train_folders`."""
    folders = folders_of(cohort, root)
    train_folders(
        folders, resume=resume, overwrite=overwrite, callbacks=callbacks,
        checkpoint_seconds=checkpoint_seconds, checkpoint_steps=checkpoint_steps, group=group,
    )  # fmt: skip
    return list(folders)


def folders_of(experiments: Sequence[Experiment], root: Path | str) -> dict[Path, Experiment]:
    """Return experiments by the folder that each is trained into. Raises ValueError for one that is named twice."""
    found: dict[Path, Experiment] = {}
    for experiment in experiments:
        check_stored(experiment, experiment.name)  # a folder's name is made of what is stored
        folder = Path(root) / experiment.folder
        if folder in found:
            raise ValueError(f"{folder.name} is requested twice, the same in all its settings; name it once")
        found[folder] = experiment
    return found


def train_folders(
    folders: Mapping[Path, Experiment],
    *,
    resume: bool = False,
    overwrite: bool = False,
    checkpoint_seconds: float = 120.0,
    checkpoint_steps: int = 0,
    callbacks: Callback | Sequence[Callback] = (),
    group: Group = ALONE,
) -> None:
    """Train every experiment, each in its folder, on one stream of activations.

    Experiments must share source, batch_size, device and order of data (`cohorts` groups those that do). A finished run
    of the same experiment is left as it is; a folder that holds another experiment is an error, and so is an unfinished
    run unless `resume` (continue it) or `overwrite` (start anew, whatever it was), and a folder that another process is
    writing (`Held`). A checkpoint is written every `checkpoint_seconds`, or every `checkpoint_steps` when that is not
    0, and on SIGTERM or SIGINT, which then raise `Interrupted`. `callbacks` are called as training goes on.

    A member whose initialisation or step raises one of `MEMBER_ERRORS` drops out, marked (`failure`) and with the
    checkpoints it has; once the others are finished, `Failed` says why. It is not tried again but by `overwrite`.

    `group`: processes that all call this with the same arguments, and share every batch out, or the latents. The first
    of them alone reads and writes folders, and calls `callbacks`. When one ends, the others raise `Lost`.
    """
    checked("checkpoint_seconds", checkpoint_seconds, NonNegativeFloat)
    checked("checkpoint_steps", checkpoint_steps, NonNegativeInt)
    called = Callbacks(callbacks if group.leads else ())
    for experiment in folders.values():
        check_stored(experiment, experiment.name)
    if not folders:
        raise ValueError("there is no experiment to train; name one or more")
    check_shared(list(folders.values()))
    flags = {"resume": resume, "overwrite": overwrite, "checkpoint_steps": checkpoint_steps}
    check_group(list(folders.values()), flags, group)
    if group.leads:
        clear_finished(list(folders))
        check_finished(folders)
    anew = overwrite and not resume
    todo = left_of_group(folders, group, anew=anew)
    if todo:
        check_needs(list(todo.values()))
        with held(todo if group.leads else ()), stopping() as stop, reading_once():
            # Asked again: another process may have finished some before it let them go.
            todo = left_of_group(folders, group, anew=anew)
            if group.leads:
                check_unfinished(todo, resume=resume, overwrite=overwrite)
            try:
                sample = _first_sample(todo, group)  # what it refuses, it refuses before a folder is written to
                for folder, experiment in todo.items() if group.leads else ():
                    prepare_run_folder(folder, experiment, resume=resume)
                _trained(todo, sample, called, lambda: Due(checkpoint_seconds, checkpoint_steps), stop, group)
            except KeyboardInterrupt:
                raise Interrupted("stopped") from None
            if group.any(stop.requested):
                raise Interrupted("stopped after the last step; what was trained is saved", unfinished=False)
    if reasons := failures_of_group(folders, group):
        raise Failed(reasons)


def _first_sample(todo: Mapping[Path, Experiment], group: Group) -> Tensor:
    """Return the rows that members start from; none where nobody is left to train."""
    if not todo:
        return torch.empty(0)
    first = next(iter(todo.values()))
    tokens = max(steps(member.training) for member in todo.values()) * first.training.batch_size
    sample = fitting_sample(first.source, first.data_seed, tokens)
    check_data(first.source, sample, group)
    return sample


def _trained(
    todo: Mapping[Path, Experiment],
    sample: Tensor,
    callbacks: Callback,
    due: Callable[[], Due],
    stop: StopRequest,
    group: Group,
) -> None:
    """Train members whose folders this process, or the first of its group, holds, and save them."""
    if not todo:
        return
    made_by, first = machine(), next(iter(todo.values()))
    callbacks.on_start(list(todo.values()), max(steps(member.training) for member in todo.values()))
    try:
        learners = start_learners(todo, sample, callbacks, due, group)
        if learners:
            stream = Stream(first.source, first.training.batch_size, seed=first.data_seed)
            start, spent = resume_learners(learners, stream, group)
            started = time.monotonic() - spent
            log = StepLog(callbacks, HeldOutScores(first.source, sample, first.training.device))
            with stop.gently("stopping after this step …"):
                _loop(learners, stream, start, log, due(), started, stop)
            with stop.gently("stopping once what is trained is saved …"):
                check_equal(learners, group)
                if group.leads:
                    save_runs(learners, stream, sample, made_by, time.monotonic() - started, callbacks)
                else:
                    for learner in learners.values():
                        learner.finished()  # gives the first its latents, where each has some
    finally:
        callbacks.on_close()


def _loop(
    learners: dict[Path, Learner],
    stream: Stream,
    start: int,
    log: StepLog,
    due: Due,
    started: float,
    stop: StopRequest,
) -> None:
    """Train to the end. Members that fail are removed from `learners`. When a signal asks to stop, the loop stops
    before the next member and writes checkpoints; so do all of a group when one of them gets it."""
    last, one = max(learner.steps for learner in learners.values()), next(iter(learners.values()))
    training, group = one.experiment.training, one.group
    for index in range(start, last):
        going = {folder: learner for folder, learner in learners.items() if index < learner.steps}
        if not going:
            break  # those that had more to do have failed
        before = _copied(stream.position)
        try:
            # Reading may take minutes, and moves no member. A group ends together, after a step.
            with stop.at_once() if group.alone else nullcontext():
                batch = group.rows.share(next(stream)).to(training.device)
        except KeyboardInterrupt:
            _save(learners, dict.fromkeys(learners, (index, before)), started, log)
            raise interrupted_at(index, last) from None
        extra = ExtraInputs(stream.source, stream.seed, index)
        left = dict(going)
        while left and not group.any(stop.requested):
            folder, learner = next(iter(left.items()))
            del left[folder]
            if index >= learner.begins and not _stepped(folder, learner, batch, index, extra, stream.position, log):
                del learners[folder]
        if not left:
            log.callbacks.on_progress((index + 1) * training.batch_size, last * training.batch_size)
        if index + 1 < last and (group.first(due.now(index + 1)) or group.any(stop.requested)):
            at = {folder: (index, before) if folder in left else (index + 1, stream.position) for folder in learners}
            _save(learners, at, started, log)
            if group.any(stop.requested):
                raise interrupted_at(index + 1, last)


def _stepped(
    folder: Path, learner: Learner, batch: Batch, index: int, extra: ExtraInputs, position: Position, log: StepLog
) -> bool:
    """Make one step of one member; return False when it failed and is marked so."""
    metrics: dict[str, Tensor] = {}
    due = log.due(learner, index)

    def step() -> None:
        metrics.update(learner.step(batch, index, extra, logged=due))
        if due:
            learner.check()

    if not _survived(folder, learner, index, step, log):
        return False
    if due:
        log.step(folder, learner, index, metrics, position)
    return True


def _save(learners: dict[Path, Learner], at: Mapping[Path, tuple[int, Position]], started: float, log: StepLog) -> None:
    """Write checkpoints. Members of which it now shows that they have failed are removed from `learners` instead."""
    for folder, learner in list(learners.items()):
        if not _survived(folder, learner, at[folder][0], learner.check, log):
            del learners[folder]
    group = next((learner.group for learner in learners.values()), ALONE)
    check_equal(learners, group)
    save_checkpoints(learners, {folder: at[folder] for folder in learners}, started, group)


def _survived(folder: Path, learner: Learner, index: int, act: Callable[[], None], log: StepLog) -> bool:
    """Do something with a member at a step; return False when it failed and is marked so."""
    try:
        act()
    except MEMBER_ERRORS as error:
        if not (learner.group.alone or isinstance(error, NotFinite)):
            raise Apart(
                f"{folder.name} cannot go on in process {learner.group.rank} of {learner.group.size}: {error}; the "
                "others may not know, so all end; train it by one process to see whether it fails there"
            ) from error
        if learner.group.leads:
            mark_failed(folder, error.step if isinstance(error, FoundLate) else index, error)
            log.callbacks.on_failure(learner.experiment, failure(folder))
        return False
    return True


def _copied(position: Position) -> Position:
    return replace(position, carry=list(position.carry))
