"""The members of a cohort and their folders: which are left to train, how they start, go on, fail and end."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from unbraid.config.serialise import to_json
from unbraid.dictionary.initialisation import NOT_KEPT, Kept
from unbraid.experiment.experiment import Experiment
from unbraid.runs.failure import failure, forget_failure, mark_failed
from unbraid.runs.run_folder import finished
from unbraid.sources.stream import Position, Stream
from unbraid.system import notices
from unbraid.system.files import write_json
from unbraid.system.group import ALONE, Group
from unbraid.system.locks import LOCK, Held, held
from unbraid.training.callbacks import Callback
from unbraid.training.checkpoint import Due, FitCheckpoint, drop_checkpoints, newest_in, tidy, trim_log
from unbraid.training.interrupt import Interrupted
from unbraid.training.learner import Learner

MEMBER_ERRORS = (ValueError, torch.linalg.LinAlgError)  # pyright: ignore[reportPrivateImportUsage]
"""What one member's numbers can cause; anything else (no memory, a bug) stops the cohort."""


class Failed(ValueError):
    """Members of a cohort failed; the others are finished."""

    def __init__(self, reasons: Mapping[Path, str]):
        """`reasons`: why, by run folder."""
        self.reasons = dict(reasons)
        lines = [f"{folder.name} {reason}" for folder, reason in self.reasons.items()]
        super().__init__("\n".join([*lines, "change their settings, or start them anew with --overwrite"]))


def left_to_train(folders: Mapping[Path, Experiment], *, anew: bool = False) -> dict[Path, Experiment]:
    """Return the experiments, by folder, without those that are finished or, unless all start `anew`, have failed."""
    return {f: e for f, e in folders.items() if not finished(f) and (anew or not failure(f))}


def clear_finished(folders: Sequence[Path]) -> None:
    """Remove what a process left that was killed between finishing a run and letting it go."""
    for folder in folders:
        if finished(folder) and any((folder / name).exists() for name in ("checkpoints", LOCK)):
            with suppress(Held), held([folder]):  # another process may be about to
                drop_checkpoints(folder)
                tidy(folder)


def prepare_run_folder(folder: Path, experiment: Experiment, *, resume: bool) -> None:
    """Write experiment.json. Unless the run is continued, remove what an unfinished run left in the folder."""
    if (folder / "experiment.json").is_file() and not resume:
        drop_checkpoints(folder)
        forget_failure(folder)
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    tidy(folder)
    write_json(folder / "experiment.json", to_json(experiment))


def start_learners(
    todo: Mapping[Path, Experiment],
    sample: Tensor,
    callbacks: Callback,
    due: Callable[[], Due],
    group: Group = ALONE,
) -> dict[Path, Learner]:
    """Build a Learner per member. A member whose initialisation fails is marked failed and left out; a single member
    raises. An initialisation that is interrupted keeps what it has reached; of a group, all initialise alike, and the
    first keeps it."""
    learners: dict[Path, Learner] = {}
    for folder, experiment in todo.items():
        kept = FitCheckpoint(folder, due(), notices.log.warning)
        try:
            fitting = partial(callbacks.on_fit, experiment)
            keeping = Kept(kept.read, kept.write, kept.finish) if group.leads else NOT_KEPT
            learners[folder] = Learner(experiment, sample, fitting, keeping, group)
        except MEMBER_ERRORS as error:
            if len(todo) == 1 or not group.alone:
                raise
            mark_failed(folder, 0, error)
            callbacks.on_failure(experiment, failure(folder))
        except KeyboardInterrupt:
            kept.flush()
            raise Interrupted(f"stopped in the initialisation of {experiment.label}") from None
    return learners


def resume_learners(learners: Mapping[Path, Learner], stream: Stream, group: Group = ALONE) -> tuple[int, float]:
    """Bring every member to its newest checkpoint, which the first of a group reads, and the stream to the member that
    is farthest behind. Return that member's step and the seconds that were spent before."""
    positions: dict[int, Position] = {}
    spent = 0.0
    for folder, learner in learners.items():
        found = newest_in(group, folder, notices.log.warning)
        if found is not None:
            learner.begins, tensors, positions[found[0]], seconds = found
            learner.restore(tensors)
            spent = max(spent, seconds)
        if group.leads:
            trim_log(folder, learner.begins)
    start = min(learner.begins for learner in learners.values())
    if start:
        stream.restore(positions[start])
    return start, spent
