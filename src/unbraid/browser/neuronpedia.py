"""Writes the stored examples of a run as the export that Neuronpedia imports.

    <model>/<layer>-<set>/  release.jsonl  model.jsonl  sourceset.jsonl  source.jsonl
                            features/batch-N.jsonl.gz  activations/batch-N.jsonl.gz

Source: hijohnnylin/neuronpedia, its importer (apps/webapp/app/api/admin/import/route.ts, lib/db/import.ts) and its
converter (utils/neuronpedia-utils, convert-saedashboard-to-neuronpedia-export.py), read at ebb8426 of 20 August 2026.
"""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unbraid.browser.data import latent_data, rounded, shards_of
from unbraid.browser.stored_examples import StoredExamples, read_examples
from unbraid.evals.shared.example_contexts import BANDS, STRONGEST
from unbraid.formats.export import new_folder
from unbraid.runs.run import Run
from unbraid.system.files import write_text

BATCH = 128
"""Latents in a file."""
CREATOR = "clkht01d40000jv08hvalcvly"
"""The user to whom their converter gives what it makes, by default; an instance of one's own may have another."""
HOOK = re.compile(r"blocks\.(\d+)\.(hook_[a-z_.]+|attn\.hook_z)")
ID = re.compile(r"[a-z0-9_-]{1,128}")
NO_BAND = -1
"""What their pages take for the strongest places, which are no band of values."""


class Place(NamedTuple):
    """The names under which Neuronpedia files a dictionary."""

    model: str
    layer: int
    hook: str
    source_set: str

    @property
    def source(self) -> str:
        return f"{self.layer}-{self.source_set}"

    @property
    def keys(self) -> dict[str, str]:
        return {"modelId": self.model, "layer": self.source, "creatorId": CREATOR}


def write_neuronpedia(run: Run, out: Path, *, repo: str = "", model: str = "") -> Place:
    """Write the new folder `out`, and return under which names Neuronpedia will have it.

    `repo`: owner/name of the weights on a hub. `model`: what the model is called there, if not as in the run.

    Raises:
        ValueError: for a run without examples or without text, for a site or a name that Neuronpedia cannot have,
            and when `out` exists.
    """
    found = read_examples(run)
    if not found.has_text:
        raise ValueError(f"{run.path} has no text, which Neuronpedia's pages are made of; look at it by unbraid browse")
    metadata = run.facts.cfg.get("metadata")
    place = place_of(metadata if isinstance(metadata, Mapping) else {}, run, model)
    with new_folder(out) as folder:
        home = folder / place.model / place.source
        for name, row in headers(run, found, place, repo).items():
            write_text(home / f"{name}.jsonl", lines([row]))
        for number, (features, activations) in enumerate(batches(run, found, place)):
            for name, rows in (("features", features), ("activations", activations)):
                put(home / name / f"batch-{number}.jsonl.gz", rows)
    return place


def place_of(metadata: Mapping[str, Any], run: Run, model: str) -> Place:
    """Return the names. Raises ValueError for those that Neuronpedia cannot have."""
    site = str(metadata.get("hook_name"))
    if not (hook := HOOK.fullmatch(site)):
        raise ValueError(
            f"{run.path} is of the site {site[:80]!r}; Neuronpedia has hooks such as blocks.3.hook_resid_post"
        )
    name = identifier((model or str(metadata.get("model_name"))).rpartition("/")[2])
    if not ID.fullmatch(name):
        raise ValueError(f"the model is called {name[:80]!r}; say what Neuronpedia calls it with --model")
    return Place(name, int(hook[1]), hook[2], identifier(run.path.name) or "unbraid")


