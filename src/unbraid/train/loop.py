"""The loop; there is one. It trains a cohort of dictionaries on one stream of activations.

Members share the source, the batch size and the order of data, so the language model runs once for all of them; nothing
else is shared, and each result equals training that member alone, bit for bit on the CPU: a member that fails drops
out, and the others go on as if it had not been there. Everything random is a function of (seed, name, step), so a
checkpoint needs parameters, moments, counters and a position, and no generator's state.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unbraid import seeding
from unbraid.config.old_names import upgraded
from unbraid.config.serialise import check_stored, to_json
from unbraid.config.settings import NonNegativeFloat, NonNegativeInt, checked, shown
from unbraid.dictionary.constraints import hold_near
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.initialisation import NOT_KEPT, Kept, Origin, Watch, unwatched
from unbraid.dictionary.normaliser import Normaliser
from unbraid.dictionary.orthonormalise import orthonormalise_blocks
from unbraid.effects.radius import calibrate_radius, checked_radius
from unbraid.experiment.experiment import Experiment, Training
from unbraid.objective import l0_control
from unbraid.objective.objective import Reads, Step, culprits, evaluate
from unbraid.runs.failure import failure, forget_failure, mark_failed
from unbraid.runs.provenance import machine
from unbraid.runs.run import finished, save_run
from unbraid.sources.base import Batch, Counterfactuals, Source
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.stream import Position, Stream
from unbraid.system import notices
from unbraid.system.devices import check_device
from unbraid.system.files import append_text, read_json, write_json
from unbraid.system.locks import LOCK, Held, held
from unbraid.system.sealing import REMEDY
from unbraid.system.stopping import Stop, stopping
from unbraid.train import held_out_scores
from unbraid.train.callbacks import Callback, Callbacks
from unbraid.train.checkpoint import (
    Due,
    FitCheckpoint,
    drop_checkpoints,
    newest,
    prune,
    save_checkpoint,
    tidy,
    trim_log,
)
from unbraid.train.held_out_scores import HeldOutScores
from unbraid.train.resampling import forget, resample
from unbraid.train.step_data import CONTEXTS, Supply

LOGGED_STEPS = 200
OWN_FAULTS = (ValueError, torch.linalg.LinAlgError)  # pyright: ignore[reportPrivateImportUsage]
"""What one member's numbers can cause; anything else (no memory, a bug) stops the cohort."""


class BadGradient(ValueError):
    """A gradient is not finite; the parameters are as before the step."""


class Interrupted(Exception):
    """Training was asked to stop and has saved where it stands."""


class Failed(ValueError):
    """Members of a cohort could not go on; the others are finished."""

    def __init__(self, reasons: Mapping[Path, str]):
        """`reasons`: why, by run folder."""
        self.reasons = dict(reasons)
        lines = [f"{folder.name} {reason}" for folder, reason in self.reasons.items()]
        super().__init__("\n".join([*lines, "change their settings, or start them anew with --overwrite"]))


