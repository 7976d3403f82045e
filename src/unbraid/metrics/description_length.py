"""Description length: the bits a token that it takes to send codes whose values are rounded to one global step.

    factorised = sum_j H(q_j),   q = round(z / step),   H(q_j) = h(p_j) + p_j H(q_j | q_j != 0)
    tree       = factorised - sum_j I(q_j != 0; q_i != 0),   i = parent(j)                        (`gate_tree`)
    bound      = L0 (log2 levels + log2 d_sae)                              counts L0 and levels after rounding
    decoder    = (live d_in 16 + parameters / 2 log2 rows) / rows           the atoms, and the tables of the code

MDL-SAEs (Ayonrinde et al. 2024, arXiv 2410.11179) measure the first, without the decoder. The third is their upper
bound; it is one only from L0 = e on: n equal latents of which one is active cost up to 1.44 bits more than log2 n when
each is coded by itself. Without the decoder, as many latents as rows, one active, is nearly the shortest code of all.

Zero rounds to zero, so coarse steps silence weak latents. Entropies are those of the counted frequencies.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.special import xlogy

from unbraid.metrics.early_ratio import EarlyRatio, Part
from unbraid.metrics.gate_tree import Together, gate_tree
from unbraid.metrics.information import binary_entropy
from unbraid.metrics.sparse_counts import shape

Code = Literal["factorised", "tree", "bound"]
Distortion = Callable[[float], EarlyRatio]
"""How bad codes rounded to a step are."""

WEIGHT_BITS = 16
"""Bits of a coordinate of an atom that is sent: bfloat16, as dictionaries are published."""
OCTAVE = 8
"""Steps to choose from in a factor of two."""
ROWS_AT_ONCE = 512
"""Rows decoded at once: few enough to stay in cache."""
ROWS_A_UNIT = 128
"""Rows whose error is one unit: enough that their sum is nearly normal."""
FINEST, COARSEST = -7, 4
"""The range of steps, in octaves from the rms of the active values."""


@dataclass(frozen=True)
class Bits:
    """Bits a token, part by part."""

    gates: float
    """Which latents are active, each by itself."""
    values: float
    """How active they are."""
    saved: float
    """By which gates are cheaper down a tree."""
    bound: float
    atoms: float
    """The live atoms, shared by all rows."""
    tables: float
    """Probabilities of the factorised code's gates and levels."""
    edges: float
    """Parents, and a probability more for each."""

    def total(self, code: Code = "factorised", *, decoder: bool = False) -> float:
        """Return the bits a token of one code, with those of its decoder if `decoder`."""
        codes = {"factorised": self.gates + self.values, "tree": self.gates + self.values - self.saved}
        edges = self.edges if code == "tree" else 0.0
        return (codes | {"bound": self.bound})[code] + decoder * (self.atoms + self.tables + edges)


def rounded(codes: csr_array, step: float) -> csr_array:
    """Return whole multiples of `step`, nearest; what rounds to zero is not stored."""
    whole: Any = codes.copy()
    whole.data = np.rint(whole.data / step)
    whole.eliminate_zeros()
    return whole


def description_length(levels: csr_array, d_in: int) -> Bits:
    """Return the bits of rounded codes [rows, d_sae], whole numbers. Raises ValueError for codes that are not
    rounded."""
    if not np.array_equal(levels.data, np.rint(levels.data)):
        raise ValueError("description_length takes rounded codes, and these hold fractions: give rounded(codes, step)")
    rows, d_sae = shape(levels)
    active, counts = np.bincount(levels.indices, minlength=d_sae).astype(np.float64), level_counts(levels)
    # sum over latents of p H(value | active), from counts: n log2 n of the latent less c log2 c of its levels
    values = float(xlogy(active, active).sum() - xlogy(counts, counts).sum()) / math.log(2) / rows
    fired = torch.from_numpy(active)
    live, half = int((fired > 0).sum()), 0.5 * math.log2(rows)
    tree = gate_tree(fired, together(levels), rows)
    children = int((tree.parent >= 0).sum())
    widest = float(np.abs(levels.data).max(initial=1.0))
    sides = 1 + bool((levels.data < 0).any() and (levels.data > 0).any())
    return Bits(
        gates=float(binary_entropy(fired / rows).sum()),
        values=values,
        saved=float(tree.saved.sum()) / rows,
        bound=levels.nnz / rows * (math.log2(widest * sides) + math.log2(d_sae)),
        atoms=live * d_in * WEIGHT_BITS / rows,
        tables=len(counts) * half / rows,
        edges=children * (half + math.log2(d_sae)) / rows,
    )


