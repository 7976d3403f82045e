"""A folder to upload to a model hub as it is: SAELens's files in a folder named by the hook, a card, an index entry.

    README.md                      the model card, from what the run knows of itself
    pretrained_saes.yaml           the entry SAELens's index needs; with it, Neuronpedia's dashboards can be made
    <hook_name>/cfg.json  sae_weights.safetensors  unbraid_experiment.json  unbraid_provenance.json

`upload_saes_to_huggingface` sends cfg.json and the weights alone; upload the folder itself to keep the rest.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from unbraid.config.old_names import upgraded, upgraded_score
from unbraid.config.version import __version__
from unbraid.dictionary.dictionary import Dictionary
from unbraid.formats import saelens
from unbraid.system.files import inside, read_json, stays_inside, write_json, write_text

HEADLINES = ("l0", "fvu", "loss_recovered", "ce_loss_score", "alive_share", "mcc", "f1")
"""Scores a card shows; the report has all."""
UNKNOWN_OWNER = "OWNER"


def write(
    dictionary: Dictionary, run: Path, out: Path, metadata: Mapping[str, Any], *, release: str, repo: str = "",
    model: str = "",
) -> None:  # fmt: skip
    """Fill `out`. `repo`: owner/name on the hub, for the snippets; `model`: what others call the model. Raises
    ValueError when the model is a folder here and `model` does not say, and for names that are none."""
    sae_id, model = site_of(metadata, run), model_of(metadata, model, run)
    metadata = {**metadata, "model_name": model}
    repo = checked(repo, HUB_ID, "--repo", "OWNER/NAME") if repo else f"{UNKNOWN_OWNER}/{release}"
    stored, provenance = read_json(run / "experiment.json"), read_json(run / "provenance.json")
    experiment = upgraded(stored)
    scores = headline_scores(run)
    folder = inside(out, sae_id, f"hook_name in {run}/cfg.json")
    saelens.write(dictionary, folder, metadata)
    write_json(folder / "unbraid_experiment.json", stored)
    write_json(folder / "unbraid_provenance.json", provenance)
    init = experiment_part(experiment, "dictionary", run).get("init") or {}
    kind = saelens.architecture(dictionary.activation)["architecture"]
    templates = Environment(
        loader=PackageLoader("unbraid.formats"), undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True
    )
    templates.filters |= {"code": code, "prose": prose, "quoted": quoted}
    card = templates.get_template("model_card.md.j2").render(
        title=release, site={"hook_name": sae_id, "model_name": model}, d_sae=dictionary.d_sae, d_in=dictionary.d_in,
        architecture=kind, repo=repo, sae_id=sae_id, trained_as=metadata.get("training_architecture"),
        made=settings(experiment, provenance, run),
        imported=init if isinstance(init, dict) and init.get("type") == "Imported" else None,
        base_model=hub_id(model), scores=scores, unbraid=__version__,
    )  # fmt: skip
    write_text(out / "README.md", card)
    write_text(out / "pretrained_saes.yaml", index_entry(release, repo, sae_id, metadata, scores))


HUB_ID = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}"
SITE = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}"
"""A hook's name, which names a folder too."""
TAKEN = ("readme.md", "pretrained_saes.yaml")


def site_of(metadata: Mapping[str, Any], run: Path) -> str:
    site = checked(metadata.get("hook_name"), SITE, f"hook_name in {run}/cfg.json", "one as blocks.3.hook_resid_post")
    if site.lower() in TAKEN:
        raise ValueError(f"hook_name in {run}/cfg.json is {site}, which is the card's name; expected a hook's")
    return site


def model_of(metadata: Mapping[str, Any], model: str, run: Path) -> str:
    """Return the public name of the model. Raises ValueError when it is a folder here."""
    name = model or metadata.get("model_name")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(f"model_name in {run}/cfg.json is {name!r}; say what it is called on the hub with --model")
    if is_folder(name):
        raise ValueError(
            f"the model was read from {name}, which others do not have; say what it is called on the hub with --model "
            "OWNER/NAME"
        )
    return name


def checked(name: object, pattern: str, what: str, expected: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(pattern, name, re.ASCII):
        raise ValueError(f"{what} is {str(name)[:80]!r}; expected {expected}, in letters, digits and . _ -")
    return name


def experiment_part(experiment: Mapping[str, Any], key: str, run: Path) -> dict[str, Any]:
    part = experiment.get(key)
    if not isinstance(part, dict):
        raise ValueError(f"{run}/experiment.json says no {key}, as every run does; train it again")
    return part


def settings(experiment: Mapping[str, Any], provenance: Mapping[str, Any], run: Path) -> list[tuple[str, str]]:
    """Return the settings that the card shows. Raises ValueError when experiment.json is malformed."""
    objective, training = (experiment_part(experiment, key, run) for key in ("objective", "training"))
    try:
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
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{run}/experiment.json is not as Unbraid writes it ({error!r}); train it again") from error


def strength(term: Mapping[str, Any]) -> str:
    ratio = term.get("gradient_ratio")
    return f"gradient ratio {ratio:g}" if ratio else f"weight {term.get('weight', 1.0):g}"


def class_name(node: Mapping[str, Any]) -> str:
    return str(node.get("type", "")).rpartition(":")[2]


def headline_scores(run: Path) -> list[dict[str, str]]:
    """The few scores a card shows, as text. Raises ValueError for results that are not as they are written here."""
    found = []
    for path in sorted((run / "results").glob("*.json")):
        stays_inside(run, path)
        try:
            found += [
                shown_row(row) for row in map(upgraded_score, read_json(path).get("scores", ())) if is_headline(row)
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not as Unbraid writes it ({error!r}); delete it and run eval again") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return found


def is_headline(row: Mapping[str, Any]) -> bool:
    return row["metric"] in HEADLINES and row["value"] is not None and row["kind"] == "measured"


def shown_row(row: Mapping[str, Any]) -> dict[str, str]:
    shown = ", ".join(f"{key} {value}" for key, value in (row.get("params") or {}).items())
    return {"metric": row["metric"], "params": f" ({shown})" if shown else "", "value": f"{row['value']:.4g}",
            "better": row["better"]}  # fmt: skip


def index_entry(release: str, repo: str, sae_id: str, metadata: Mapping[str, Any], scores: list[dict[str, str]]) -> str:
    """Return the entry for SAELens's pretrained_saes.yaml, from which Neuronpedia's runner reads too."""
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


def code(text: object) -> str:
    """Text between back-ticks: on one line, and without what would end them or the cell of a table."""
    return re.sub(r"[`|]", "'", one_line(text))


def prose(text: object) -> str:
    """Text in a card, none of it markup: neither Markdown nor HTML."""
    return re.sub(r"([\\`*\[\]<>|~&])", r"\\\1", one_line(text))


def one_line(text: object) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in str(text))[:300]


def is_folder(model: str) -> bool:
    return model.startswith((".", "/", "~")) or Path(model).is_dir()


def hub_id(model: str) -> str:
    """`model` when it may be a hub's id, not a folder; for the card's base_model."""
    return model if re.fullmatch(HUB_ID, model, re.ASCII) and not is_folder(model) else ""
