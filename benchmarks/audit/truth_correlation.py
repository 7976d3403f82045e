"""Second lens: do scores order dictionaries as what is known to be true does?

Spearman's correlation within each draw, over the dictionaries of that draw, then the mean over draws. The interval is a
bootstrap over dictionaries and draws: methods, as the same in every draw, and draws are drawn again with replacement.
A score's sign is turned so that more is better. Draws in which a score has no two different values are left out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from benchmarks.audit.panel import Kind
from benchmarks.audit.rows import Rows
from unbraid.comparison.intervals import LEVEL

RESAMPLES = 400
FEWEST = 5
"""Least number of dictionaries in a draw."""
SEED = 0

Table = Mapping[str, Mapping[str, float]]
"""By dictionary, its scores by name."""


class Agreement(NamedTuple):
    """A score's correlation with a known truth."""

    rho: float
    low: float
    high: float
    draws: int


def tables(rows: Rows, kinds: Sequence[Kind]) -> list[dict[str, dict[str, float]]]:
    """Return the dictionaries of each draw that has all these kinds."""
    found: dict[tuple[int, int], dict[str, dict[str, float]]] = {}
    seen: dict[tuple[int, int], set[Kind]] = {}
    for case, own in rows.scores.items():
        if case.kind in kinds:
            draw = case.source, case.seed
            found.setdefault(draw, {})[case.name] = own
            seen.setdefault(draw, set()).add(case.kind)
    return [table for draw, table in sorted(found.items()) if seen[draw] == set(kinds)]


def agreements(
    draws: Sequence[Table], scores: Sequence[str], truths: Sequence[str], better: Mapping[str, str]
) -> dict[tuple[str, str], Agreement]:
    """Correlate every score with every truth."""
    names = sorted({name for table in draws for name in table})
    wanted = list(dict.fromkeys([*scores, *truths]))
    sign = np.array([-1.0 if better[score] == "lower" else 1.0 for score in wanted])
    cube = np.array([[[table.get(n, {}).get(s, math.nan) for n in names] for s in wanted] for table in draws])
    cube = cube.reshape(len(draws), len(wanted), len(names)) * sign[None, :, None]
    columns = [wanted.index(truth) for truth in truths]
    whole = within(cube, columns)
    rng = np.random.default_rng(SEED)
    drawn = [again(cube, columns, rng) for _ in range(RESAMPLES)]
    low, high = interval(np.stack(drawn)) if drawn else (whole.rho, whole.rho)
    return {
        (score, truth): Agreement(float(whole.rho[i, j]), float(low[i, j]), float(high[i, j]), int(whole.draws[i, j]))
        for i, score in enumerate(wanted)
        for j, truth in enumerate(truths)
    }


class Within(NamedTuple):
    """Mean correlations within draws [score, truth], and the number of draws that each is of."""

    rho: np.ndarray
    draws: np.ndarray


def within(cube: np.ndarray, columns: Sequence[int]) -> Within:
    """Return the mean over draws of the rank correlations of all scores with those at `columns`."""
    each = np.stack([correlations(cube, cube[:, [column]]) for column in columns], -1)
    draws = np.isfinite(each).sum(0)
    total = np.where(np.isfinite(each), each, 0).sum(0)
    return Within(np.where(draws > 0, total / np.maximum(draws, 1), math.nan), draws)


def correlations(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation along the last axis, over the dictionaries that both have; NaN for fewer than
    FEWEST, and where one has no spread."""
    both = np.isfinite(values) & np.isfinite(truth)
    count = both.sum(-1, keepdims=True)
    a, b = (centred(ranked(part, both), both, count) for part in (values, np.broadcast_to(truth, values.shape)))
    sizes = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    known = (sizes > 0) & (count[..., 0] >= FEWEST)
    return np.where(known, (a * b).sum(-1) / np.where(known, sizes, 1), math.nan)


def ranked(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the ranks of the known values along the last axis; equal ones share their mean rank."""
    return rankdata(np.where(known, values, math.inf), axis=-1)  # unknown ones come last, and move no other's rank


def centred(ranks: np.ndarray, known: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return ranks less their mean, 0 where there is none."""
    known_ranks = np.where(known, ranks, 0)
    return np.where(known, ranks - known_ranks.sum(-1, keepdims=True) / np.maximum(count, 1), 0)


def again(cube: np.ndarray, columns: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Return the mean correlations of draws and dictionaries drawn again."""
    draws = rng.integers(cube.shape[0], size=cube.shape[0])
    names = rng.integers(cube.shape[2], size=cube.shape[2])
    return within(cube[draws][:, :, names], columns).rho


def interval(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the percentile interval, NaN where nothing was drawn."""
    tail = 100 * (1 - LEVEL) / 2
    found = np.full((2, *drawn.shape[1:]), math.nan)
    for place in np.ndindex(drawn.shape[1:]):
        own = drawn[(slice(None), *place)]
        own = own[np.isfinite(own)]
        if len(own):
            found[(slice(None), *place)] = np.percentile(own, [tail, 100 - tail])
    return found[0], found[1]
