"""Chooses the places of the held-out rows that show what a latent is: its strongest, and samples of the rest.

A context is a stretch of one window around the row it was chosen for. The strongest are of different windows, so that
one text does not fill the page; the samples are drawn at random from bands that hold equally many firings each, since
strongest places alone make a latent look purer than it is.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from unbraid import seeding

TOP = 10
"""Strongest places of a latent."""
BANDS = 4
EACH = 3
"""Samples of a band."""
BEFORE, AFTER = 24, 12
"""Rows of a context before and after the one it was chosen for."""
SEED = 0
STRONGEST = 0
"""The band of the strongest places; the others are numbered from 1, the weakest, to BANDS."""


class ExampleContexts(NamedTuple):
    """Contexts, latent by latent, the strongest band first; and where in them the latent fires."""

    latent: Int[np.ndarray, " n"]
    band: Int[np.ndarray, " n"]
    row: Int[np.ndarray, " n"]
    """The row that it was chosen for."""
    start: Int[np.ndarray, " n"]
    stop: Int[np.ndarray, " n"]
    """One past its last row."""
    bounds: Int[np.ndarray, " n_plus_1"]
    """Where each context's firings begin in the two arrays below, and where the last one's end."""
    fired: Int[np.ndarray, " firings"]
    """Rows in which the latent fires, counted from the start of the context."""
    values: Float[np.ndarray, " firings"]


def contexts_of(codes: csr_array, windows: Int[np.ndarray, " rows"]) -> ExampleContexts:
    """Choose contexts for every latent. `windows`: of each row, ascending; a context does not leave its window."""
    first = np.searchsorted(windows, windows, side="left")
    past = np.searchsorted(windows, windows, side="right")
    rng = seeding.stream(SEED, "examples")
    columns = codes.tocsc()
    parts, bounds = [], [np.zeros(1, dtype=np.int64)]
    for latent in np.flatnonzero(np.diff(columns.indptr)).tolist():
        there = slice(columns.indptr[latent], columns.indptr[latent + 1])
        rows, values = columns.indices[there].astype(np.int64), columns.data[there]
        chosen, band = choose(np.abs(values), windows[rows], rng)
        row = rows[chosen]
        start, stop = np.maximum(first[row], row - BEFORE), np.minimum(past[row], row + AFTER + 1)
        low, high = np.searchsorted(rows, start), np.searchsorted(rows, stop)
        places = np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)])
        bounds.append(high - low)
        fired = rows[places] - np.repeat(start, high - low)
        parts.append((np.full(len(row), latent), band, row, start, stop, fired, values[places]))
    whole = [np.concatenate(part) for part in zip(*parts, strict=True)] if parts else [np.zeros(0, int)] * 7
    latent, band, row, start, stop, fired, values = whole
    return ExampleContexts(latent, band, row, start, stop, np.concatenate(bounds).cumsum(), fired, values)


def choose(
    size: Float[np.ndarray, " fired"], windows: Int[np.ndarray, " fired"], rng: torch.Generator
) -> tuple[Int[np.ndarray, " chosen"], Int[np.ndarray, " chosen"]]:
    """Return which firings are shown, and the band of each. `size`: their |values|."""
    order = np.argsort(-size, kind="stable")
    _, first = np.unique(windows[order], return_index=True)
    top = order[np.sort(first)[:TOP]]
    chosen, bands = [top], [np.zeros(len(top), dtype=np.int64)]
    for band, part in reversed(list(enumerate(np.array_split(order[::-1], BANDS), 1))):
        drawn = np.fromiter(sample(part, set(top.tolist()), rng), dtype=np.int64)
        chosen.append(drawn[np.argsort(-size[drawn], kind="stable")])
        bands.append(np.full(len(drawn), band))
    return np.concatenate(chosen), np.concatenate(bands)


def sample(part: Int[np.ndarray, " some"], taken: set[int], rng: torch.Generator) -> Iterator[int]:
    """Yield at most EACH of a band that are not taken, at random."""
    free = [place for place in part.tolist() if place not in taken]
    yield from (free[i] for i in torch.randperm(len(free), generator=rng)[:EACH].tolist())
