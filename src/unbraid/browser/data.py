"""Makes what the pages read, as plain data: a summary of each latent for the list, and its details in shards.

Every number is rounded to three or four digits, which is what a page shows.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from unbraid.browser.stored_cards import StoredCards
from unbraid.browser.stored_examples import StoredExamples
from unbraid.browser.twins import Twins
from unbraid.evals.shared.example_contexts import STRONGEST
from unbraid.runs.results import read_result, result_path
from unbraid.runs.run import Run
from unbraid.system.each import Failure, attempt

SHARD = 64
"""Latents in a file of details."""
ANCHORS, NEXT = 5, 3
"""Tokens and next tokens by which the list names a latent."""
HEADLINES = (
    ("fidelity", "fvu", "FVU"), ("fidelity", "l0", "L0"), ("fidelity", "alive", "alive"),
    ("fidelity", "loss_recovered", "loss recovered"), ("recovery", "mcc", "MCC"), ("recovery", "f1", "F1"),
)  # fmt: skip
CONTROL = ("effect", "modularity", "isolation", "hit", "additive_r2", "interaction", "overlap")
"""Scores of controllability, in the order shown."""
CARD_NUMBERS = ("own_effect", "length", "dose", "cost", "selectivity", "steadiness")


def rounded(values: Any, digits: int = 4) -> list[float | None]:
    """Return numbers to so many significant digits; None for what is not finite, which JSON does not have."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in np.asarray(values, float).ravel()]


def about(run: Run, found: StoredExamples, cards: StoredCards | None = None) -> dict[str, Any]:
    """Return what the page says of a run."""
    experiment = run.experiment
    budget = {"cards": rounded([cards.budget, cards.random], 3)} if cards is not None else {}
    return budget | {
        "name": run.path.name,
        "latents": found.latents.num_rows,
        "shard": SHARD,
        "source": site_of(run, found),
        "method": f"{experiment.name}, {type(experiment.dictionary.activation).__name__}, seed {experiment.seed}",
        "scores": headline_scores(run),
        "control": control_scores(run),
    }


def site_of(run: Run, found: StoredExamples) -> str:
    """Return what the activations are of, as cfg.json says it: a model's site, or the kind of source."""
    known = run.facts.cfg.get("metadata") if found.has_text else {}
    known = known if isinstance(known, dict) else {}
    named = {"model": "model_name", "site": "hook_name", "text": "dataset_path"}
    site = [f"{word} {without_folder(str(known[key]))}" for word, key in named.items() if known.get(key)]
    return " · ".join(site) or f"{type(run.source).__name__}, {run.d_in} dimensions"


def without_folder(named: str) -> str:
    """Return the name of a file or folder alone: where it lies on one machine says nothing on another. Addresses and
    names of the hub stay as they are."""
    return Path(named).name if "://" not in named and (Path(named).is_absolute() or ".." in named) else named


def headline_scores(run: Run) -> list[tuple[str, float]]:
    """Return the stored scores that tell most of a dictionary."""
    found = {name: stored_scores(run, name) for name in {name for name, _, _ in HEADLINES}}
    shown = [(title, found[name].get((metric, "measured"))) for name, metric, title in HEADLINES]
    return [(title, score[0]) for title, score in shown if score is not None]


def control_scores(run: Run) -> list[dict[str, Any]]:
    """Return what setting its latents does, from the stored results of controllability: means over latents that were
    set, with chance."""
    found = stored_scores(run, "controllability")
    return [
        {"name": metric, "value": found[metric, "measured"][0], "about": found[metric, "measured"][1]}
        | ({"chance": found[metric, "chance"][0]} if (metric, "chance") in found else {})
        for metric in CONTROL
        if (metric, "measured") in found
    ]


def stored_scores(run: Run, name: str) -> dict[tuple[str, str], tuple[float, str]]:
    """Return the scores of an eval by metric and kind, each with its definition; of several params the first. Empty
    where there is no result of its weights that can be read."""
    path = result_path(run.path, name)
    result = attempt(path.name, lambda: read_result(path)) if path.exists() else {}
    found: dict[tuple[str, str], tuple[float, str]] = {}
    if isinstance(result, Failure) or result.get("weights", "") != run.facts.weights:
        return found
    for row in result.get("scores", ()):
        if row["value"] is not None:
            about = str(result.get("definitions", {}).get(row["metric"], ""))
            found.setdefault((row["metric"], row.get("kind", "measured")), (float(f"{row['value']:.3g}"), about))
    return found


def factor_names(found: StoredExamples) -> list[dict[str, Any]]:
    """Return the factors by number; empty where they are not known."""
    return [] if found.factors is None else found.factors.to_pylist()


def rows_data(tables: Sequence[StoredExamples]) -> dict[str, Any]:
    """Return the rows that contexts are stretches of, of one run or two."""
    first = tables[0].rows
    if tables[0].has_text:
        window, position = first["window"].to_numpy(), first["position"].to_numpy()
        gap = np.flatnonzero((np.diff(window) == 0) & (np.diff(position) > 1)) + 1
        return {"texts": first["text"].to_pylist(), "gaps": gap.tolist()}
    rows: dict[int, Any] = {}
    for table in tables:
        for row in table.rows.select(["row", "factors", "magnitudes"]).to_pylist():
            rows[row["row"]] = [row["factors"] or [], rounded(row["magnitudes"] or [], 3)]
    return {"rows": rows}


