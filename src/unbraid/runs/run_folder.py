"""The description in a run folder: experiment.json, cfg.json and provenance.json, read together and compared.

A folder may come from anywhere. It is refused, in one sentence that names the file, when one of these is missing, no
file, changed since it was sealed, or says something else than the others.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbraid.config.old_names import upgraded
from unbraid.system.files import JSON_BYTES, check_plain, read_json
from unbraid.system.sealing import PROVENANCE, REMEDY, Seals, check_sealed, read_signed, seals_in

EXPERIMENT, CFG = "experiment.json", "cfg.json"
AT_INFERENCE = {
    "ReLU": "standard", "TopK": "topk", "MatchingPursuit": "matching_pursuit", "BatchTopK": "jumprelu",
    "JumpReLU": "jumprelu", "Gated": "jumprelu",
}  # fmt: skip
"""SAELens's architecture for what is left of an activation after training."""


@dataclass(frozen=True)
class Facts:
    """The three files of a finished run, as plain data."""

    experiment: Mapping[str, Any]
    """In today's words, whichever version wrote it."""
    cfg: Mapping[str, Any]
    """Empty where there is none."""
    provenance: Mapping[str, Any]
    seals: Seals

    @property
    def weights(self) -> str:
        """SHA-256 of the weights; empty where they are not sealed."""
        return str(self.seals.get("sae_weights.safetensors", {}).get("sha256", ""))


def is_run(folder: Path) -> bool:
    """True when `folder` holds a run, whole or not, even one whose experiment.json is no plain file."""
    return os.path.lexists(folder / EXPERIMENT) or os.path.lexists(folder / PROVENANCE)


def finished(folder: Path) -> bool:
    """True when a run was trained to its end: provenance.json is there, whatever it turns out to be when read."""
    return os.path.lexists(folder / PROVENANCE)


def read_facts(folder: Path) -> Facts:
    """Read and compare the three files. Raises ValueError for what cannot be trusted."""
    provenance = read_signed(folder / PROVENANCE)
    seals = seals_in(provenance, folder / PROVENANCE)
    experiment = read_own(folder, EXPERIMENT, seals)
    there = CFG in seals or os.path.lexists(folder / CFG)
    cfg = read_own(folder, CFG, seals) if there else {}
    if fault := disagreement(experiment, cfg):
        raise ValueError(f"{folder}: {fault}, so they are not of one run; {REMEDY}")
    return Facts(upgraded(experiment), cfg, provenance, seals)


def read_own(folder: Path, name: str, seals: Seals) -> dict[str, Any]:
    """Read a JSON file of the folder's own. Raises ValueError when it is not the one that was sealed."""
    check_plain(folder / name, REMEDY, links=False, most=JSON_BYTES)
    check_sealed(folder, name, seals)
    return read_json(folder / name, remedy=REMEDY)


def disagreement(experiment: Mapping[str, Any], cfg: Mapping[str, Any]) -> str:
    """The contradiction between experiment.json and cfg.json, in words; empty where both agree or one is silent."""
    parts = experiment.get("dictionary"), experiment.get("source")
    dictionary, source = (node if isinstance(node, dict) else {} for node in parts)
    activation = dictionary.get("activation")
    activation = activation if isinstance(activation, dict) else {}
    architecture = AT_INFERENCE.get(str(activation.get("type", "")).rpartition(":")[2])
    pairs = [
        ("d_sae", dictionary.get("d_sae"), cfg.get("d_sae")),
        ("d_in", source.get("d_in"), cfg.get("d_in")),
        ("architecture", architecture, cfg.get("architecture")),
        ("k", activation.get("k"), cfg.get("k") if architecture == "topk" else None),
    ]
    for name, requested, saved in pairs:
        if requested is not None and saved is not None and requested != saved:
            return f"experiment.json has {name} {requested!r}, cfg.json {saved!r}"
    named = named_in(cfg)
    if named and named != fingerprint_of(experiment):
        return f"experiment.json is another experiment than the {named} that cfg.json was saved for"
    return ""


def named_in(cfg: Mapping[str, Any]) -> str:
    """The fingerprint of the experiment that cfg.json was saved for; empty where it names none."""
    details = cfg.get("metadata") if isinstance(cfg.get("metadata"), dict) else {}
    details = details.get("training_architecture_details") if details else {}
    named = details.get("experiment") if isinstance(details, dict) else None
    return named.rpartition("-")[2] if isinstance(named, str) else ""


def fingerprint_of(experiment: Mapping[str, Any]) -> str:
    """`serialise.fingerprint` of what is stored, as it was stored: fields that the class got later change nothing."""
    text = json.dumps(experiment, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
