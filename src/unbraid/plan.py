"""What a cohort will cost, before any work: tokens, disk, memory, time, and what the model will read."""

import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unbraid.checkpoint import KEPT
from unbraid.dictionary import CHUNK_ENTRIES
from unbraid.experiment import Experiment
from unbraid.memory import free_memory
from unbraid.source import Batch, Source, Stream
from unbraid.sources.cached import row_bytes
from unbraid.supply import Supply
from unbraid.train import Learner, check_needs, check_shared, fitting_sample, steps

MEASURED_STEPS = 3
FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class Budget:
    """What a cohort needs and what there is; known without training a step."""

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
    cache: int
    """Bytes the activations would take on disk, should one write them there: `unbraid cache`."""
    memory: int
    """Bytes for parameters, gradients, moments, a chunk of pre-activations and the shuffle buffer. Not counted: the
    model, what terms keep (`Estimate.kept`), and what a step makes and frees, above all passes through the layers
    after."""
    memory_free: int

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
        return found


@dataclass(frozen=True)
class Estimate:
    """What only measured steps can tell."""

    seconds: float
    kept: int
    """Bytes that terms of all members keep from step to step: banks, averages, small networks. Checkpoints hold them
    too."""

    @property
    def in_checkpoints(self) -> int:
        return (KEPT + 1) * self.kept


def budget(cohort: Sequence[Experiment], out: Path) -> Budget:
    """Raises ValueError, as training would, for experiments that cannot be."""
    check_shared(cohort)
    for experiment in cohort:
        experiment.objective.check()
        experiment.dictionary.check()
        _ = experiment.folder
    source, training = cohort[0].source, cohort[0].training
    source.metadata()  # a layer or site that does not exist stops here
    d_in = source.d_in
    parameters = sum(2 * d_in * e.dictionary.d_sae + 2 * e.dictionary.d_sae + d_in for e in cohort)
    tokens = max(steps(e.training) for e in cohort) * training.batch_size
    buffer = 3 * getattr(source, "buffer_tokens", training.batch_size) * d_in  # a block, its shuffle, the carried rows
    existing = out
    while not existing.exists():
        existing = existing.parent
    return Budget(
        members=len(cohort), tokens=tokens, available=source.available("train"), parameters=parameters,
        disk=parameters * 3 * (KEPT + 1) * FLOAT, disk_free=shutil.disk_usage(existing).free,
        cache=tokens * row_bytes(d_in, "float32"),
        memory=(parameters * 4 + CHUNK_ENTRIES["cpu"] + buffer) * FLOAT, memory_free=free_memory(),
    )  # fmt: skip


def estimate(cohort: Sequence[Experiment]) -> Estimate:
    """What training would take, from a few measured steps of every member and one harvested block."""
    check_needs(cohort)
    source, training = cohort[0].source, cohort[0].training
    sample = fitting_sample(source, training.data_seed)
    longest = max(steps(e.training) for e in cohort)
    before = time.monotonic()
    block = source.block(0, split="train", seed=training.data_seed)
    assert block is not None, "fitting_sample has read it"
    seconds = (time.monotonic() - before) / len(block.rows) * longest * training.batch_size
    stream = Stream(source, training.batch_size, seed=training.data_seed)
    # The same few for every member: a study has more members than its data has batches.
    batches = [next(stream) for _ in range(min(MEASURED_STEPS, longest))]
    kept = 0
    for experiment in cohort:
        if experiment.training.tokens:
            learner = Learner(experiment, sample)
            seconds += learner.steps * measured(learner, batches, source)
            kept += sum(tensor.nbytes for memory in learner.memory.values() for tensor in memory.values())
    return Estimate(seconds, kept)


def measured(learner: Learner, batches: Sequence[Batch], source: Source) -> float:
    """Seconds of a step on raw activations, terms that are due on some steps only included at their true share."""
    cadences = sorted({term.every for term in learner.experiment.objective.terms().values() if term.wanted})

    def seconds(due: int) -> float:
        """Of the last step, so that every term has started, in which terms of cadence `due` run and others do not."""
        others = [every for every in cadences if due % every]
        last = learner.steps - 1
        alone = (i for i in range(last - last % due, -1, -due) if all(i % every for every in others))
        index = next(alone, last - last % due)
        times = []
        for batch in batches:
            supply = Supply(source, learner.experiment.training.data_seed, index)
            before = time.monotonic()
            learner.step(batch, index, supply)
            times.append(time.monotonic() - before)
        return sorted(times)[len(times) // 2]

    seconds(math.lcm(*cadences))  # warm-up: allocations, calibrations
    plain = seconds(1)
    added: dict[int, float] = {}
    for every in cadences:
        if every > 1:
            shared = sum(cost for other, cost in added.items() if every % other == 0)
            added[every] = max(0.0, seconds(every) - plain - shared)
    return plain + sum(cost / every for every, cost in added.items())