def list_data(found: StoredExamples, twins: Twins | None, cards: StoredCards | None = None) -> dict[str, Any]:
    """Return the columns of the list of latents."""
    table = found.latents
    data: dict[str, Any] = {
        "fires": table["fires"].to_pylist(),
        "anchors": anchors(found),
        "rows": found.held_out,
    }
    data["highest"] = rounded(largest(table), 3)
    if found.factors is not None:
        data |= {"factor": table["factor"].to_pylist(), "f1": rounded(table["f1"], 3)}
        data["represents"] = [int(flag) for flag in table["represents"].to_pylist()]
        absorbs = zip(table["absorbs"].to_pylist(), table["absorbs_share"].to_pylist(), strict=True)
        data["absorbs"] = {
            latent: [*zip(parents, rounded(shares, 2), strict=True)]
            for latent, (parents, shares) in enumerate(absorbs)
            if parents
        }
    if table["promoted"].null_count == 0:
        data["next"] = [tokens[:NEXT] for tokens in table["promoted"].to_pylist()]
    if cards is not None:
        effects = [cards.by_latent.get(latent, {}).get("own_effect", np.nan) for latent in range(table.num_rows)]
        data["effect"] = rounded(effects, 3)
    if twins is not None:
        data |= {"twin": twins.other.tolist(), "similarity": rounded(twins.cosine, 3)}
    return data


def largest(table: pa.Table) -> np.ndarray:
    """Return the value of each latent that is largest in size; codes may be negative."""
    low, high = table["lowest"].to_numpy(), table["highest"].to_numpy()
    return np.where(np.abs(low) > np.abs(high), low, high)


def anchors(found: StoredExamples) -> list[list[str]]:
    """Return the different tokens on which each latent is strongest, the strongest first; empty without text."""
    named: list[dict[str, None]] = [{} for _ in range(found.latents.num_rows)]
    if found.has_text:
        texts = found.rows["text"].to_pylist()
        columns = (found.contexts[name].to_pylist() for name in ("latent", "band", "row"))
        for latent, band, row in zip(*columns, strict=True):
            if band == STRONGEST and texts[row].strip():
                named[latent].setdefault(texts[row].strip())
    return [[*tokens][:ANCHORS] for tokens in named]


def shards(found: StoredExamples, cards: StoredCards | None = None) -> Iterator[list[dict[str, Any]]]:
    """Yield the details of SHARD latents at a time."""
    by_latent = cards.by_latent if cards is not None else {}
    for number, shard in enumerate(shards_of(found, SHARD)):
        yield [
            latent_data(row, contexts) | card_data(by_latent.get(latent))
            for latent, (row, contexts) in enumerate(shard, number * SHARD)
        ]


def card_data(card: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the causal card of a latent, empty for one that has none."""
    if card is None:
        return {}
    moved = lambda word: [
        *zip(card[word], rounded(card[f"{word}_from"], 3), rounded(card[f"{word}_to"], 3), strict=True)
    ]
    numbers = {name: rounded([card[name]], 3)[0] for name in CARD_NUMBERS}
    pairs = [*zip(card["with"], rounded(card["interaction"], 3), strict=True)]
    return {
        "card": numbers
        | {"reached": card["reached"], "raised": moved("raised"), "lowered": moved("lowered"), "with": pairs}
    }


def shards_of(found: StoredExamples, size: int) -> Iterator[list[tuple[dict[str, Any], list[dict[str, Any]]]]]:
    """Yield the rows of so many latents at a time, each with its contexts."""
    of = found.contexts["latent"].to_numpy()
    order = np.argsort(of, kind="stable")
    bounds = np.searchsorted(of[order], np.arange(found.latents.num_rows + 1))
    contexts = found.contexts.take(order)
    for start in range(0, found.latents.num_rows, size):
        part = found.latents.slice(start, size)
        places = bounds[start : start + part.num_rows + 1]
        shown = contexts.slice(places[0], places[-1] - places[0]).to_pylist()
        own = pairwise((places - places[0]).tolist())
        yield [(row, shown[a:b]) for row, (a, b) in zip(part.to_pylist(), own, strict=True)]


def latent_data(row: Mapping[str, Any], contexts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the details of one latent."""
    pair = lambda names, by, digits=3: [*zip(row[names], rounded(row[by], digits), strict=True)]
    data: dict[str, Any] = {
        "bounds": rounded([row["lowest"], row["highest"]]),
        "histogram": row["histogram"],
        "near": pair("near", "near_cosine"),
        "together": pair("together", "together_phi"),
        "contexts": [
            [c["band"], c["row"], c["start"], c["stop"], c["fired"], rounded(c["values"], 3)] for c in contexts
        ],
    }
    if row["promoted"] is not None:
        data |= {"promoted": pair("promoted", "promoted_by"), "suppressed": pair("suppressed", "suppressed_by")}
    if row["factor"] is not None:
        data["match"] = rounded([row["precision"], row["recall"], row["cosine"]], 3)
    return data
