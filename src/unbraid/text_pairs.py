"""Minimal pairs of texts that a user gives: one JSON object a line, {"base": "...", "changed": "..."}.

What is read is the last token of each text, so both should end alike, where what was changed matters.
"""

import json
from pathlib import Path

KEYS = ("base", "changed")


def read_pairs(path: str) -> list[tuple[str, str]]:
    """(base, changed) of every line. Raises ValueError for a missing file, a line that is no pair, and no pairs."""
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read pairs from {path} ({error}); check --source.pairs") from error
    found = [pair(line, f"{path}, line {i}") for i, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ValueError(f'{path} holds no pairs: write one a line, {{"base": "…", "changed": "…"}}')
    return found


def pair(line: str, where: str) -> tuple[str, str]:
    try:
        given = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON ({error})") from error
    texts = [given.get(key) if isinstance(given, dict) else None for key in KEYS]
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f'{where}: expected texts under "base" and "changed", found {line[:80]}')
    base, changed = map(str, texts)
    if base == changed:
        raise ValueError(f"{where}: both texts are the same, so nothing was changed")
    return base, changed
