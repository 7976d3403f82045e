"""Links from a report to the browsers of latents next to it, as `unbraid browse` writes them: latents by their names.

A browser is a folder whose name begins with "browser". Of each dictionary the latents are named that detect a factor
best, and one that absorbed a factor. What its files hold is shown as text alone, and an address is made of numbers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unbraid.comparison.names import method_name
from unbraid.comparison.wording import number

PATTERN = "browser*"
SIDES = ("a", "b")
MOST_BYTES = 2**26
"""Largest file that is read."""
MOST_LATENTS = 4


@dataclass(frozen=True)
class DictionaryLinks:
    """One dictionary of a browser: its name, its list and some of its latents, each a text and an address."""

    name: str
    href: str
    latents: tuple[tuple[str, str], ...]


def browser_links(report: Path) -> list[DictionaryLinks]:
    """Return the dictionaries of the browsers next to a report; none where there are none that can be read."""
    folders = sorted(path for path in report.resolve().parent.glob(PATTERN) if (path / "index.html").is_file())
    return [found for folder in folders for found in dictionaries(folder)]


def dictionaries(folder: Path) -> list[DictionaryLinks]:
    """The dictionaries of one browser."""
    index = handed_over(folder / "data" / "index.js")
    runs = index[0].get("runs") if index and isinstance(index[0], Mapping) else None
    if not isinstance(runs, list) or not all(isinstance(run, Mapping) for run in runs):
        return []
    start = quote(f"{folder.name}/index.html")
    named = index[0].get("factors")
    factors = [name_of(factor) for factor in named] if isinstance(named, list) else []
    found = []
    for side, run in zip(SIDES, runs, strict=False):
        columns = handed_over(folder / "data" / side / "list.js")
        latents = named_latents(columns[-1], factors) if columns and isinstance(columns[-1], Mapping) else []
        links = tuple((text, f"{start}#latent={latent}&in={side}") for latent, text in latents)
        found.append(DictionaryLinks(method_name(str(run.get("method") or "dictionary")), f"{start}#in={side}", links))
    return found


def named_latents(columns: Mapping[str, Any], factors: Sequence[str]) -> list[tuple[int, str]]:
    """The latents that detect a factor best, each another factor, and the first that absorbed one."""
    which, scores = columns.get("factor"), columns.get("f1")
    if not (isinstance(which, list) and isinstance(scores, list) and len(which) == len(scores)):
        return []
    known = [
        (score, latent, factors[factor])
        for latent, (factor, score) in enumerate(zip(which, scores, strict=True))
        if isinstance(factor, int) and 0 <= factor < len(factors) and isinstance(score, int | float)
    ]
    best: dict[str, tuple[int, str]] = {}
    for score, latent, name in sorted(known, key=lambda entry: (-entry[0], entry[1])):
        if name not in best and len(best) < MOST_LATENTS:
            best[name] = latent, f"{name} (F1 {number(float(score))})"
    absorbs = columns.get("absorbs")
    said = (
        [text for entry in absorbs.items() if (text := absorbed(entry, factors))] if isinstance(absorbs, dict) else []
    )
    return [*best.values(), *said[:1]]


def name_of(factor: object) -> str:
    """Return the name of a factor, of which pages store its name and its parent."""
    return str(factor.get("name", "")) if isinstance(factor, Mapping) else ""


def absorbed(entry: tuple[str, Any], factors: Sequence[str]) -> tuple[int, str] | None:
    """A latent with the first factor that it absorbed; None for an entry of another shape."""
    latent, parents = entry
    first = parents[0][0] if isinstance(parents, list) and parents and isinstance(parents[0], list) else None
    if not latent.isdecimal() or not isinstance(first, int) or not 0 <= first < len(factors):
        return None
    return int(latent), f"one that absorbed {factors[first]}"


def handed_over(path: Path) -> list[Any]:
    """The values that a data file of a browser hands to its page; none where it is no such file."""
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        return []
    found = re.fullmatch(r"unbraid\.data\.\w+\((.*)\);\s*", path.read_text(encoding="utf-8"), re.DOTALL)
    try:
        return json.loads(f"[{found.group(1)}]") if found else []
    except ValueError:
        return []
