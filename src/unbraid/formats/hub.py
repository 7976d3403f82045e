"""A folder to upload to a model hub as it is: SAELens's files in a folder named by the hook, a card, an index entry.

    README.md                      the model card, from what the run knows of itself
    pretrained_saes.yaml           the entry SAELens's index needs; with it, Neuronpedia's dashboards can be made
    <hook_name>/cfg.json  sae_weights.safetensors  unbraid_experiment.json  unbraid_provenance.json

`upload_saes_to_huggingface` sends cfg.json and the weights alone; upload the folder itself to keep the rest.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

import unbraid
from unbraid.dictionary import Dictionary
from unbraid.files import read_json, write_json, write_text
from unbraid.formats import saelens

HEADLINES = ("l0", "fvu", "loss_recovered", "ce_loss_score", "alive_share", "mcc", "f1")
"""Scores a card shows; the report has all."""
UNKNOWN_OWNER = "OWNER"


def write(
    dictionary: Dictionary, run: Path, out: Path, metadata: Mapping[str, Any], *, release: str, repo: str = "",
    model: str = "",
) -> None:  # fmt: skip
    """Fill `out`. `repo`: owner/name on the hub, for the snippets; `model`: what others call the model. Raises
    ValueError when the model is a folder here and `model` does not say."""
    metadata = {**metadata, "model_name": model or metadata["model_name"]}
    if is_folder(str(metadata["model_name"])):
        raise ValueError(
            f"the model was read from {metadata['model_name']}, which others do not have; say what it is called on the "
            "hub with --model OWNER/NAME"
        )
    repo = repo or f"{UNKNOWN_OWNER}/{release}"
    sae_id = str(metadata["hook_name"])
    experiment, provenance = read_json(run / "experiment.json"), read_json(run / "provenance.json")
    scores = headline_scores(run)
    saelens.write(dictionary, out / sae_id, metadata)
    write_json(out / sae_id / "unbraid_experiment.json", experiment)
    write_json(out / sae_id / "unbraid_provenance.json", provenance)
    init = experiment["dictionary"].get("init") or {}
    kind = saelens.architecture(dictionary.activation)["architecture"]
    templates = Environment(
        loader=PackageLoader("unbraid.formats"), undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True
    )
    card = templates.get_template("model_card.md.j2").render(
        title=release, site=metadata, d_sae=dictionary.d_sae, d_in=dictionary.d_in, architecture=kind, repo=repo,
        sae_id=sae_id, trained_as=metadata.get("training_architecture"), made=settings(experiment, provenance),
        imported=init if str(init.get("type", "")).endswith(":Imported") else None,
        base_model=hub_id(str(metadata["model_name"])), scores=scores, unbraid=unbraid.__version__,
    )  # fmt: skip
    write_text(out / "README.md", card)
    write_text(out / "pretrained_saes.yaml", index_entry(release, repo, sae_id, metadata, scores))


def settings(experiment: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    objective, training = experiment["objective"], experiment["training"]
    terms = {"reconstruction": objective["reconstruction"], **(objective.get("penalties") or {})}
    return [
        ("source", class_name(experiment["source"])),
        ("activation", class_name(experiment["dictionary"]["activation"])),
        *((name, f"{class_name(term)}, {strength(term)}") for name, term in terms.items()),
        ("tokens", f"{training['tokens']:,}"),
        ("batch size, learning rate", f"{training['batch_size']:,}, {training['lr']:g}"),
        ("seed", str(experiment["seed"])),
        ("made with", f"unbraid {provenance.get('unbraid')}, torch {provenance.get('versions', {}).get('torch')}"),
    ]


def strength(term: Mapping[str, Any]) -> str:
    return f"rho {term['rho']:g}" if term.get("rho") else f"weight {term.get('weight', 1.0):g}"


def class_name(node: Mapping[str, Any]) -> str:
    return str(node.get("type", "")).rpartition(":")[2]


def headline_scores(run: Path) -> list[dict[str, str]]:
    """The few scores a card shows, as text."""
    found = []
    for path in sorted((run / "results").glob("*.json")):
        for row in read_json(path).get("scores", ()):
            params = row.get("params") or {}
            if row["metric"] in HEADLINES and row["value"] is not None and params.get("kind") in (None, "measured"):
                shown = ", ".join(f"{key} {value}" for key, value in params.items() if key != "kind")
                found.append(
                    {"metric": row["metric"], "params": f" ({shown})" if shown else "", "value": f"{row['value']:.4g}",
                     "better": row["better"]}
                )  # fmt: skip
    return found


def index_entry(release: str, repo: str, sae_id: str, metadata: Mapping[str, Any], scores: list[dict[str, str]]) -> str:
    """What SAELens's pretrained_saes.yaml needs to know, and Neuronpedia's runner reads from there."""
    known = {row["metric"]: row["value"] for row in scores if not row["params"]}
    lines = [
        "# To be added to sae_lens/pretrained_saes.yaml. Neuronpedia: make dashboards with SAEDashboard's runner from "
        "this entry,",
        "# convert them, and ask its maintainers to take them in; `neuronpedia` below is the id they then have.",
        f"{quoted(release)}:",
        "  conversion_func: null",
        f"  model: {quoted(str(metadata['model_name']))}",
        f"  repo_id: {quoted(repo)}",
        "  saes:",
        f"  - id: {quoted(sae_id)}",
        f"    path: {quoted(sae_id)}",
    ]
    if "l0" in known:
        lines.append(f"    l0: {float(known['l0']):.1f}")
    if "fvu" in known and math.isfinite(float(known["fvu"])):
        lines.append(f"    variance_explained: {1 - float(known['fvu']):.3f}")
    layer, site = metadata.get("hook_layer"), sae_id.rpartition("hook_")[2].replace("_", "-")
    model = Path(str(metadata["model_name"])).name
    lines.append(f"    neuronpedia: {quoted(f'{model}/{layer}-{site}-{release}')}")
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A YAML scalar that is text whatever it holds (JSON's strings are YAML's)."""
    return json.dumps(text, ensure_ascii=False)


def is_folder(model: str) -> bool:
    return model.startswith((".", "/", "~")) or Path(model).is_dir()


def hub_id(model: str) -> str:
    """`model` when it may be a hub's id, not a folder; for the card's base_model."""
    return model if model.count("/") == 1 and not is_folder(model) else ""
