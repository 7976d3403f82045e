"""Comparison of a run with the published SAEs of its model, layer, width and architecture, at its L0.

Our own `fidelity` measures a loss recovered as well, on other tokens: it is never compared with SAEBench's.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unbraid.comparison.stored_scores import StoredRun, class_name, params_text, read_run, result_of
from unbraid.config.hints import first_few
from unbraid.config.serialise import OWN_PACKAGES
from unbraid.experiment.summary import said_by, wanted
from unbraid.runs.results import result_path
from unbraid.saebench.architecture_names import SYNTH, architecture_of, is_full_synth
from unbraid.saebench.eval_specs import UNSUPPORTED
from unbraid.saebench.figures import Figures, check_architecture, interpolated, nearest, published_figures
from unbraid.sources.synth import SYNTHSAEBENCH_16K
from unbraid.system.each import Failure, attempt

SPARSITY = ("saebench_core", "fidelity")
"""The evals that an L0 is taken from; the first that has one counts."""
DEFAULT = "SAEBench's default"


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One score of a run next to the published one."""

    eval: str
    score: str
    better: str
    yours: float | None
    missing: str
    """Why it is missing, and which command makes it; empty where it is not."""
    published: float | None
    """At the run's L0; None where that is outside of the published range, or not known."""
    nearest: tuple[float, float]
    """L0 and figure of the published SAE of the nearest L0; of the sparsest, where the run's is not known."""
    difference: float | None
    noise: float | None
    """The largest difference between two scorings of the same published SAEs."""
    differs: tuple[str, ...]
    """Settings of the eval that differ from the published ones."""
    source: str


@dataclass(frozen=True, kw_only=True)
class PublishedCheck:
    """The comparison of a run with published SAEs."""

    run: str
    about: str
    """Architecture, width, model and site."""
    l0: float | None
    l0_from: str
    """The eval that measured it, or "requested"."""
    rows: tuple[PublishedRow, ...]
    differs: tuple[str, ...]
    """Differences in training from the published SAEs."""
    nothing: str
    """Why there is nothing to compare with, and what there is; empty where there are rows."""


def published_rows(folders: Sequence[Path], architecture: str = "") -> list[dict[str, Any]]:
    """The comparison of finished runs as plain data, a dict a run. Raises as `check_run`."""
    return [asdict(check_run(folder, architecture)) for folder in folders]


def check_run(folder: Path, architecture: str = "") -> PublishedCheck:
    """Compare a finished run with published SAEs; `architecture` replaces what the run says of itself. Raises
    ValueError for a damaged run, and an architecture of which nothing was published."""
    check_architecture(architecture)
    run = read_run(folder)
    site = run.cfg.get("metadata") or {}
    model = SYNTH if is_full_synth(run) else model_of(str(site.get("model_name", "no model")))
    where = (site.get("hook_layer"), str(site.get("hook_name", "")).rpartition("hook_")[2])
    name = architecture or architecture_of(run)
    l0, l0_from = sparsity_of(run)
    found, nothing = matching(model, where, run.d_sae, name)
    return PublishedCheck(
        run=folder.name, l0=l0, l0_from=l0_from, nothing=nothing,
        about=f"{name or 'architecture unknown'}, {run.d_sae:,} latents, {model}, layer {where[0]} ({where[1]})",
        rows=tuple(row_of(run, folder, one, name, l0) for one in found),
        differs=tuple(training_differences(run, found[0], name)) if found else (),
    )  # fmt: skip


def model_of(name: str) -> str:
    """The last part of a model's name, also of a folder in the hub's cache."""
    cached = re.search(r"models--[^/]+?--([^/]+)", name)
    return cached[1] if cached else name.rstrip("/").rpartition("/")[2]


def matching(model: str, where: tuple[Any, str], width: int, architecture: str) -> tuple[list[Figures], str]:
    """The figures of a model, layer and site, width and architecture, or a sentence that says what there is."""
    found = list(published_figures())
    parts = (
        (f"on {model}", lambda one: one.model.lower() == model.lower(), lambda one: one.model),
        (f"on layer {where[0]} ({where[1]}) of {model}", lambda one: (one.layer, one.site) == where,
         lambda one: f"layer {one.layer} ({one.site})"),
        (f"of {width:,} latents there", lambda one: one.width == width, lambda one: f"{one.width:,}"),
        (f"of the architecture {architecture} there" if architecture else "of an architecture like this run's there, "
         "unless it does not say what it was trained as (name it with --architecture)",
         lambda one: architecture in one.saes, lambda one: ", ".join(one.saes)),
    )  # fmt: skip
    for what, is_it, named in parts:
        there = dict.fromkeys(map(named, found))
        found = [one for one in found if is_it(one)]
        if not found:
            return [], f"no published figures {what}; there are some of: {first_few(there, 9)}"
    return found, ""


