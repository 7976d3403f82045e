"""Hints for a name that there is not: the nearest that there is, or the first few of all."""

import difflib
from collections.abc import Collection


def nearest(name: str, known: Collection[str], *, cutoff: float = 0.6) -> str:
    """Return "did you mean …?", or the names that there are. `cutoff`: how alike two names are, at least, from 0 to
    1."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}?" if near else f"there are: {first_few(known, 30)}"


def first_few(names: Collection[str], most: int = 5) -> str:
    """Return the first names, and how many there are if not all are shown."""
    shown = ", ".join(list(names)[:most])
    return shown if len(names) <= most else f"{shown}, … ({len(names)} in all)"
