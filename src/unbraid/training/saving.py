"""Writes a cohort: checkpoints of all members as training goes on, run folders when it is done."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from unbraid.dictionary.dictionary import Dictionary
from unbraid.experiment.experiment import Experiment
from unbraid.objective import l0_control
from unbraid.runs.failure import failure, mark_failed
from unbraid.runs.run import save_run
from unbraid.sources.stream import Position, Stream
from unbraid.system import notices
from unbraid.system.devices import sent
from unbraid.system.group import ALONE, Group
from unbraid.training.callbacks import Callback
from unbraid.training.checkpoint import drop_checkpoints, prune, save_checkpoint
from unbraid.training.latent_shards import whole_state
from unbraid.training.learner import Learner


def save_runs(
    learners: Mapping[Path, Learner],
    stream: Stream,
    sample: Tensor,
    made_by: Mapping[str, Any],
    seconds: float,
    callbacks: Callback,
) -> None:
    """Write the run folder of every member; one that cannot be saved is marked failed. `seconds`: taken by the whole
    cohort, of which every member counts an equal share."""
    full: OSError | None = None
    for folder, learner in learners.items():
        training = learner.experiment.training
        provenance = {
            "seconds": round(seconds / len(learners), 2),
            "cohort": len(learners),
            "cohort_seconds": round(seconds, 1),
            "tokens": learner.steps * training.batch_size,
            "filtered": stream.position.filtered,
            "device": training.device,
            **({} if learner.group.alone else {"processes": learner.group.size, "shared_out": learner.group.of}),
        }
        dictionary = learner.finished()
        device = dictionary.W_dec.device
        normaliser = learner.normaliser.to(device)
        rows = sent(sample[: l0_control.ROWS], device)
        provenance |= l0_reached(learner.experiment, dictionary, normaliser(rows))
        try:
            save_run(folder, learner.experiment, dictionary, normaliser, sample, {**made_by, **provenance})
        except ValueError as error:
            mark_failed(folder, learner.steps, error)
            callbacks.on_failure(learner.experiment, failure(folder))
        except OSError as error:  # a full disk, most likely: what fits is saved, the rest keeps its checkpoints
            full = full or error
        else:
            drop_checkpoints(folder)
            callbacks.on_end(learner.experiment, folder)
            if short := l0_control.shortfall(provenance):
                notices.log.warning("%s %s", folder.name, short)
    if full is not None:
        raise full


def l0_reached(experiment: Experiment, dictionary: Dictionary, sample: Tensor) -> dict[str, float]:
    """Return the requested L0 and the one reached on normalised activations; empty where none was requested."""
    target = experiment.objective.target_l0
    if target is None:
        return {}
    return {"l0_target": target.l0, "l0_reached": round(l0_control.measured(dictionary, sample), 3)}


def save_checkpoints(
    learners: Mapping[Path, Learner],
    at: Mapping[Path, tuple[int, Position]],
    started: float,
    group: Group = ALONE,
) -> None:
    """Write a checkpoint of every member at its step and position of the stream, then remove old ones: the first
    process of a group does. When one cannot be written, as on a full disk, the others still are; then the first error
    is raised, and nothing is removed."""
    full: OSError | None = None
    for folder, (step, position) in at.items():
        if step > learners[folder].begins:  # else it waits, or has done nothing
            state = whole_state(learners[folder].state(), group.latents)
            try:
                if group.leads:
                    save_checkpoint(folder, step, state, position, time.monotonic() - started)
            except OSError as error:
                full = full or error
    if full is not None:
        raise full
    if group.leads:
        prune(list(learners))