def stored_result(run: StoredRun, name: str) -> Mapping[str, Any] | str:
    """A result of a run, or why it has no scores; empty where it was not scored."""
    path = attempt(name, lambda: result_path(run.folder, name))
    if not isinstance(path, Failure) and not path.is_file():
        return ""
    found = path if isinstance(path, Failure) else attempt(name, lambda: result_of(run, path))
    if isinstance(found, Failure):
        return found.reason
    return found if "scores" in found else str(found.get("error") or found.get("not_applicable"))


def score_in(result: Mapping[str, Any] | str, metric: str, params: Mapping[str, Any]) -> float | None:
    """A measured score; None where there is none."""
    for score in () if isinstance(result, str) else result["scores"]:
        same = (score["metric"], score.get("params") or {}) == (metric, params)
        if same and score.get("kind", "measured") == "measured" and score["value"] is not None:
            return float(score["value"])
    return None


def sparsity_of(run: StoredRun) -> tuple[float | None, str]:
    """The L0 of a run, and what it is by."""
    for name in SPARSITY:
        if (found := score_in(stored_result(run, name), "l0", {})) is not None:
            return found, name
    return run.summary.l0, "" if run.summary.l0 is None else "requested"


def row_of(run: StoredRun, folder: Path, figures: Figures, architecture: str, l0: float | None) -> PublishedRow:
    """Compare one score."""
    saes, result = figures.saes[architecture], stored_result(run, figures.eval)
    yours = score_in(result, figures.metric, figures.params)
    published = interpolated(saes, l0) if l0 else None
    params = params_text(figures.params)
    asked = (result.get("asked") or {}) if isinstance(result, Mapping) else {}
    missing = "" if yours is not None else missing_of(figures.eval, folder, result)
    return PublishedRow(
        eval=figures.eval, score=f"{figures.metric}{f' ({params})' if params else ''}", better=figures.better,
        yours=yours, missing=missing, published=published, noise=figures.noise,
        difference=None if yours is None or published is None else yours - published,
        nearest=nearest(saes, l0) if l0 else saes[0],
        differs=tuple(differences(asked, figures.settings)),
        source=f"{figures.source}: {figures.file}",
    )  # fmt: skip


def missing_of(name: str, folder: Path, result: Mapping[str, Any] | str) -> str:
    """Why a score is missing: what went wrong, or that it was not made, with the command that makes it if one does."""
    if result and isinstance(result, str):
        return result
    short = name.removeprefix("saebench_")
    if short in UNSUPPORTED:
        return f"cannot be scored here: {UNSUPPORTED[short]}"
    suite = " --suite saebench" if short != name else ""
    other = " (loss_recovered of fidelity is another measure)" if short == "core" else ""
    how = f"unbraid eval {folder}{suite} --evals {short}"
    return f"its result has no such score: {how} --force{other}" if result else f"not scored: {how}{other}"


def differences(requested: Mapping[str, Any], published: Mapping[str, Any]) -> Iterator[str]:
    """Say which settings of an eval differ from the published ones; nothing where the request is not known."""
    plain = {**requested, **(requested.get("settings") or {}), "settings": None}
    plain |= {key: None for key in ("seed", "dtype") if key not in published}  # of some it is not known
    ours = {key: value for key, value in plain.items() if value}
    for key in dict.fromkeys([*ours, *published]) if requested else ():
        own, theirs = ours.get(key, DEFAULT), published.get(key, DEFAULT)
        if own != theirs:
            yield f"{key.replace('_', ' ')} {own} (published: {theirs})"


def training_differences(run: StoredRun, figures: Figures, architecture: str) -> Iterator[str]:
    """Say how a run was trained otherwise than the published SAEs, as far as that is known."""
    tokens = None if run.imported else run.experiment["training"].get("tokens")
    if tokens is not None and figures.tokens not in (None, tokens):
        yield f"trained on {tokens:,} tokens (published: {figures.tokens:,})"
    if about := figures.about.get(architecture):
        yield f"the published {architecture} has {about}"
    objective = [run.experiment["objective"]["reconstruction"], *wanted(run.experiment)]
    others = [class_name(term) for term in objective if not said_by(term, OWN_PACKAGES).get("standard")]
    if run.control:
        yield "a control, no SAE to be compared"
    elif others and not run.summary.standard:
        yield f"not a standard SAE: its objective has {', '.join(others)}"
    if run.summary.geometry == "whitened":
        yield "trained on whitened activations"
    seed = run.experiment["source"].get("seed")
    if figures.model == SYNTH and seed not in (None, SYNTHSAEBENCH_16K.seed):
        yield f"on the world of seed {seed} (published: {SYNTHSAEBENCH_16K.seed})"
