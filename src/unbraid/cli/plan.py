"""The cost of a cohort, before any work: tokens, disk, memory, time, and what the model will read."""

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median_high
from typing import Any

import torch
from torch import Tensor

from unbraid import seeding
from unbraid.cli.fit_timing import fit_seconds
from unbraid.cli.preflight import check_device, held_back, lacking, trains
from unbraid.cli.shards import shards
from unbraid.config.serialise import to_json
from unbraid.dictionary.initialisation import ProgressCallback, RandomAtoms, no_progress
from unbraid.dictionary.weights import CHUNK_ENTRIES
from unbraid.effects.radius import radius_of
from unbraid.evals.shared.evaluation import Eval
from unbraid.experiment.experiment import Experiment
from unbraid.objective import l0_control
from unbraid.objective.step_data import ExtraInputs
from unbraid.sources.base import Batch, Source
from unbraid.sources.cache_files import cache_bytes
from unbraid.sources.first_block import first_block, reading_once
from unbraid.sources.fitting_sample import fitting_sample
from unbraid.sources.stream import Stream
from unbraid.steering.base import SliceFit
from unbraid.system.memory import free_memory
from unbraid.training.checkpoint import KEPT
from unbraid.training.checks import check_needs, check_shared, radii
from unbraid.training.learner import Learner
from unbraid.training.schedule import steps

MEASURED_STEPS = 3
LONG = 1.0
"""Seconds of steps that need no repetition: a median of several is for steps of milliseconds."""
PATIENCE = 60.0
"""Seconds of measuring after which no more kinds of member are measured."""
FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class Budget:
    """The needs of a cohort, and what there is; known without training a step."""

    members: int
    tokens: int
    """Activations the longest member needs."""
    available: float
    parameters: int
    """Of all members together."""
    disk: int
    """Bytes at the peak: checkpoints (weights and two moments, kept twice and one being written), then final
    weights."""
    disk_free: int
    memory: int
    """Bytes for parameters, gradients, moments, a chunk of pre-activations and the shuffle buffer. Not counted: the
    model, what terms keep (`Estimate.kept`), and what a step makes and frees, above all passes through
    downstream layers."""
    memory_free: int
    unanswered: tuple[str, ...] = ()
    """Evals that will be run and could not score, with the reason."""
    held_out: float = math.inf
    """Activations of the eval split."""
    notes: tuple[str, ...] = ()
    """What to know, though it stands in nobody's way."""

    def problems(self) -> list[str]:
        """Why this cannot run, each with its remedy; empty when it can."""
        found = []
        if self.available < self.tokens:
            found.append(
                f"{self.tokens:,} tokens are needed and {self.available:,.0f} available: give more text, lower "
                "--training.tokens, or allow more passes with --source.epochs"
            )
        if self.disk > self.disk_free:
            found.append(
                f"{self.disk:,} bytes of disk are needed and {self.disk_free:,} free: write elsewhere with --out"
            )
        if self.memory > self.memory_free:
            found.append(
                f"{self.memory:,} bytes of memory are needed and {self.memory_free:,} free: train fewer members, "
                "fewer latents, or set a smaller --source.buffer-tokens"
            )
        return [*found, *self.unanswered]


@dataclass(frozen=True)
class Estimate:
    """An estimate that needs measured steps."""

    seconds: float
    kept: int
    """Bytes that terms of all members keep from step to step: banks, averages, small networks. Checkpoints hold them
    too."""
    cache: int
    """Bytes the activations would take on disk, should one write them there: `unbraid cache`."""
    fitting: float
    """Of the seconds, those of fits to downstream layers."""
    measured: int
    """Kinds of member that were measured."""
    kinds: int
    """There are; those not measured are taken to be as slow as the others."""

    @property
    def in_checkpoints(self) -> int:
        return (KEPT + 1) * self.kept


def budget(cohort: Sequence[Experiment], out: Path, evals: Sequence[Eval] = (), *, now: bool = False) -> Budget:
    """The budget of a cohort. Raises ValueError, as training would, for experiments that cannot be trained.

    evals: what the runs will be scored by. now: in the same command, so that what could not be scored is a problem even
    where no eval split was wanted.
    """
    check_shared(cohort)
    check_device(cohort)
    source, training = cohort[0].source, cohort[0].training
    source.metadata()  # a layer or site that does not exist stops here
    source.check()
    parameters = parameters_of(cohort)
    tokens = max(steps(e.training) for e in cohort) * training.batch_size
    unscored = tuple(lacking(source, evals))
    must = trains(cohort) and (now or held_back(source))
    existing = out
    while not existing.exists():
        existing = existing.parent
    return Budget(
        members=len(cohort), tokens=tokens, available=source.available("train"), parameters=parameters,
        disk=parameters * 3 * (KEPT + 1) * FLOAT, disk_free=shutil.disk_usage(existing).free,
        memory=memory_of(cohort), memory_free=free_memory(),
        unanswered=unscored if must else (), notes=(*(() if must else unscored), *short(cohort)),
        held_out=held_out_rows(source),
    )  # fmt: skip