class Learner:
    """One member of a cohort: dictionary, optimiser, counters. Its state is what a checkpoint holds."""

    def __init__(self, experiment: Experiment, sample: Tensor, watch: Watch = unwatched, kept: Kept = NOT_KEPT):
        """`sample`: raw activations [batch, d_in] for the normaliser and the initialisation. `watch`: told how far an
        initialisation that takes a while has come. `kept`: where what it has reached is kept."""
        training = experiment.training
        self.experiment = experiment
        normaliser = Normaliser.fit(sample, training.normalise)
        self.normaliser = normaliser.to(training.device)
        self.dictionary = experiment.dictionary.build(
            normaliser(sample), seed=experiment.seed, bfloat16=training.matmul == "bfloat16",
            origin=Origin(experiment.source, normaliser.mean, normaliser.scale, watch, kept),
        )  # fmt: skip
        target = experiment.objective.target_l0
        if target is not None and not experiment.dictionary.init.sets_thresholds:
            l0_control.start_at(self.dictionary, normaliser(sample[: l0_control.ROWS]), target.l0)
        self.dictionary.to(training.device)
        leashed = experiment.dictionary.leash > -1
        self.first_atoms = self.dictionary.W_dec.detach().clone() if leashed else None
        """Of leashed atoms: where they started, the same again when resumed."""
        self.parameters = {n: p for n, p in self.dictionary.named_parameters() if p.requires_grad}
        # W_enc is a transposed view, of which the fused optimiser would copy the gradient every step: it is given the
        # same memory in the order it has.
        self.stored = {name: as_stored(parameter) for name, parameter in self.parameters.items()}
        thresholds = [p for name, p in self.stored.items() if name == "threshold"]
        others = [p for name, p in self.stored.items() if name != "threshold"]
        groups = [
            {"params": others, "peak": training.lr},
            {"params": thresholds, "peak": training.lr * training.threshold_lr},
        ]
        self.optimiser = torch.optim.AdamW(
            groups, lr=training.lr, betas=training.betas, weight_decay=training.weight_decay, fused=True
        )
        self.since_fired = torch.zeros(self.dictionary.d_sae, dtype=torch.long, device=training.device)
        self.memory: dict[str, dict[str, Tensor]] = {name: {} for name in experiment.objective.terms()}
        self.control = torch.tensor([torch.nan, 0.0], dtype=torch.float64)
        """What the controller of an L0 remembers (`l0_control.Control`)."""
        self.steps = steps(training)
        self.begins = 0
        """The step it goes on from: it waits for the others of its cohort when they are behind."""

    def step(self, batch: Batch, index: int, supply: Supply) -> dict[str, Tensor]:
        """One update on a batch of raw activations; what to log. Raises ValueError, naming the term, for a loss or a
        gradient that is not finite; the parameters are then as before the step."""
        objective, training, seed = self.experiment.objective, self.experiment.training, self.experiment.seed
        x = self.normaliser(batch.x)
        z = self.dictionary.codes(x)
        step = Step(
            x=x, z=z, dictionary=self.dictionary, batch=batch, contexts=supply.contexts, progress=index / self.steps,
            dead=self.since_fired >= training.dead_after, rng=torch.Generator(),
            counterfactuals=lambda: self._normalised(supply.counterfactuals()),
            corrupted=lambda share: self.normaliser(supply.corrupted(share).to(training.device)),
            normalise=self.normaliser, restore=self.normaliser.undo,
        )  # fmt: skip
        streams = lambda name: seeding.stream(seed, f"term/{name}/{index}")
        scale = self._controlled()
        loss, metrics = evaluate(objective, step, index, scale=scale, streams=streams, memory=self.memory)
        loss.backward()
        try:
            self._update(index)
        except BadGradient as error:
            fresh = replace(step, z=self.dictionary.codes(x), shared={})
            names = culprits(objective, fresh, index, streams=streams, memory=self.memory)
            of = f", from {names}" if names else ", though each term's alone is"
            raise ValueError(f"{error} at step {index}{of}; lower the learning rate or a weight") from error
        fired = z.firings() > 0
        self.since_fired.add_(len(x)).masked_fill_(fired, 0)
        self._resample(x, index)
        l0 = z.l0()
        self._move_control(l0)
        return (
            metrics
            | {"metrics/l0": l0, "sparsity/dead": step.dead.sum()}
            | {f"weights/{n}": torch.tensor(s) for n, s in scale.items()}
            | ({} if objective.target_l0 is None else {"metrics/l0_target": torch.tensor(objective.target_l0.l0)})
        )

    def _normalised(self, pairs: Counterfactuals) -> Counterfactuals:
        device = self.experiment.training.device
        return Counterfactuals(*(self.normaliser(x.to(device)) for x in (pairs.x, pairs.changed)))

    def _update(self, index: int) -> None:
        training = self.experiment.training
        self.dictionary.project_gradient()
        for name, parameter in self.parameters.items():
            self.stored[name].grad = None if parameter.grad is None else as_stored(parameter.grad)
            parameter.grad = None
        grads = [p.grad for p in self.stored.values() if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads]))
        if not bool(torch.isfinite(norm)):
            bad = [n for n, p in self.stored.items() if p.grad is not None and not bool(torch.isfinite(p.grad).all())]
            raise BadGradient(f"the gradient of {', '.join(bad) or 'all parameters together'} is not finite")
        # The fused optimiser divides gradients by `grad_scale` as it reads them: clipping without a pass of its own.
        self.optimiser.grad_scale = (norm / training.clip).clamp_min(1.0)  # pyright: ignore[reportAttributeAccessIssue]
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * schedule(index, self.steps, training)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.dictionary.renormalise()
        if self.first_atoms is not None:
            atoms = self.dictionary.W_dec.data
            atoms.copy_(hold_near(atoms, self.first_atoms, self.experiment.dictionary.leash))
        blocks = self.experiment.dictionary.orthonormal_blocks
        if blocks and self.dictionary.W_dec.requires_grad:
            atoms = self.dictionary.W_dec.data
            atoms.copy_(orthonormalise_blocks(atoms, blocks))

    def _resample(self, x: Tensor, index: int) -> None:
        """Restart dead latents when that is due; not in the last decay, which would leave them half trained."""
        training = self.experiment.training
        tokens, each = (index + 1) * training.batch_size, training.resample_every
        late = index + 1 >= self.steps * (1 - training.decay)
        if not each or late or tokens % each >= training.batch_size:
            return
        rng = seeding.stream(self.experiment.seed, f"resample/{index}")
        new = resample(self.dictionary, x, self.since_fired >= training.dead_after, rng)
        self.since_fired[new] = 0
        for name, stored in self.stored.items():
            if name != "b_dec":  # the one parameter without a row a latent
                forget(self.optimiser.state.get(stored, {}), new)
        for name, term in self.experiment.objective.terms().items():
            memory = self.memory.get(name, {})
            forget({key: memory[key] for key in term.per_latent if key in memory}, new)

    def _controlled(self) -> dict[str, float]:
        """Factors of weights by penalty: of the one whose weight an L0 target moves."""
        objective = self.experiment.objective
        target = objective.target_l0
        if target is None:
            return {}
        factor = l0_control.Control.of(self.control).factor(target, objective.penalties[target.penalty].signed)
        return {target.penalty: factor}

    def _move_control(self, l0: Tensor) -> None:
        target = self.experiment.objective.target_l0
        if target is not None:
            moved = l0_control.Control.of(self.control).moved(target, float(l0), self.steps)
            self.control.copy_(torch.tensor(moved, dtype=torch.float64))

    def state(self) -> dict[str, Tensor]:
        """Every tensor a checkpoint needs, by name."""
        tensors: dict[str, Tensor] = {f"dictionary/{n}": t for n, t in self.dictionary.state_dict().items()}
        for name, stored in self.stored.items():
            tensors |= {f"adam/{name}/{key}": value for key, value in self.optimiser.state.get(stored, {}).items()}
        for name, memory in self.memory.items():
            tensors |= {f"memory/{name}/{key}": value for key, value in memory.items()}
        return tensors | {
            "since_fired": self.since_fired, "l0_control": self.control,
            "normaliser/mean": self.normaliser.mean, "normaliser/scale": self.normaliser.scale,
        }  # fmt: skip

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from `state()`. Raises ValueError when a tensor is missing."""
        if lacking := sorted(self.state().keys() - tensors.keys() - optional(self.state())):
            raise ValueError(
                f"the checkpoint of {self.experiment.folder} lacks {lacking[0]}: another version wrote it; resume with "
                "that one, or start anew with --overwrite"
            )
        device = self.experiment.training.device
        own = {n: tensors[f"dictionary/{n}"] for n in self.dictionary.state_dict()}
        self.dictionary.load_state_dict(own)
        for name, stored in self.stored.items():
            prefix = f"adam/{name}/"
            saved = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            self.optimiser.state[stored] = {key: value.to(device) for key, value in saved.items()}
        for name, memory in self.memory.items():
            prefix = f"memory/{name}/"
            # Cloned: products round differently by where in memory tensors start, and mapped ones start anywhere.
            memory |= {k.removeprefix(prefix): v.to(device).clone() for k, v in tensors.items() if k.startswith(prefix)}
        self.since_fired.copy_(tensors["since_fired"])
        self.control.copy_(tensors["l0_control"])
        self.normaliser = Normaliser(tensors["normaliser/mean"].to(device), tensors["normaliser/scale"].to(device))


def optional(state: Mapping[str, Tensor]) -> set[str]:
    """Names of what is only there once a step has been made: a fresh member may hold what a checkpoint does not."""
    return {name for name in state if name.startswith(("adam/", "memory/"))}


def as_stored(matrix: Tensor) -> Tensor:
    """The same memory, detached, in the order it has: the transpose of a transposed matrix."""
    return matrix.detach() if matrix.is_contiguous() else matrix.detach().t()


def steps(training: Training) -> int:
    return math.ceil(training.tokens / training.batch_size)


def schedule(index: int, total: int, training: Training) -> float:
    """The learning rate of step `index` as a share of its peak: linear warm-up, plateau, linear decay to 0."""
    rise = (index + 1) / max(1.0, training.warmup * total)
    fall = (total - index) / max(1.0, training.decay * total)
    return min(1.0, rise, fall)


def train(
    cohort: Sequence[Experiment],
    root: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    checkpoint_seconds: float = 120.0,
    checkpoint_steps: int = 0,
    callbacks: Callback | Sequence[Callback] = (),
) -> list[Path]:
    """Train every experiment of `cohort` that has no finished run under `root`; the run folders, in order.

    A folder is called by its experiment's name, seed and fingerprint. All else is as in `train_folders`."""
    folders = [Path(root) / experiment.folder for experiment in cohort]
    if twice := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise ValueError(f"{twice.name} is asked for twice, the same in all its settings; name it once")
    train_folders(
        dict(zip(folders, cohort, strict=True)), resume=resume, overwrite=overwrite, callbacks=callbacks,
        checkpoint_seconds=checkpoint_seconds, checkpoint_steps=checkpoint_steps,
    )  # fmt: skip
    return folders


