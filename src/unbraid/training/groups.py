"""A group of processes that train one cohort: what they check before, and what the first of them finds for all.

Only the first reads and writes folders of runs. Before training all must have the same settings, versions and data;
whenever a checkpoint is written, the same parameters.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unbraid.config.serialise import to_json
from unbraid.config.version import __version__
from unbraid.experiment.experiment import Experiment
from unbraid.runs.failure import failure
from unbraid.sources.base import Source
from unbraid.system.group import Apart, Group
from unbraid.training.checkpoint import digest
from unbraid.training.checks import difference
from unbraid.training.cohort import left_to_train
from unbraid.training.latent_shards import check_shards
from unbraid.training.learner import Learner

COMPARED = 64
"""Rows of activations that are compared."""
CLOSE = 0.05
"""How far apart activations may be, as a share of their size: kernels of several processors round differently."""


def check_group(members: Sequence[Experiment], settings: Mapping[str, Any], group: Group) -> None:
    """Raise ValueError unless a group can share out the batches of a cohort, or its latents, and all its processes are
    to do the same. `settings`: what else must be equal in all of them."""
    if group.alone:
        return
    versions = {"unbraid": __version__, "torch": str(torch.__version__), "processes": group.size, "of": group.of}
    of_members = {f"member {number}": to_json(member) for number, member in enumerate(members)}
    check_alike({"version": versions, "settings": dict(settings)} | of_members, group)
    training = members[0].training
    check_shards(members, group.latents)
    for member in () if group.rows.alone else members:
        if not (activation := member.dictionary.activation).splits:
            raise ValueError(
                f"{member.label}: {type(activation).__name__} may look at the whole batch, of which each of "
                f"{group.size} processes has a share; train it by one process, or set its `splits` where it does not"
            )
    if training.batch_size % group.rows.size:
        near = group.size * max(1, round(training.batch_size / group.size))
        raise ValueError(
            f"batches of {training.batch_size} cannot be shared out equally to {group.size} processes; set "
            f"--training.batch-size {near}"
        )
    kind, _, number = training.device.partition(":")
    if number:
        raise ValueError(
            f"--training.device {training.device} names one device for {group.size} processes; set {kind}, of which "
            "each takes its own"
        )


def check_alike(mine: Mapping[str, Any], group: Group) -> None:
    """Raise ValueError, naming the first difference, unless this is the same in all processes of a group."""
    first, *others = map(json.loads, group.texts(json.dumps(mine)))
    for rank, other in enumerate(others, 1):
        if where := difference(first, other):
            found = where.removesuffix(" here").replace(" there and ", " in process 0 and ")
            raise ValueError(
                f"the processes that are to train together differ: {found} in process {rank}; start all of them with "
                "the same command, the same version and the same data"
            )


def check_data(source: Source, sample: Tensor, group: Group) -> None:
    """Raise ValueError unless all processes of a group read the same activations; all then have rank 0's sample."""
    if group.alone:
        return
    check_alike({"data": {"tokens": source.available("train"), "sample": list(sample.shape)}}, group)
    first, *others = group.joined(sample[:COMPARED]).split(len(sample[:COMPARED]))
    for rank, other in enumerate(others, 1):
        if (first - other).norm() > CLOSE * first.norm():
            raise ValueError(
                f"process {rank} reads other activations than process 0, from a source with the same settings; give "
                "all of them the same files"
            )
    group.copy_first([sample])


def left_of_group(folders: Mapping[Path, Experiment], group: Group, *, anew: bool) -> dict[Path, Experiment]:
    """Return the experiments that are left to train, as the first process of a group finds them."""
    if group.alone:
        return left_to_train(folders, anew=anew)
    left = left_to_train(folders, anew=anew) if group.leads else {}
    numbers = json.loads(group.first_text(json.dumps([number for number, f in enumerate(folders) if f in left])))
    return {folder: experiment for number, (folder, experiment) in enumerate(folders.items()) if number in numbers}


def failures_of_group(folders: Mapping[Path, Experiment], group: Group) -> dict[Path, str]:
    """Return why members have failed, by folder, as the first process of a group finds it."""
    reasons = [failure(folder) for folder in folders] if group.leads else []
    reasons = reasons if group.alone else json.loads(group.first_text(json.dumps(reasons)))
    return {folder: reason for folder, reason in zip(folders, reasons, strict=True) if reason}


def check_equal(learners: Mapping[Path, Learner], group: Group) -> None:
    """Raise Apart unless the processes of a group have the same parameters, bit for bit, where they have the same."""
    for folder, learner in () if group.alone else learners.items():
        common = learner.common_parameters()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in common.items()}
        if len({*group.texts(digest(tensors, {}))}) > 1:
            raise Apart(
                f"{folder.name} has come to differ between the processes that train it, most likely as their "
                "processors round differently; start them on machines of one kind, with --resume"
            )
