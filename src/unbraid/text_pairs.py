"""Minimal pairs of texts that a user gives: one JSON object a line, {"base": "...", "changed": "..."}, or a table.

What is read is the last token of each text, so both should end alike, where what was changed matters.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unbraid.text_documents import without_surrogates
from unbraid.text_rows import rows

KEYS = ("base", "changed")


def read_pairs(path: str) -> list[tuple[str, str]]:
    """(base, changed) of every row. Raises ValueError for a missing file, a row that is no pair, and no pairs."""
    try:
        found = [pair(row, where) for where, row in rows(Path(path).expanduser(), KEYS)]
    except ValueError as error:
        reason = str(error).replace(f" of {path}", "")
        raise ValueError(f"cannot read pairs from {path}: {reason}; check --source.pairs") from error
    if not found:
        raise ValueError(f'{path} holds no pairs: write one a line, {{"base": "…", "changed": "…"}}')
    return found


def pair(row: Any, where: str) -> tuple[str, str]:
    texts = [row.get(key) if isinstance(row, Mapping) else None for key in KEYS]
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f'{where}: expected texts under "base" and "changed", found {str(row)[:80]}')
    base, changed = (without_surrogates(str(text)) for text in texts)
    if base == changed:
        raise ValueError(f"{where}: both texts are the same, so nothing was changed")
    return base, changed