def train_folders(
    folders: Mapping[Path, Experiment],
    *,
    resume: bool = False,
    overwrite: bool = False,
    checkpoint_seconds: float = 120.0,
    checkpoint_steps: int = 0,
    callbacks: Callback | Sequence[Callback] = (),
) -> None:
    """Train every experiment, each in its folder, on one stream of activations.

    Experiments must share source, batch_size, device and order of data (`cohorts` groups those that do). A finished run
    of the same experiment is left as it is; a folder that holds another experiment is an error, and so is an unfinished
    run unless `resume` (continue it) or `overwrite` (start anew, whatever it was), and a folder that another process is
    writing (`Held`). A checkpoint is written every `checkpoint_seconds`, or every `checkpoint_steps` when that is not
    0, and on SIGTERM or SIGINT, which then raise `Interrupted`. `callbacks` are called as training goes on.

    A member whose initialisation or step raises one of `OWN_FAULTS` drops out, marked (`failure`) and with the
    checkpoints it has; once the others are finished, `Failed` says why. It is not tried again but by `overwrite`.
    """
    checked("checkpoint_seconds", checkpoint_seconds, NonNegativeFloat)
    checked("checkpoint_steps", checkpoint_steps, NonNegativeInt)
    told = Callbacks(callbacks)
    for experiment in folders.values():
        check_stored(experiment, experiment.name)
    clear_finished(list(folders))
    if not folders:
        raise ValueError("there is no experiment to train; name one or more")
    check_shared(list(folders.values()))
    check_finished(folders)
    anew = overwrite and not resume
    todo = left_to_train(folders, anew=anew)
    if todo:
        check_shared(list(todo.values()))
        check_needs(list(todo.values()))
        with held(todo), stopping() as stop:
            # Asked again: another process may have finished some before it let them go.
            todo = left_to_train(folders, anew=anew)
            check_claims(todo, resume=resume, overwrite=overwrite)
            try:
                sample = _first_sample(todo)  # what it refuses, it refuses before a folder is written to
                for folder, experiment in todo.items():
                    claim(folder, experiment, resume=resume)
                _trained(todo, sample, told, lambda: Due(checkpoint_seconds, checkpoint_steps), stop)
            except KeyboardInterrupt:
                raise Interrupted("stopped; continue with --resume") from None
            if stop.asked:
                raise Interrupted("stopped after the last step; what was trained is saved")
    if reasons := {folder: reason for folder in folders if (reason := failure(folder))}:
        raise Failed(reasons)