def identifier(name: str) -> str:
    """Return a name in the letters that Neuronpedia's addresses have."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")[:100]


def headers(run: Run, found: StoredExamples, place: Place, repo: str) -> dict[str, dict[str, Any]]:
    """Return the one row of each of the four files that say what the latents are of."""
    experiment, now = run.experiment, moment()
    what = f"{experiment.name}, {type(experiment.dictionary.activation).__name__}, {found.latents.num_rows} latents"
    made = {"creatorId": CREATOR, "createdAt": now, "visibility": "PUBLIC"}
    author = {"creatorName": "Unbraid", "urls": []}
    metadata = run.facts.cfg.get("metadata") or {}
    return {
        "release": made | author | {"name": place.source_set, "description": what, "descriptionShort": what},
        "model": made
        | {
            "id": place.model, "displayName": place.model, "displayNameShort": place.model, "dimension": run.d_in,
            "instruct": "instruct" in place.model, "layers": 0, "neuronsPerLayer": 0, "owner": "", "updatedAt": now,
        },
        "sourceset": made
        | author
        | {"modelId": place.model, "name": place.source_set, "description": what, "releaseName": place.source_set},
        "source": made
        | {
            "id": place.source, "modelId": place.model, "setName": place.source_set, "hasDashboards": True,
            "dataset": str(metadata.get("dataset_path", "")), "hfRepoId": repo, "hfFolderId": "",
            "num_prompts": len(np.unique(found.rows["window"].to_numpy())),
            "num_tokens_in_prompt": int(metadata.get("context_size") or 0),
            "notes": f"{found.held_out} held-out tokens",
        },
    }  # fmt: skip


def batches(
    run: Run, found: StoredExamples, place: Place
) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Yield latents, BATCH at a time, and their contexts."""
    atoms = run.dictionary().unit_atoms().detach().float().cpu().numpy()
    texts, fires, start = found.rows["text"].to_pylist(), found.latents["fires"].to_pylist(), 0
    for shard in shards_of(found, BATCH):
        features, activations = [], []
        for latent, details in enumerate((latent_data(row, contexts) for row, contexts in shard), start):
            rate = fires[latent] / found.held_out
            shown = [activation(latent, details, context, texts, rate, place) for context in details["contexts"]]
            features.append(feature(latent, details, atoms[latent], rate, shown, place))
            activations += shown
        start += len(shard)
        yield features, activations


def feature(
    latent: int, details: Mapping[str, Any], atom: np.ndarray, rate: float, shown: list[dict[str, Any]], place: Place
) -> dict[str, Any]:
    """Return a latent's row. What is not stored (alignment with neurons, a histogram of logits) stays empty."""
    low, high = (bound or 0.0 for bound in details["bounds"])
    bins = len(details["histogram"])
    middles = low + (high - low) * (np.arange(bins) + 0.5) / max(1, bins)
    most = max((row["maxValue"] for row in shown), default=0.0)
    pairs = {name: tuple(zip(*details.get(name, ()), strict=True)) or ((), ()) for name in TABLES}
    return place.keys | {
        "index": str(latent), "createdAt": moment(), "maxActApprox": most, "hasVector": True, "vector": rounded(atom),
        "vectorDefaultSteerStrength": most, "hookName": f"blocks.{place.layer}.{place.hook}",
        "sourceSetName": place.source_set, "frac_nonzero": rate,
        "freq_hist_data_bar_heights": details["histogram"], "freq_hist_data_bar_values": rounded(middles),
        "topkCosSimIndices": pairs["near"][0], "topkCosSimValues": pairs["near"][1],
        "correlated_features_indices": pairs["together"][0], "correlated_features_pearson": pairs["together"][1],
        "pos_str": pairs["promoted"][0], "pos_values": pairs["promoted"][1],
        "neg_str": pairs["suppressed"][0], "neg_values": pairs["suppressed"][1],
    }  # fmt: skip


TABLES = ("near", "together", "promoted", "suppressed")


def activation(
    latent: int, details: Mapping[str, Any], context: list[Any], texts: list[str], rate: float, place: Place
) -> dict[str, Any]:
    """Return the row of a context: its tokens, and the latent's value at each."""
    band, row, start, stop, fired, at = context
    values = [0.0] * (stop - start)
    for offset, value in zip(fired, at, strict=True):
        values[offset] = value or 0.0
    mine = [c[5][c[4].index(c[1] - c[2])] for c in details["contexts"] if c[0] == band]
    top = band == STRONGEST
    return place.keys | {
        "id": f"{place.source}-{latent}-{band}-{row}", "index": str(latent), "createdAt": moment(),
        "tokens": texts[start:stop], "values": values,
        "maxValue": max(values), "maxValueTokenIndex": int(np.argmax(values)), "minValue": min(values),
        "binMin": NO_BAND if top else min(mine), "binMax": max(mine),
        "binContains": NO_BAND if top else rate / BANDS, "qualifyingTokenIndex": row - start,
    }  # fmt: skip


def moment() -> str:
    """Return the time, as their database takes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def lines(rows: list[dict[str, Any]]) -> str:
    """Return rows as lines of JSON."""
    return "".join(json.dumps(row, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def put(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows, compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(lines(rows).encode("utf-8"), compresslevel=5, mtime=0))
