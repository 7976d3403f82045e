"""What an experiment will cost, before any work: tokens, disk, memory, time, and what the model will read."""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unbraid.dictionary import CHUNK_ENTRIES
from unbraid.experiment import Experiment
from unbraid.checkpoint import KEPT
from unbraid.source import Stream
from unbraid.train import Learner, check_needs, check_shared, context_supply, fitting_sample, steps

MEASURED_STEPS = 3
FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class Plan:
    members: int
    tokens: int
    """Tokens the longest member needs."""
    available: float
    parameters: int
    """Of all members together."""
    disk: int
    """Bytes written at the peak: checkpoints, then final weights."""
    disk_free: int
    memory: int
    """Bytes for parameters, gradients, moments, one chunk of pre-activations and the shuffle buffer; the model apart."""
    memory_free: int
    seconds: float
    """Estimated from a few measured steps; harvesting included."""
    sample: list[str]

    def problems(self) -> list[str]:
        """Why this cannot run, each with its remedy; empty when it can."""
        found = []
        if self.available < self.tokens:
            found.append(
                f"{self.tokens:,} tokens are needed and {self.available:,.0f} available: give more text, lower "
                "--training.tokens, or allow more passes with --source.epochs"
            )
        if self.disk > self.disk_free:
            found.append(f"{self.disk:,} bytes of disk are needed and {self.disk_free:,} free: write elsewhere with --out")
        if self.memory > self.memory_free:
            found.append(f"{self.memory:,} bytes of memory are needed and {self.memory_free:,} free: fewer members or latents")
        return found


def plan(cohort: Sequence[Experiment], out: Path) -> Plan:
    """Measure a few real steps and add up the rest. Raises ValueError as training would for experiments that cannot be."""
    check_shared(cohort)
    check_needs(cohort)
    source, training = cohort[0].source, cohort[0].training
    sample = fitting_sample(source, training.data_seed)
    learners = [Learner(experiment, sample) for experiment in cohort]
    longest = max(learner.steps for learner in learners)
    stream = Stream(source, training.batch_size, seed=training.data_seed)
    next(stream)
    before = time.monotonic()
    block = source.block(0, split="train", seed=training.data_seed)
    assert block is not None, "fitting_sample has read it"
    rows = len(block.rows)
    harvest = (time.monotonic() - before) / rows
    per_step = 0.0
    for learner in learners:
        if learner.steps:
            per_step += measured(learner, stream, training.data_seed) * learner.steps / longest
    parameters = sum(sum(p.numel() for p in learner.dictionary.parameters()) for learner in learners)
    weights = parameters * FLOAT
    chunk = CHUNK_ENTRIES["cpu"] * FLOAT
    buffer = 2 * rows * source.d_in * FLOAT
    tokens = longest * training.batch_size
    available = source.available("train")
    existing = out
    while not existing.exists():
        existing = existing.parent
    return Plan(
        members=len(cohort), tokens=tokens, available=available, parameters=parameters,
        disk=weights * 3 * (KEPT + 1), disk_free=shutil.disk_usage(existing).free,
        memory=weights * 4 + chunk + buffer, memory_free=free_memory(),
        seconds=longest * per_step + tokens * harvest, sample=source.sample_text(2),
    )  # fmt: skip


def measured(learner: Learner, stream: Stream, seed: int) -> float:
    """Seconds of a step, terms that are due on some steps only included at their true share."""
    every = max(term.every for term in learner.experiment.objective.terms().values())

    def seconds(index: int) -> float:
        batch, contexts = next(stream), context_supply(stream.source, seed, index)
        before = time.monotonic()
        learner.step(batch, index, contexts)
        return time.monotonic() - before

    seconds(0)  # warm-up: allocations, calibrations
    plain = sorted(seconds(1) for _ in range(MEASURED_STEPS))[MEASURED_STEPS // 2]
    return plain if every == 1 else plain + max(0.0, seconds(0) - plain) / every


def free_memory() -> int:
    """Bytes the system can still give; what /proc says on Linux, else physical memory."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