def _first_sample(todo: Mapping[Path, Experiment]) -> Tensor:
    """The rows that members start from; none where nobody is left to train."""
    if not todo:
        return torch.empty(0)
    first = next(iter(todo.values()))
    tokens = max(steps(member.training) for member in todo.values()) * first.training.batch_size
    return fitting_sample(first.source, first.data_seed, tokens)


def _trained(
    todo: Mapping[Path, Experiment],
    sample: Tensor,
    told: Callback,
    due: Callable[[], Due],
    stop: Stop,
) -> None:
    """Train members whose folders are ours, and save them."""
    if not todo:
        return
    made_by, first = machine(), next(iter(todo.values()))
    told.on_start(list(todo.values()), max(steps(member.training) for member in todo.values()))
    try:
        learners = _started(todo, sample, told, due)
        if learners:
            stream = Stream(first.source, first.training.batch_size, seed=first.data_seed)
            start, spent = restore(learners, stream)
            started = time.monotonic() - spent
            report = Report(told, HeldOutScores(first.source, sample, first.training.device))
            with stop.gently("stopping after this step …"):
                _loop(learners, stream, start, report, due(), started, stop)
            with stop.gently("stopping once what is trained is saved …"):
                _save(learners, stream, sample, made_by, time.monotonic() - started, told)
    finally:
        told.on_close()


