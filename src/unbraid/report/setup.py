"""Setup of the runs in a report: source, training, objectives, machine, and in which settings runs differ."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unbraid.comparison.convergence import FALLING, falls
from unbraid.comparison.scores import Scores
from unbraid.comparison.stored_scores import StoredRun, class_name, describe
from unbraid.comparison.wording import listed, number, plural

MOST_NAMED = 6
"""Methods that a warning names."""


@dataclass(frozen=True)
class MethodSetup:
    """The setup of one method, as text."""

    name: str
    role: str
    objective: list[str]
    dictionary: str
    training: str
    """Only the settings that differ from the common ones."""
    d_sae: str
    requested: str
    seeds: str


@dataclass(frozen=True)
class Setup:
    """The setup of all runs on one source, as text."""

    source: list[tuple[str, str]]
    training: list[tuple[str, str]]
    machine: list[tuple[str, str]]
    methods: list[MethodSetup]
    warnings: list[str]


def setup(scores: Scores) -> Setup:
    """Describe the setup of all runs on one source."""
    runs = [run for method in scores.methods for run in method.runs]
    trained = trained_here(runs) or runs
    common = {k: v for k, v in shared([run.experiment["training"] for run in trained]).items() if k != "type"}
    source = runs[0].experiment["source"]
    return Setup(
        [("kind", class_name(source)), *weights(runs[0]), *flat(source)],
        [*((name, text(value)) for name, value in common.items()), *convergence(scores)],
        machine(runs),
        [method_setup(method.name, method.role, method.runs, common) for method in scores.methods],
        differences(runs) + duplicates(runs),
    )


def weights(run: StoredRun) -> list[tuple[str, str]]:
    """Say what was done to the weights of a language model, where its name does not say it all."""
    facts = run.cfg.get("metadata")
    note = facts.get("model_note") if isinstance(facts, Mapping) else None
    return [("weights", str(note))] if note else []


def convergence(scores: Scores) -> list[tuple[str, str]]:
    """Say by how much losses still fell at the end of the plateau, from the logs."""
    found = falls(scores)
    shown = [
        f"{name} {max(0.0, fell):.0%}{' (not converged)' if fell > FALLING else ''}" for name, fell in found.items()
    ]
    return [("fall of the loss in the last fifth before the learning rate falls", listed(shown))] if shown else []


def trained_here(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The runs that are neither controls nor imported."""
    return [run for run in runs if not run.control and not run.imported]


