"""Writes the folder of a browser: pages that come with this package, and the data of one run or two.

    index.html  *.js  *.css      ours, as they are in static/
    data/index.js                the runs, and the factors where they are known
    data/a/list.js  data/b/…     a row a latent, for the list
    data/a/0.js, 1.js, …         details of 64 latents each: a page of a latent loads its own shard alone
    data/rows.js                 the text, or the rows with their factors

A page opened from a disk may not read files, so data are scripts that hand it over. Nothing is fetched from elsewhere.
"""

import json
import shutil
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from unbraid.browser.data import about, factor_names, list_data, rows_data, shards
from unbraid.browser.stored_cards import StoredCards, read_cards
from unbraid.browser.stored_examples import StoredExamples, read_examples
from unbraid.browser.twins import Twins, check_comparable, twins
from unbraid.formats.export import new_folder
from unbraid.runs.run import Run

SIDES = ("a", "b")
"""Names of the first run and of the second."""


def write_browser(runs: Sequence[Run], out: Path) -> None:
    """Write the pages of one run, or of two side by side, into the new folder `out`.

    Raises ValueError for another number of runs, for two of different sources, for a run without examples, and when
    `out` exists.
    """
    if not 1 <= len(runs) <= len(SIDES):
        raise ValueError(f"a browser shows one run, or two side by side; {len(runs)} are named")
    if len(runs) == len(SIDES):
        check_comparable(*runs)
    examples = [read_examples(run) for run in runs]
    if len(runs) == len(SIDES) and examples[0].has_text and not examples[0].rows.equals(examples[1].rows):
        raise ValueError(
            "the two runs have examples of different held-out text, made by different versions; make them again with: "
            f"unbraid eval {runs[0].path} {runs[1].path} --evals examples --force"
        )
    cards = [read_cards(run) for run in runs]
    signed = any(bool((found.latents["lowest"].to_numpy() < 0).any()) for found in examples)
    matched = twins(*runs, signed=signed) if len(runs) == len(SIDES) else (None, None)
    described = [about(run, found, own) for run, found, own in zip(runs, examples, cards, strict=True)]
    with new_folder(out) as folder:
        with as_file(files("unbraid.browser") / "static") as static:
            shutil.copytree(static, folder, dirs_exist_ok=True)
        put(folder / "data" / "index.js", "index", {"runs": described, "factors": factor_names(examples[0])})
        put_data(folder / "data", examples, matched, cards)


def put_data(
    folder: Path, examples: Sequence[StoredExamples], matched: Sequence[Twins | None],
    cards: Sequence[StoredCards | None],
) -> None:  # fmt: skip
    """Write the data of all latents, and the rows that their contexts are stretches of."""
    for side, found, pairs, carded in zip(SIDES, examples, matched, cards, strict=False):
        put(folder / side / "list.js", "list", side, list_data(found, pairs, carded))
        for number, shard in enumerate(shards(found, carded)):
            put(folder / side / f"{number}.js", "shard", side, number, shard)
    put(folder / "rows.js", "rows", rows_data(examples))


def put(path: Path, what: str, *values: Any) -> None:
    """Write a script that hands values to the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = ",".join(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False) for value in values)
    path.write_text(f"unbraid.data.{what}({told});\n", encoding="utf-8")