def _started(
    todo: Mapping[Path, Experiment],
    sample: Tensor,
    told: Callback,
    due: Callable[[], Due],
) -> dict[Path, Learner]:
    """Members that can start. Those whose initialisation fails, as a fit may after minutes, drop out marked; one that
    is alone raises. A fit that is broken off keeps what it has reached."""
    learners: dict[Path, Learner] = {}
    for folder, experiment in todo.items():
        kept = FitCheckpoint(folder, due(), notices.log.warning)
        try:
            fitting = partial(told.on_fit, experiment)
            learners[folder] = Learner(experiment, sample, fitting, Kept(kept.read, kept.write, kept.finish))
        except OWN_FAULTS as error:
            if len(todo) == 1:
                raise
            mark_failed(folder, 0, error)
            told.on_failure(experiment, failure(folder))
        except KeyboardInterrupt:
            kept.flush()
            raise Interrupted(f"stopped in the initialisation of {experiment.label}; continue with --resume") from None
    return learners


def clear_finished(folders: Sequence[Path]) -> None:
    """Remove what a process left that was killed between finishing a run and letting it go."""
    for folder in folders:
        if finished(folder) and any((folder / name).exists() for name in ("checkpoints", LOCK)):
            with suppress(Held), held([folder]):  # another process may be about to
                drop_checkpoints(folder)
                tidy(folder)


def left_to_train(folders: Mapping[Path, Experiment], *, anew: bool = False) -> dict[Path, Experiment]:
    """The experiments that are neither finished nor, unless they start `anew`, known to fail."""
    return {f: e for f, e in folders.items() if not finished(f) and (anew or not failure(f))}


def _save(
    learners: Mapping[Path, Learner],
    stream: Stream,
    sample: Tensor,
    made_by: Mapping[str, Any],
    seconds: float,
    told: Callback,
) -> None:
    """Finished runs, of members that can be saved. `seconds`: of the whole cohort; a member's own is counted as an
    equal share."""
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
        }
        dictionary, normaliser = learner.dictionary.cpu(), learner.normaliser.to("cpu")
        provenance |= reached(learner.experiment, dictionary, normaliser(sample[: l0_control.ROWS]))
        try:
            save_run(folder, learner.experiment, dictionary, normaliser, sample, {**made_by, **provenance})
        except ValueError as error:
            mark_failed(folder, learner.steps, error)
            told.on_failure(learner.experiment, failure(folder))
        except OSError as error:  # a full disk, most likely: what fits is saved, the rest keeps its checkpoints
            full = full or error
        else:
            drop_checkpoints(folder)
            told.on_end(learner.experiment, folder)
            if short := l0_control.shortfall(provenance):
                notices.log.warning("%s %s", folder.name, short)
    if full is not None:
        raise full


def reached(experiment: Experiment, dictionary: Dictionary, sample: Tensor) -> dict[str, float]:
    """The L0 asked for and the one reached on normalised activations, for provenance; nothing where none was asked
    for."""
    target = experiment.objective.target_l0
    if target is None:
        return {}
    return {"l0_target": target.l0, "l0_reached": round(l0_control.measured(dictionary, sample), 3)}


def _loop(
    learners: dict[Path, Learner],
    stream: Stream,
    start: int,
    report: "Report",
    due: Due,
    started: float,
    stop: Stop,
) -> None:
    """Train to the end. Members that fail are taken out of `learners`. Asked to stop, it does between two members."""
    last = max(learner.steps for learner in learners.values())
    training = next(iter(learners.values())).experiment.training
    for index in range(start, last):
        going = {folder: learner for folder, learner in learners.items() if index < learner.steps}
        if not going:
            break  # those that had more to do have failed
        before = _copied(stream.position)
        try:
            with stop.at_once():  # reading may take minutes, and moves no member
                batch = next(stream).to(training.device)
        except KeyboardInterrupt:
            _save_round(learners, dict.fromkeys(learners, (index, before)), started)
            raise _interrupted(index, last) from None
        supply = Supply(stream.source, stream.seed, index)
        left = dict(going)
        while left and not stop.asked:
            folder, learner = next(iter(left.items()))
            del left[folder]
            if index >= learner.begins and not _stepped(folder, learner, batch, index, supply, stream.position, report):
                del learners[folder]
        if not left:
            report.told.on_progress((index + 1) * training.batch_size, last * training.batch_size)
        if index + 1 < last and (due.now(index + 1) or stop.asked):
            at = {folder: (index, before) if folder in left else (index + 1, stream.position) for folder in learners}
            _save_round(learners, at, started)
            if stop.asked:
                raise _interrupted(index + 1, last)