def shared(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields that all nodes have with the same value."""
    return {k: v for k, v in nodes[0].items() if all(k in node and node[k] == v for node in nodes)}


def flat(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """List the fields of a node by dotted name."""
    found = []
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            found += [(prefix + key, class_name(value))] if "type" in value else []
            found += flat(value, f"{prefix}{key}.")
        elif key != "type":
            found.append((prefix + key, text(value)))
    return found


def text(value: Any) -> str:
    """Format the value of a setting."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return (listed([describe(v) for v in value]) if isinstance(value, list) else describe(value)) or "none"


def method_setup(name: str, role: str, runs: Sequence[StoredRun], common: Mapping[str, Any]) -> MethodSetup:
    """Describe the setup of one method over its runs."""
    objectives = [run.experiment["objective"] for run in runs]
    known = [o for o in objectives if "reconstruction" in o]  # committed rows say none
    terms = [{"reconstruction": o["reconstruction"], **(o.get("penalties") or {})} for o in known]
    labels = dict.fromkeys(label for found in terms for label in found)
    lines = [term_line(label, [found[label] for found in terms if label in found]) for label in labels]
    targets = {describe(t) for o in objectives if (t := o.get("target_l0"))}
    lines += [f"weight controlled: {listed(sorted(targets))}"] if targets else []
    elsewhere = all(run.imported for run in runs)
    if elsewhere:
        lines = [f"trained elsewhere: {line}" for line in dict.fromkeys(origin(run.imported) for run in runs)]
    own = [{k: v for k, v in run.experiment["training"].items() if k != "type" and common.get(k) != v} for run in runs]
    requested = sorted({run.requested_l0 for run in runs if run.requested_l0 == run.requested_l0})
    return MethodSetup(
        name,
        {"standard": "standard SAE", "compared": "compared", "control": "control"}[role],
        lines,
        dictionary_line([run.experiment["dictionary"] for run in runs]),
        "elsewhere"
        if elsewhere
        else "; ".join(f"{key} {values(key, own)}" for key in dict.fromkeys(k for o in own for k in o)),
        listed(sorted({f"{run.d_sae:,}" for run in runs})),
        listed([f"{value:g}" for value in requested]) or "not stated",
        listed([str(seed) for seed in sorted({run.seed for run in runs})]),
    )


def origin(init: Mapping[str, Any]) -> str:
    """Describe the origin of an imported SAE: format, architecture, folder and weights."""
    return f"{init['format']} {init['architecture']} from {init['folder']}, weights {init['sha256'][:12]}"


def values(key: str, nodes: Iterable[Mapping[str, Any]]) -> str:
    """List the values of one field, each once."""
    return listed(list(dict.fromkeys(text(node[key]) for node in nodes if key in node)))


def term_line(label: str, terms: Sequence[Mapping[str, Any]]) -> str:
    """Describe a term over runs, as in "sparsity: L1, weight 0.01 and 0.03"."""
    fields = [k for k in dict.fromkeys(k for t in terms for k in t) if k not in ("type", "weight")]
    fields = [k for k in fields if k != "every" or any(t.get("every", 1) != 1 for t in terms)]
    parts = [f"weight {values('weight', terms)}"] if any("weight" in t for t in terms) else []
    parts += [f"{field} {values(field, terms)}" for field in fields]
    return f"{label}: {listed(sorted({class_name(t) for t in terms}))}, {', '.join(parts)}".removesuffix(", ")


def dictionary_line(nodes: Sequence[Mapping[str, Any]]) -> str:
    """Describe activation functions, initialisations and frozen parameters over runs."""
    activations = list(dict.fromkeys(class_name(n.get("activation") or {}) for n in nodes))
    inits = list(dict.fromkeys(class_name(n.get("init") or {}) for n in nodes))
    frozen = list(dict.fromkeys(name for n in nodes for name in n.get("frozen") or ()))
    parts = [listed(activations), f"from {listed(inits)}", f"frozen: {listed(frozen)}" if frozen else ""]
    return ", ".join(filter(None, parts))


def machine(runs: Sequence[StoredRun]) -> list[tuple[str, str]]:
    """Describe machines, versions and durations of the runs."""
    seconds = [s for run in runs if isinstance(s := run.provenance.get("seconds"), int | float)]
    tokens = [t for run in runs if isinstance(t := run.provenance.get("tokens"), int | float)]
    found = [("runs", f"{len(runs)}")]
    if seconds:
        each = f", {number(float(min(seconds)))} to {number(float(max(seconds)))} s a run" if len(seconds) > 1 else ""
        found.append(("time", f"{duration(float(sum(seconds)))} in all{each}"))
    if tokens:
        found.append(("tokens a run", " to ".join(dict.fromkeys((f"{min(tokens):,}", f"{max(tokens):,}")))))
    for key in ("machine", "device", "unbraid", "git", "versions"):
        seen = dict.fromkeys(loose(run.provenance[key]) for run in runs if run.provenance.get(key))
        found += [(key, listed(list(seen)))] if seen else []
    finished = sorted(str(run.provenance["finished"]) for run in runs if run.provenance.get("finished"))
    return [*found, ("finished", " to ".join(dict.fromkeys((finished[0], finished[-1]))))] if finished else found


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    if seconds < 120:
        return f"{number(seconds)} s"
    return f"{number(seconds / 60)} minutes" if seconds < 7200 else f"{number(seconds / 3600)} hours"


def loose(value: Any) -> str:
    """Format a value of provenance, a mapping without braces."""
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def differences(runs: Sequence[StoredRun]) -> list[str]:
    """Warn of training settings besides the objective in which runs differ: each weakens the comparison."""
    trained, found = trained_here(runs), []
    if names := sorted({run.method for run in runs if run.imported}):
        found.append(
            f"Trained elsewhere, on other data or for longer: {listed(names)}. Differences in scores may come from it."
        )
    for key in dict.fromkeys(k for run in trained for k in run.experiment["training"] if k not in ("type", "device")):
        by_value: dict[str, set[str]] = {}
        for run in trained:
            by_value.setdefault(text(run.experiment["training"].get(key)), set()).add(run.method)
        if len(by_value) > 1 and not by_design(key, trained):
            said = "; ".join(f"{value} for {few(sorted(names))}" for value, names in sorted(by_value.items()))
            found.append(f"Runs differ in training.{key}: {said}. Differences in scores may come from that.")
    return found


def by_design(key: str, runs: Sequence[StoredRun]) -> bool:
    """True where a setting differs as the study was designed: with the geometry, or by the factor on it that methods of
    a factorial study were tuned to, which their names have (lr_x2)."""
    factor = re.compile(rf"(?:^|-){re.escape(key)}_x([\d.]+)(?=-|$)")
    values_of: dict[tuple[str, str, str | None], set[str]] = {}
    for run in runs:
        tuned = factor.search(run.method)
        design = (run.summary.geometry, tuned.group(1) if tuned else "", run.summary.base)
        values_of.setdefault(design, set()).add(text(run.experiment["training"].get(key)))
    told_apart = {design[:2] for design in values_of}
    return len(told_apart) > 1 and all(len(found) == 1 for found in values_of.values())


def few(names: Sequence[str]) -> str:
    """List names, of many the first ones and the number of the others."""
    return listed(names if len(names) <= MOST_NAMED else [*names[:MOST_NAMED], f"{len(names) - MOST_NAMED} others"])


def duplicates(runs: Sequence[StoredRun]) -> list[str]:
    """Warn of several runs with the same name, seed and width."""
    groups: dict[tuple[str, int, int], list[str]] = {}
    for run in runs:
        groups.setdefault((run.name, run.seed, run.d_sae), []).append(run.run)
    return [
        f"{name}, seed {seed}, was run {plural(len(names), 'time')} with different settings ({listed(names)}); "
        "they count as one seed."
        for (name, seed, _), names in groups.items()
        if len(names) > 1
    ]