def level_counts(levels: csr_array) -> Float[np.ndarray, " level"]:
    """Return how often each latent has each non-zero level that it ever has."""
    lowest = levels.data.min(initial=0.0)
    span = levels.data.max(initial=0.0) - lowest + 1
    keys = levels.indices * span + (levels.data - lowest)
    return np.unique(keys, return_counts=True)[1].astype(np.float64)


def together(levels: csr_array) -> Together:
    """Count the rows in which two latents are both active, for all pairs with any."""
    gates: Any = levels.copy()
    gates.data = np.ones_like(gates.data, dtype=np.float32)
    both = (gates.T @ gates).tocoo()
    child, parent = (torch.from_numpy(column.astype(np.int64)) for column in both.coords)
    return Together(child, parent, torch.from_numpy(both.data.astype(np.float64)))


def rounding_error(
    codes: csr_array, atoms: Float[np.ndarray, "d_sae d_in"], bias: Float[np.ndarray, " d_in"],
    x: Float[np.ndarray, "batch d_in"],
) -> Distortion:  # fmt: skip
    """Return the FVU of what is decoded from rounded codes, by their step; `known` without rounding. NaN where all
    rows are equal, as a single one is."""
    # Rows may come sorted, as those of an array do: the first ones say something of all in random order alone.
    order = np.random.default_rng(0).permutation(len(x))
    codes, x = codes[order], x[order]
    parts = [slice(start, start + ROWS_AT_ONCE) for start in range(0, len(x), ROWS_AT_ONCE)]
    coded: list[csr_array] = [codes[part] for part in parts]
    variance = float(np.square(x - x.mean(0)).sum(1).mean())

    def squares(levels: csr_array, step: float, part: slice) -> Float[np.ndarray, " row"]:
        rest = levels @ atoms
        rest *= step
        rest += bias
        rest -= x[part]
        return np.einsum("ij,ij->i", rest, rest)

    unrounded = [squares(some, 1.0, part) for some, part in zip(coded, parts, strict=True)]

    def added(step: float) -> Iterator[Part]:
        for some, part, before in zip(coded, parts, unrounded, strict=True):
            rows = squares(rounded(some, step), step, part) - before
            units = np.arange(0, len(rows), ROWS_A_UNIT)
            yield np.add.reduceat(rows, units), variance * np.diff(units, append=len(rows))

    known = sum(float(rows.sum()) for rows in unrounded) / (variance * len(x)) if variance > 0 else math.nan
    return lambda step: EarlyRatio(added(step), known)


def coarsest_steps(
    codes: csr_array, distortion: Distortion, targets: Sequence[float], *, octave: int = OCTAVE
) -> dict[float, float]:
    """Return the coarsest step, by bisection over powers of 2^(1/octave) times the rms of the active values, with which
    `distortion` is still at most each target. Targets that the finest step misses are left out."""
    scale = float(np.sqrt(np.square(codes.data).mean())) if codes.nnz else 1.0
    step = lambda exponent: scale * 2.0 ** (exponent / octave)
    measured = cache(lambda exponent: distortion(step(exponent)))
    found = {}
    for target in targets:
        low, high = FINEST * octave, COARSEST * octave
        if not measured(low).at_most(target):
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if measured(middle).at_most(target) else (low, middle)
        found[target] = step(low)
    return found


def principal_bits(x: Float[np.ndarray, "batch d_in"], targets: Sequence[float]) -> dict[float, float]:
    """Return bits a token of principal components rounded to one step, by FVU: the cost of transform coding.

    Components are those of the rows themselves; their decoder is not counted.
    """
    centred = x - x.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    components = csr_array(centred @ vectors)
    error = rounding_error(components, vectors.T, np.zeros(x.shape[1]), centred)
    steps = coarsest_steps(components, error, targets)
    return {at: description_length(rounded(components, step), x.shape[1]).total() for at, step in steps.items()}