def _stepped(
    folder: Path, learner: Learner, batch: Batch, index: int, supply: Supply, position: Position, report: "Report"
) -> bool:
    """One step of one member; False when it has failed, and is marked."""
    try:
        metrics = learner.step(batch, index, supply)
    except OWN_FAULTS as error:
        mark_failed(folder, index, error)
        report.told.on_failure(learner.experiment, failure(folder))
        return False
    report.step(folder, learner, index, metrics, position)
    return True


def _save_round(learners: Mapping[Path, Learner], at: Mapping[Path, tuple[int, Position]], started: float) -> None:
    """A checkpoint of every member where it stands: its step, and the stream's position. One that cannot be written,
    as when the disk is full, keeps no other from being so; then the first error is raised, and nothing is removed."""
    full: OSError | None = None
    for folder, (step, position) in at.items():
        if step > learners[folder].begins:  # else it waits, or has done nothing
            try:
                save_checkpoint(folder, step, learners[folder].state(), position, time.monotonic() - started)
            except OSError as error:
                full = full or error
    if full is not None:
        raise full
    prune(list(learners))


def _copied(position: Position) -> Position:
    return replace(position, carry=list(position.carry))


def _interrupted(step: int, last: int) -> Interrupted:
    return Interrupted(f"stopped at step {step} of {last}; continue with --resume")


