"""Cuts a training into shards for several workers: experiments that share a stream, trained by one process.

A shard reads its whole stream, so a cohort in several shards is read several times, and a language model runs once for
each. So cohorts stay whole as long as the workers end about together, and as few as possible are cut.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from unbraid.experiment.experiment import Experiment
from unbraid.steering.base import SliceFit
from unbraid.training.schedule import steps

SLACK = 1.1
"""Time of the busiest worker, as a multiple of an equal share, up to which nothing more is cut."""


@dataclass(frozen=True)
class Shard:
    """Experiments on one stream, for one process."""

    experiments: tuple[Experiment, ...]
    place: str = ""
    """Which stream and part of how many; empty where there is one of each."""

    @cached_property
    def size(self) -> float:
        """Its share of the work, in units of no meaning."""
        return sum(map(size, self.experiments))


def size(experiment: Experiment) -> float:
    """Work of a training: tokens times latents, and a little where nothing is trained."""
    return 1.0 + steps(experiment.training) * experiment.training.batch_size * experiment.dictionary.d_sae


def shards(cohorts: Sequence[Sequence[Experiment]], workers: int) -> list[Shard]:
    """Cut as few cohorts as it takes for so many workers to end together; the largest shard first."""
    ordered = [sorted(cohort, key=weight, reverse=True) for cohort in cohorts]
    most = min(workers, max(map(len, cohorts), default=1))  # parts: more of them would be empty
    ways = [(0, 1), *product(range(1, min(len(cohorts), workers) + 1), range(2, most + 1))]
    ways.sort(key=lambda way: way[0] * (way[1] - 1))  # by how often a stream is read once more
    share = sum(size(experiment) for cohort in cohorts for experiment in cohort) / workers
    best, least = list[Shard](), math.inf
    for several, parts in ways:
        found = cut(ordered, several, parts)
        time = longest(found, workers)
        if time < least * (1 - 1e-9):
            best, least = found, time
        if time <= SLACK * share:
            break
    return best


def cut(cohorts: Sequence[Sequence[Experiment]], several: int, parts: int) -> list[Shard]:
    """The shards when the `several` largest cohorts are cut into so many parts each; the largest first."""
    by_size = sorted(range(len(cohorts)), key=lambda number: -sum(map(size, cohorts[number])))
    found = []
    for rank, number in enumerate(by_size):
        members = dealt(cohorts[number], min(parts, len(cohorts[number])) if rank < several else 1)
        stream = [f"stream {number + 1} of {len(cohorts)}"] if cohorts[1:] else []
        for index, part in enumerate(members, 1):
            words = [*stream, f"part {index} of {len(members)}"] if members[1:] else stream
            found.append(Shard(tuple(part), ", ".join(words)))
    return sorted(found, key=lambda shard: -shard.size)


def longest(found: Sequence[Shard], workers: int) -> float:
    """The size of what the busiest worker does when each takes the next shard as soon as it is free."""
    busy = [0.0] * workers
    for shard in found:
        busy[busy.index(min(busy))] += shard.size
    return max(busy)


def dealt(cohort: Sequence[Experiment], parts: int) -> list[list[Experiment]]:
    """Members, those alike next to each other, in parts that take about as long: dealt in turn, there and back."""
    found: list[list[Experiment]] = [[] for _ in range(parts)]
    for index, member in enumerate(cohort):
        turn, place = divmod(index, parts)
        found[place if turn % 2 == 0 else parts - 1 - place].append(member)
    return found


def weight(experiment: Experiment) -> tuple[bool, float, float, int]:
    """Rank members by how long they take: by a fit first, then passes through the model, tokens and latents, terms."""
    terms = [term for term in experiment.objective.terms().values() if term.enabled]
    passes = sum((1 / term.every for term in terms if {"contexts", "counterfactuals"} & set(term.reads)), 0.0)
    return isinstance(experiment.dictionary.init, SliceFit), passes, size(experiment), len(terms)