def parameters_of(cohort: Sequence[Experiment]) -> int:
    d_in = cohort[0].source.d_in
    return sum(2 * d_in * e.dictionary.d_sae + 2 * e.dictionary.d_sae + d_in for e in cohort)


def memory_of(cohort: Sequence[Experiment]) -> int:
    """Bytes that one process needs to train a cohort, as `Budget.memory` counts them."""
    source = cohort[0].source
    rows = 3 * getattr(source, "buffer_tokens", cohort[0].training.batch_size)  # a block, its shuffle, those carried
    return (parameters_of(cohort) * 4 + CHUNK_ENTRIES["cpu"] + rows * source.d_in) * FLOAT


@dataclass(frozen=True)
class SideBySide:
    """The needs of several workers that train at the same time on this machine."""

    workers: int
    shards: int
    memory: int
    """Bytes of as many shards as there are workers, the largest; models and terms are not counted."""
    memory_free: int

    def problems(self) -> list[str]:
        """Why this cannot run, with the remedy; empty when it can."""
        if self.workers == 1 or self.memory <= self.memory_free:
            return []
        return [
            f"{self.workers} workers need {self.memory:,} bytes of memory and {self.memory_free:,} are free: use fewer "
            "--workers, or train fewer members, or fewer latents"
        ]


def needs_at_once(cohorts: Sequence[Sequence[Experiment]], workers: int) -> SideBySide:
    """The needs of workers that train these cohorts."""
    parts = shards(cohorts, workers)
    needs = sorted((memory_of(part.experiments) for part in parts), reverse=True)
    return SideBySide(min(workers, len(parts)), len(parts), sum(needs[:workers]), free_memory())


def short(cohort: Sequence[Experiment]) -> list[str]:
    """Notes on members that have an L0 to reach and few steps to do it in, those of one reason together."""
    found: dict[str, list[str]] = {}
    for experiment in cohort:
        why = l0_control.too_short(experiment.objective.target_l0, steps(experiment.training), experiment.training.lr)
        if why and experiment.training.tokens:
            found.setdefault(why, []).append(experiment.label)
    return [f"{', '.join(dict.fromkeys(names))}: {why}" for why, names in found.items()]


def held_out_rows(source: Source) -> float:
    try:
        return source.available("eval")
    except ValueError:  # a cache without an eval split
        return 0.0


@reading_once()
def estimate(
    cohort: Sequence[Experiment], watch: ProgressCallback = no_progress, *, patience: float = PATIENCE
) -> Estimate:
    """The cost of a training, from one harvested block and a few measured steps of every kind of member; no more
    kinds once `patience` seconds are over. `watch`: called with how many kinds are done."""
    check_needs(cohort)
    source, training, data_seed = cohort[0].source, cohort[0].training, cohort[0].data_seed
    longest = max(steps(e.training) for e in cohort)
    tokens = longest * training.batch_size
    before = time.monotonic()
    block = first_block(source, data_seed)
    harvest = (time.monotonic() - before) * math.ceil(tokens / len(block.rows)) if block else 0.0  # whole blocks
    sample = fitting_sample(source, data_seed, tokens)
    assert block is not None, "fitting_sample has refused it"
    stream = Stream(source, training.batch_size, seed=data_seed)
    # The same few for every member: a study has more members than its data has batches.
    batches = [next(stream) for _ in range(min(MEASURED_STEPS, longest))]
    before = time.monotonic()
    radius = calibrated(cohort)
    calibrating = time.monotonic() - before
    groups = kinds(cohort)
    costs: list[Cost] = []
    begun = time.monotonic()
    for members in groups:
        if costs and time.monotonic() - begun > patience:
            break
        costs.append(cost(members[0], sample, batches, radius).of(len(members)))
        watch(len(costs), len(groups))
    share = len(cohort) / sum(len(members) for members in groups[: len(costs)])
    total = lambda part: sum(getattr(one, part) for one in costs) * share
    return Estimate(
        seconds=harvest + calibrating + total("training") + total("fitting"), kept=round(total("kept")),
        fitting=total("fitting"), cache=cache_bytes(source, block, tokens), measured=len(costs), kinds=len(groups),
    )  # fmt: skip