@dataclass(frozen=True)
class Report:
    """What is said of steps: rows of metrics.jsonl, and the same to callbacks."""

    told: Callback
    scores: HeldOutScores

    def step(
        self, folder: Path, learner: Learner, index: int, metrics: Mapping[str, Tensor], position: Position
    ) -> None:
        """Log a step that is one of about `LOGGED_STEPS`, or that held-out scores are due after."""
        measured = held_out_scores.due(learner.experiment.training, index)
        if index % max(1, learner.steps // LOGGED_STEPS) and index < learner.steps - 1 and not measured:
            return
        tokens = (index + 1) * learner.experiment.training.batch_size
        found = {**metrics, **(self.scores(learner.dictionary, learner.normaliser) if measured else {})}
        values = {"lr": learner.optimiser.param_groups[0]["lr"]} | {name: float(v) for name, v in found.items()}
        row = {"step": index, "tokens": tokens, "filtered": position.filtered, **values}
        append_text(folder / "metrics.jsonl", json.dumps(row) + "\n")
        self.told.on_step(learner.experiment, index, tokens, values)


def check_shared(members: Sequence[Experiment]) -> None:
    first = members[0]
    for member in members[1:]:
        same = {
            "source": member.source == first.source,
            "training.batch_size": member.training.batch_size == first.training.batch_size,
            "the order of data (training.data_seed, or the seed)": member.data_seed == first.data_seed,
            "training.device": member.training.device == first.training.device,
        }
        differing = [name for name, equal in same.items() if not equal]
        if differing:
            raise ValueError(
                f"{member.label} and {first.label} differ in {differing}; a cohort shares one stream: train them apart"
            )


def check_needs(members: Sequence[Experiment]) -> None:
    """Raise ValueError, before any work, for a device that is not here, and when a term reads what the source cannot
    give."""
    check_device(members[0].training.device, "--training.device")
    for member in members:
        for name, term in member.objective.terms().items():
            if term.wanted:
                term.suits(member.dictionary.activation)
            for part in term.reads if term.wanted else ():
                try:
                    try_to_give(part, member.source)
                except ValueError as error:
                    raise ValueError(f"{member.label}: term {name!r} reads {part}, but {error}") from error
    check_radius(members)


def check_radius(members: Sequence[Experiment]) -> None:
    """Raise ValueError for terms whose radius, set or to be calibrated, cannot be: training would find out midway."""
    pushing = [
        (f"{member.label}: term {name!r}", term)
        for member in members
        for name, term in member.objective.terms().items()
        if term.wanted and "contexts" in term.reads and hasattr(term, "radius")
    ]
    by_radius: dict[float, list[str]] = {}
    for what, term in pushing:
        by_radius.setdefault(float(getattr(term, "radius")), []).append(what)  # noqa: B009 (not all terms have one)
    for radius, asking in by_radius.items():
        contexts = members[0].source.contexts(CONTEXTS, split="train", seed=0)  # a cohort has one source
        try:
            if not checked_radius(contexts, radius):
                calibrate_radius(contexts, rng=seeding.stream(0, "check_radius"))
        except ValueError as error:
            verb = "pushes" if len(asking) == 1 else "push"
            raise ValueError(f"{'; '.join(asking)} {verb} activations, but {error}") from error


def try_to_give(part: Reads, source: Source) -> None:
    if part == "contexts":
        source.contexts(CONTEXTS, split="train", seed=0)
    elif part == "counterfactuals":
        source.counterfactuals(1, split="train", seed=0)
    elif part == "corrupted":
        source.corrupted(1, share=0.0, split="train", seed=0)
    elif part == "documents" and not source.has_documents:
        raise ValueError(
            f"a {type(source).__name__} has none: every row stands alone; use a source that reads text: LanguageModel, "
            "or activations cached from one"
        )


def check_finished(folders: Mapping[Path, Experiment]) -> None:
    """Raise ValueError when two folders are one, or one holds a finished run of another experiment than asked for."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"two of {[str(folder) for folder in folders]} are the same folder; give each its own")
    for folder, experiment in folders.items():
        if finished(folder) and (where := other_than(folder, experiment)):
            raise ValueError(f"{folder} holds a finished run of another experiment ({where}); give another folder")


def other_than(folder: Path, experiment: Experiment) -> str:
    """The first setting in which the experiment stored in `folder` differs from `experiment`; empty when none does."""
    stored = upgraded(read_json(folder / "experiment.json", remedy=REMEDY))
    return difference(stored, json.loads(json.dumps(to_json(experiment))))


def difference(stored: Any, asked: Any, at: str = "") -> str:
    """Where two JSON values first differ, in words; empty when they are equal."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        parts = ((key, stored.get(key), asked.get(key)) for key in sorted({*stored, *asked}))
        return next((d for key, left, right in parts if (d := difference(left, right, f"{at}.{key}".lstrip(".")))), "")
    return "" if stored == asked else f"{at or 'it'} is {shown(stored)} there and {shown(asked)} here"


def check_claims(todo: Mapping[Path, Experiment], *, resume: bool, overwrite: bool) -> None:
    """Raise ValueError when a folder holds unfinished work and neither flag says what to do, or work on another
    experiment is to be continued."""
    for folder, experiment in todo.items():
        if resume and (folder / "experiment.json").is_file() and (where := other_than(folder, experiment)):
            raise ValueError(
                f"{folder} holds an unfinished run of another experiment ({where}); give another folder, or start anew "
                "with --overwrite alone"
            )
        if (folder / "experiment.json").is_file() and not (resume or overwrite):
            raise ValueError(
                f"{folder} holds an unfinished run: continue it with --resume, or start anew with --overwrite"
            )


def claim(folder: Path, experiment: Experiment, *, resume: bool) -> None:
    """Make the folder ours; what is unfinished in it is dropped, unless it is continued."""
    if (folder / "experiment.json").is_file() and not resume:
        drop_checkpoints(folder)
        forget_failure(folder)
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    tidy(folder)
    write_json(folder / "experiment.json", to_json(experiment))


def restore(learners: Mapping[Path, Learner], stream: Stream) -> tuple[int, float]:
    """Bring every member to its newest checkpoint; the step of the one farthest behind, where the stream goes on, and
    the seconds spent before."""
    positions: dict[int, Position] = {}
    spent = 0.0
    for folder, learner in learners.items():
        found = newest(folder, notices.log.warning)
        if found is not None:
            learner.begins, tensors, positions[found[0]], seconds = found
            learner.restore(tensors)
            spent = max(spent, seconds)
        trim_log(folder, learner.begins)
    start = min(learner.begins for learner in learners.values())
    if start:
        stream.restore(positions[start])
    return start, spent
