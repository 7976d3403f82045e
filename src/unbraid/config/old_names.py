"""The table of old names, by which folders that earlier versions wrote stay readable.

Earlier versions named a class by its module, `"unbraid.terms.l1:L1"`, stored the requested sparsity in an experiment's
name, `"topk-l0_32"`, and the kind of a score among its params. Only this file upgrades them.
"""

import re
from collections.abc import Mapping
from typing import Any

PACKAGE = __name__.partition(".")[0]
CLASSES = {"unbraid.terms.melbo:Melbo": "MelboReward"}
"""New names of renamed classes, by the path stored; all other classes keep the name after the colon."""
FIELDS: Mapping[tuple[str, str], str] = {
    ("*", "rho"): "gradient_ratio", ("DictionaryConfig", "leash"): "min_cosine_to_init",
}  # fmt: skip
"""New names of renamed fields, by class ("*" for every class) and name stored."""
EXPERIMENT = "unbraid.experiment:Experiment"
KINDS = {"measured": "measured", "chance": "chance", "ceiling": "ceiling", "pca": "reference"}
"""The kind of a score, by the kind stored among its params."""
DIRECTIONS = ("random", "principal", "supervised")
"""The directions of an interchange that are not of a dictionary."""


def upgraded(data: Any) -> Any:
    """Return JSON of any version as the current version stores it; other data is returned as it is."""
    if isinstance(data, list):
        return [upgraded(item) for item in data]
    if not isinstance(data, dict):
        return data
    found = {key: upgraded(value) for key, value in data.items()}
    if not isinstance(stored := found.get("type"), str):
        return found
    if stored == EXPERIMENT:
        found |= without_l0(found)
    if stored.startswith(f"{PACKAGE}."):
        found["type"] = CLASSES.get(stored, stored.rpartition(":")[2])
    renamed = lambda key: FIELDS.get((found["type"], key)) or FIELDS.get(("*", key)) or key
    return {renamed(key): value for key, value in found.items()}


def without_l0(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the name of an experiment without the L0, and that L0: "topk-l0_32" was TopK at 32."""
    name = experiment.get("name")
    found = re.fullmatch(r"(.+)-l0_(\d+(?:\.\d+)?)(-.*)?", name) if isinstance(name, str) else None
    return {} if found is None else {"name": found[1] + (found[3] or ""), "l0": float(found[2])}


def upgraded_score(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored score with its kind as a field."""
    if "kind" in row:
        return dict(row)
    params = dict(row.get("params") or {})
    said = params.pop("kind", "measured")
    if said == "pca":
        params["directions"] = "principal"
    kind = KINDS.get(str(said), "measured")
    return {**row, "kind": "reference" if params.get("directions") in DIRECTIONS else kind, "params": params}
