"""Two dictionaries side by side: whether they can be compared, and which latent is which one's twin.

twins = argmax over one-to-one m of sum_i |cos(atom_i, other_m(i))|
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from unbraid.metrics.matching import block_pairs, cosines, unit
from unbraid.runs.run import Run
from unbraid.sources.base import Source

SHOWN = 60
"""Characters of a setting that a message shows."""


class Twins(NamedTuple):
    """The twin of each latent in the other dictionary, -1 for none, and the cosine of their atoms."""

    other: Int[np.ndarray, " d_sae"]
    cosine: Float[np.ndarray, " d_sae"]


def check_comparable(first: Run, second: Run) -> None:
    """Raise ValueError, with the reason, when two runs are one, or are not of one source."""
    if first.path.resolve() == second.path.resolve():
        raise ValueError(f"{first.path} is named twice; name another run, or one alone")
    reason = difference(first.source, second.source)
    if reason:
        raise ValueError(
            f"{first.path.name} and {second.path.name} cannot be shown side by side: {reason}, so they explain other "
            "activations; browse them one by one"
        )


def difference(ours: Source, theirs: Source) -> str:
    """Say in which settings two sources differ; empty when they are one."""
    if ours == theirs:
        return ""
    if type(ours) is not type(theirs):
        return f"the source of one is {type(ours).__name__}, of the other {type(theirs).__name__}"
    fields = [field.name for field in dataclasses.fields(ours)]  # pyright: ignore[reportArgumentType]
    pairs = [(name, getattr(ours, name), getattr(theirs, name)) for name in fields]
    return "; ".join(f"{name} is {str(a)[:SHOWN]!r} and {str(b)[:SHOWN]!r}" for name, a, b in pairs if a != b)


@torch.no_grad()
def twins(first: Run, second: Run, *, signed: bool = False) -> tuple[Twins, Twins]:
    """Match the atoms of two runs one to one; those of the wider one that are left over have no twin.

    `signed`: whether codes may be negative.
    """
    atoms = [run.dictionary().W_dec.detach().float().cpu() for run in (first, second)]
    alike = torch.abs if signed else partial(torch.clamp, min=0.0)
    block = lambda part: alike(cosines(atoms[0][part], atoms[1]))
    ours, theirs = block_pairs(block, len(atoms[0]), len(atoms[1]))
    cosine = (unit(atoms[0])[ours] * unit(atoms[1])[theirs]).sum(1).numpy()
    return tuple(
        put(len(one), place.numpy(), other.numpy(), cosine)
        for one, place, other in ((atoms[0], ours, theirs), (atoms[1], theirs, ours))
    )  # pyright: ignore[reportReturnType]


def put(
    count: int, place: Int[np.ndarray, " pairs"], other: Int[np.ndarray, " pairs"], cosine: Float[np.ndarray, " pairs"]
) -> Twins:
    """Return the twins of one side."""
    found = Twins(np.full(count, -1), np.zeros(count))
    found.other[place], found.cosine[place] = other, cosine
    return found
