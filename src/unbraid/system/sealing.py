"""The seal of a finished run: provenance.json holds the size and SHA-256 of every file, and each read compares.

    "files": {"sae_weights.safetensors": {"bytes": 66304, "sha256": "…"}, …},    "sha256": of provenance.json itself

A byte that changed since is refused, not scored. A seal shows accidents, not forgery: whoever changes a file can write
a new seal. Folders written before there were seals have none, and are read for what can be checked without.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unbraid.system.files import JSON_BYTES, check_plain, read_json, reading, sha256

SEALED = (
    "experiment.json", "cfg.json", "sae_weights.safetensors", "normaliser.safetensors", "fit.safetensors",
    "metrics.jsonl",
)  # fmt: skip
"""Files that a finished run's seal covers, where it has them."""
PROVENANCE = "provenance.json"
REMEDY = "restore it from a copy, or delete the run's folder and make it again"

Seals = Mapping[str, Mapping[str, Any]]
"""Size and SHA-256 by file name: {"bytes": …, "sha256": …}."""


def seals(folder: Path) -> dict[str, dict[str, Any]]:
    """Compute the seals of the files that `folder` holds now, for its provenance."""
    there = [name for name in SEALED if (folder / name).is_file()]
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in there}


def signed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `data` with the SHA-256 of its canonical JSON added, by which changes are detected."""
    return {**data, "sha256": own_digest(data)}


def own_digest(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of `data` without its digest."""
    rest = {key: value for key, value in data.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_signed(path: Path, *, remedy: str = REMEDY) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError when its digest does not match; one without a digest is accepted."""
    check_plain(path, remedy, links=False, most=JSON_BYTES)
    data = read_json(path, remedy=remedy)
    if "sha256" in data and data["sha256"] != own_digest(data):
        raise ValueError(f"{path} was changed after it was written (its SHA-256 is another); {remedy}")
    return data


def seals_of(folder: Path) -> Seals:
    """Read the seals from the provenance of `folder`; empty where it has none."""
    path = folder / PROVENANCE
    return seals_in(read_signed(path), path) if path.exists() or path.is_symlink() else {}


def seals_in(provenance: Mapping[str, Any], path: Path) -> Seals:
    """Return the seals in a provenance. Raises ValueError when they are malformed."""
    found = provenance.get("files", {})
    whole = isinstance(found, dict) and all(
        isinstance(seal, dict) and isinstance(seal.get("sha256"), str) and isinstance(seal.get("bytes"), int)
        for seal in found.values()
    )
    if not whole:
        raise ValueError(f'{path} holds no sizes and digests under "files"; {REMEDY}')
    return found


def check_sealed(folder: Path, name: str, known: Seals, *, remedy: str = REMEDY) -> None:
    """Raise ValueError unless `name` is a plain file of the folder, and the one that was sealed."""
    path = folder / name
    check_plain(path, remedy, links=False)
    if name not in known:
        return
    size = path.stat().st_size
    with reading(path, remedy):
        if size != known[name]["bytes"] or sha256(path) != known[name]["sha256"]:
            raise ValueError(f"{path} is not the file that was saved with this run (size or SHA-256 differ); {remedy}")


def check_all(folder: Path, known: Seals, *, remedy: str = REMEDY) -> None:
    """Raise ValueError unless every sealed file except the log is the one that was sealed."""
    for name in known:
        if name != "metrics.jsonl":  # how training went; no score reads it
            check_sealed(folder, name, known, remedy=remedy)