def calibrated(cohort: Sequence[Experiment]) -> float:
    """The radius that all terms to be calibrated share, as one calibration makes it; 0 where there is none."""
    if all(radius for member in cohort for radius in radii(member).values()):
        return 0.0
    return radius_of(ExtraInputs(cohort[0].source, cohort[0].data_seed, 0).contexts())


@dataclass(frozen=True)
class Cost:
    """The cost of a member, or of several that cost the same."""

    training: float
    """Seconds."""
    fitting: float
    """Seconds."""
    kept: int | float
    """Bytes."""

    def of(self, count: int) -> "Cost":
        return Cost(self.training * count, self.fitting * count, self.kept * count)


def kinds(cohort: Sequence[Experiment]) -> list[list[Experiment]]:
    """Members that cost the same, together: other seeds, names and sizes of weights take no longer. In random order,
    so that the first few speak for all."""
    groups: dict[str, list[Experiment]] = {}
    for experiment in cohort:
        groups.setdefault(kind_of(experiment), []).append(experiment)
    found = list(groups.values())
    order = torch.randperm(len(found), generator=seeding.stream(0, "kinds"))
    return [found[index] for index in order]


def kind_of(experiment: Experiment) -> str:
    """The settings that an experiment's cost depends on, as text."""
    plain = replace(
        experiment, name="kind", seed=0, control=False, l0=None, base=None, term=None, strength=None,
        draws_source=False, source=experiment.source.drawn(0) if experiment.draws_source else experiment.source,
    )  # fmt: skip
    return json.dumps(without_sizes(to_json(plain)), sort_keys=True)


def alike(cohorts: Sequence[Sequence[Experiment]]) -> list[list[int]]:
    """The numbers of cohorts that cost the same, together: those of a study's seeds."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, cohort in enumerate(cohorts):
        groups.setdefault(tuple(sorted(map(kind_of, cohort))), []).append(number)
    return list(groups.values())


def without_sizes(node: Any) -> Any:
    """JSON with every number that has a fraction as whether it is 0: a term of weight 0 is skipped."""
    if isinstance(node, dict):
        return {key: without_sizes(value) for key, value in node.items()}
    if isinstance(node, list):
        return [without_sizes(value) for value in node]
    return node != 0 if isinstance(node, float) else node


def cost(member: Experiment, sample: Tensor, batches: Sequence[Batch], radius: float) -> Cost:
    """The cost of one member, measured. A fit is stopped after a few steps; random atoms replace what it finds.
    `radius`: `calibrated`."""
    fitting, init = 0.0, member.dictionary.init
    if isinstance(init, SliceFit):
        fitting = fit_seconds(init, member.dictionary.d_sae, member.source)
        member = replace(member, dictionary=replace(member.dictionary, init=RandomAtoms()))
    if not member.training.tokens:
        return Cost(0.0, fitting, 0)
    learner = Learner(member, sample)
    for name, given in radii(member).items():
        if not given:
            learner.memory[name]["radius"] = torch.tensor(radius, dtype=torch.float64)
    each, once = measured(learner, batches, member.source)
    kept = sum(tensor.nbytes for memory in learner.memory.values() for tensor in memory.values())
    return Cost(learner.steps * each + once, fitting, kept)


def measured(learner: Learner, batches: Sequence[Batch], source: Source) -> tuple[float, float]:
    """Seconds of a step on raw activations, terms that are due on some steps only included at their true share; and
    what the first steps took besides, once."""
    cadences = sorted({term.every for term in learner.experiment.objective.terms().values() if term.enabled})

    def seconds(due: int) -> list[float]:
        """Of the last step, so that every term has started, in which terms of cadence `due` run and others do not, on
        one batch after another."""
        others = [every for every in cadences if due % every]
        last = learner.steps - 1
        alone = (i for i in range(last - last % due, -1, -due) if all(i % every for every in others))
        index = next(alone, last - last % due)
        times: list[float] = []
        for batch in batches:
            extra = ExtraInputs(source, learner.experiment.data_seed, index)
            before = time.monotonic()
            learner.step(batch, index, extra)
            times.append(time.monotonic() - before)
            if sum(times) >= LONG:
                break
        return times

    first = seconds(math.lcm(*cadences))
    plain = median_high(seconds(1))
    added: dict[int, float] = {}
    for every in cadences:
        if every > 1:
            shared = sum(cost for other, cost in added.items() if every % other == 0)
            added[every] = max(0.0, median_high(seconds(every)) - plain - shared)
    once = max(0.0, sum(first) - len(first) * (plain + sum(added.values())))
    return plain + sum(cost / every for every, cost in added.items()), once
