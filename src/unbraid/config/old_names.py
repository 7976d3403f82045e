"""One table of old names: what earlier versions stored, in today's words.

Earlier versions named a class by its module, `"unbraid.terms.l1:L1"`, told the sparsity an experiment asks for in its
name, `"topk-l0_32"`, and the kind of a score among its params. Folders they wrote stay readable through this file, and
through nothing else.
"""

import re
from collections.abc import Mapping
from typing import Any

PACKAGE = __name__.partition(".")[0]
CLASSES = {"unbraid.terms.melbo:Melbo": "MelboReward"}
"""Classes that have got another name since, by the path stored; all others keep the name after the colon."""
FIELDS: Mapping[tuple[str, str], str] = {
    ("*", "rho"): "gradient_ratio", ("DictionaryConfig", "leash"): "min_cosine_to_init",
}  # fmt: skip
"""Fields that have got another name since, by class, or "*" for every class, and name stored."""
EXPERIMENT = "unbraid.experiment:Experiment"
KINDS = {"measured": "measured", "chance": "chance", "ceiling": "ceiling", "pca": "reference"}
"""Of a score, by what params said."""
DIRECTIONS = ("random", "principal", "supervised")
"""Of an interchange, those that are no dictionary's."""


def upgraded(data: Any) -> Any:
    """JSON as any version stored it, as today's would store it. Anything else is as it was."""
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
    """The name of an experiment, and the L0 that stood in it: "topk-l0_32" was TopK at 32."""
    name = experiment.get("name")
    found = re.fullmatch(r"(.+)-l0_(\d+(?:\.\d+)?)(-.*)?", name) if isinstance(name, str) else None
    return {} if found is None else {"name": found[1] + (found[3] or ""), "l0": float(found[2])}


def upgraded_score(row: Mapping[str, Any]) -> dict[str, Any]:
    """A stored score, with its kind."""
    if "kind" in row:
        return dict(row)
    params = dict(row.get("params") or {})
    said = params.pop("kind", "measured")
    if said == "pca":
        params["directions"] = "principal"
    kind = KINDS.get(str(said), "measured")
    return {**row, "kind": "reference" if params.get("directions") in DIRECTIONS else kind, "params": params}
