"""Links from a report to the browser of latents, where `unbraid browse` wrote one next to it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

FOLDER = "browser"
"""The folder next to the report in which a browser is looked for."""
SIDES = ("a", "b")
MOST_BYTES = 2**26
"""Largest index that is read."""


@dataclass(frozen=True)
class BrowserLinks:
    """The dictionaries of a browser by name, each with the address of its list."""

    href: str
    dictionaries: tuple[tuple[str, str], ...]


def browser_links(report: Path) -> BrowserLinks | None:
    """Return the links to the browser next to a report; None where there is none, or it is not one that we wrote."""
    folder = report.resolve().parent / FOLDER
    start, index = folder / "index.html", folder / "data" / "index.js"
    if not (start.is_file() and index.is_file()) or index.stat().st_size > MOST_BYTES:
        return None
    found = re.fullmatch(r"unbraid\.data\.index\((.*)\);\s*", index.read_text(encoding="utf-8"), re.DOTALL)
    if found is None:
        return None
    try:
        told: Any = json.loads(found.group(1))
    except ValueError:
        return None
    runs = told.get("runs") if isinstance(told, Mapping) else None
    if not isinstance(runs, list) or not all(isinstance(run, Mapping) for run in runs):
        return None
    href = quote(f"{FOLDER}/index.html")
    names = [str(run.get("method") or run.get("name") or "a dictionary") for run in runs[: len(SIDES)]]
    return BrowserLinks(href, tuple((name, f"{href}#in={side}") for name, side in zip(names, SIDES, strict=False)))
