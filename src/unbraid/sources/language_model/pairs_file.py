"""Minimal pairs of texts: the language's, or a user's.

A user gives one JSON object a line, {"base": "...", "changed": "..."}, or a table with those columns.

Activations are read at the last token of each text, so both should end alike, where the change matters.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unbraid import seeding
from unbraid.sources.synthetic_language.pairs import VARIABLES, pairs
from unbraid.sources.synthetic_language.spelling import spell
from unbraid.sources.text.documents import is_language, without_surrogates
from unbraid.sources.text.rows import rows

KEYS = ("base", "changed")
PAIRS_EACH = 64
"""Minimal pairs of every variable of the language, read once."""


def pair_documents(path: str, text: str, tokenizer: Any, split: str) -> list[list[Sequence[int]]]:
    """Return both sides of every pair, as ids of tokens: of the file at `path`, else of the language.

    A file's pairs are the same for both splits. Raises ValueError where there is neither.
    """
    if path:
        ids = lambda side: tokenizer.convert_tokens_to_ids(tokenizer.tokenize(side))
        return [[ids(side) for side in texts] for texts in read_pairs(path)]
    if not is_language(text):
        raise ValueError(
            "this text has no minimal pairs: name a file of them with --source.pairs, or read the synthetic language "
            "with --source.text language://20000"
        )
    seed = seeding.integer(1, f"counterfactuals/{split}")
    found = [made for variable in VARIABLES for made in pairs(variable, PAIRS_EACH, seed=seed)]
    sides = (
        [one.ids for one in spell(tokenizer, side)] for side in zip(*((p.base, p.changed) for p in found), strict=True)
    )
    return [[base, changed] for base, changed in zip(*sides, strict=True)]


def read_pairs(path: str) -> list[tuple[str, str]]:
    """Return (base, changed) of every row.

    Raises ValueError for a missing file, a row that is no pair, and no pairs.
    """
    try:
        found = [pair(row, where) for where, row in rows(Path(path).expanduser(), KEYS)]
    except ValueError as error:
        reason = str(error).replace(f" of {path}", "")
        raise ValueError(f"cannot read pairs from {path}: {reason}; check --source.pairs") from error
    if not found:
        raise ValueError(f'{path} holds no pairs: write one a line, {{"base": "…", "changed": "…"}}')
    return found


def pair(row: Any, where: str) -> tuple[str, str]:
    """Return the two texts of a row. Raises ValueError when one is missing or empty, or both are the same."""
    texts = [row.get(key) if isinstance(row, Mapping) else None for key in KEYS]
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f'{where}: expected texts under "base" and "changed", found {str(row)[:80]}')
    base, changed = (without_surrogates(str(text)) for text in texts)
    if base == changed:
        raise ValueError(f"{where}: both texts are the same, so nothing was changed")
    return base, changed
