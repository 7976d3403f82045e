"""Run folders that were changed after they were written: with the seal they had, with none, or sealed anew."""

import json
from pathlib import Path
from typing import Any

from unbraid.runs.run_folder import fingerprint_of
from unbraid.system.sealing import PROVENANCE, seals, signed


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def unsealed(folder: Path) -> Path:
    """As a folder was before there were seals."""
    path = folder / PROVENANCE
    found = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in found.items() if key not in ("files", "sha256")}))
    return folder


def resealed(folder: Path) -> Path:
    """As whoever changes files on purpose can make it."""
    path = folder / PROVENANCE
    path.write_text(json.dumps(signed(json.loads(path.read_text()) | {"files": seals(folder)})))
    return folder


def forged(folder: Path) -> Path:
    """As a stranger makes a whole run of what they like: cfg.json names the experiment that is there, all is sealed."""
    experiment, cfg = (json.loads((folder / name).read_text()) for name in ("experiment.json", "cfg.json"))
    if isinstance(experiment, dict):
        details = cfg["metadata"].setdefault("training_architecture_details", {})
        details["experiment"] = f"forged-{fingerprint_of(experiment)}"
        (folder / "cfg.json").write_text(json.dumps(cfg))
    return resealed(folder)
