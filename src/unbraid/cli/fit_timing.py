"""The time that a fit to downstream layers will take, from its first few steps: it is stopped after them."""

import time
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from unbraid import seeding
from unbraid.dictionary.initialisation import no_progress
from unbraid.effects.effect import COPIES
from unbraid.sources.base import Contexts, Source
from unbraid.steering.base import FitContext, SliceFit
from unbraid.steering.model_slice import Slice
from unbraid.steering.push_length import FixedRadius, PushLength

MEASURED = 3
"""Steps of a fit that are made, at most."""
PATIENCE = 5.0
"""Seconds after which the steps made so far must do."""
PASSES = 4
"""Of all directions, once the fit is done: which side, and what they do."""


class Enough(Exception):
    """Ends a fit that is only being measured."""


class Reached(NamedTuple):
    """A fit has come so far."""

    at: float
    done: int
    total: int


def fit_seconds(init: SliceFit, count: int, source: Source) -> float:
    """Seconds of fitting `count` directions, calibration included. Raises ValueError where the fit would."""
    begun = time.monotonic()
    contexts = init.contexts_of(source)
    check_count(init, count, contexts)
    after = Slice.of(contexts, last=init.last, keep_skip=init.keep_skip)
    length = init.length_of(after, init.radius_of(contexts, seeding.stream(0, "init")))
    calibrated = time.monotonic()
    few = min(count, COPIES) if init.grows() else count
    reached: list[Reached] = []

    def watch(done: int, total: int) -> None:
        reached.append(Reached(time.monotonic(), done, total))
        if len(reached) > MEASURED or reached[-1].at - reached[0].at > PATIENCE:
            raise Enough

    started = time.monotonic()
    with suppress(Enough):
        init.fit(few, FitContext(after, length, seeding.stream(0, "init"), watch))
    seconds = calibrated - begun + extrapolated(reached, started, time.monotonic(), count / few)
    return seconds + PASSES * pass_seconds(after, few, length) * count / few


def check_count(init: SliceFit, count: int, contexts: Contexts) -> None:
    """Raise ValueError for more directions than the method has: it says so before its first pass downstream."""

    def enough(acts: Tensor) -> NoReturn:
        raise Enough

    with suppress(Enough):
        unused = Slice.of(replace(contexts, downstream=enough), last=init.last, keep_skip=init.keep_skip)
        init.fit(count, FitContext(unused, FixedRadius(1.0), seeding.stream(0, "init"), no_progress))


def extrapolated(reached: list[Reached], started: float, ended: float, scale: float) -> float:
    """Seconds of all steps, from the time of those made; a step takes `scale` times as long as measured."""
    if len(reached) < 2 or reached[-1].done == reached[-1].total:
        return (ended - started) * scale
    step = (reached[-1].at - reached[0].at) / (reached[-1].done - reached[0].done)
    before = max(0.0, reached[0].at - started - step * reached[0].done)
    return before + step * reached[0].total * scale


def pass_seconds(after: Slice, count: int, length: PushLength) -> float:
    """Seconds of finding the lengths of pushes along `count` directions, and what they do."""
    units = torch.eye(after.d_in)[:count].to(after.contexts.acts)
    before = time.monotonic()
    with torch.no_grad():
        after.pooled(length.begin(units) * units)
    return time.monotonic() - before
