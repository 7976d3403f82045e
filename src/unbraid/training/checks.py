"""Checks before any work: experiments that cannot be trained together, here, on this source or in this folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unbraid import seeding
from unbraid.config.old_names import upgraded
from unbraid.config.serialise import to_json
from unbraid.config.settings import shown
from unbraid.dictionary.kernels import kernels_named
from unbraid.effects.radius import checked_radius, radius_bracket
from unbraid.experiment.experiment import Experiment
from unbraid.objective.objective import Reads
from unbraid.objective.step_data import CONTEXTS
from unbraid.runs.run_folder import finished
from unbraid.sources.base import Predictions, Source
from unbraid.system.devices import check_device
from unbraid.system.files import read_json
from unbraid.system.sealing import REMEDY


def check_shared(members: Sequence[Experiment]) -> None:
    """Raise ValueError unless all members can share one stream of activations."""
    first = members[0]
    for member in members[1:]:
        same = {
            "source": member.source == first.source,
            "training.batch_size": member.training.batch_size == first.training.batch_size,
            "the order of data (training.data_seed, or the seed)": member.data_seed == first.data_seed,
            "training.device": member.training.device == first.training.device,
        }
        differing = [name for name, equal in same.items() if not equal]
        if differing:
            raise ValueError(
                f"{member.label} and {first.label} differ in {differing}; a cohort shares one stream: train them apart"
            )


def check_needs(members: Sequence[Experiment]) -> None:
    """Raise ValueError, before any work, for a device that is not here, and when a term reads what the source cannot
    give."""
    check_device(members[0].training.device, "--training.device")
    for member in members:
        kernels_named(member.training.kernels, member.training.device)
        for name, term in member.objective.terms().items():
            if term.enabled:
                term.check_activation(member.dictionary.activation)
            for part in term.reads if term.enabled else ():
                try:
                    check_source_provides(part, member.source)
                except ValueError as error:
                    raise ValueError(f"{member.label}: term {name!r} reads {part}, but {error}") from error
    check_radius(members)
    check_budgets(members)


def check_budgets(members: Sequence[Experiment]) -> None:
    """Raise ValueError for terms and fits with a budget of next-token KL on a source that predicts no tokens."""
    for member in members:
        terms = {f"term {name!r}": term for name, term in member.objective.terms().items() if term.enabled}
        budgeted = [what for what, part in {**terms, "its fit": member.dictionary.init}.items() if budget_of(part)]
        if budgeted:
            try:
                Predictions.of(member.source.contexts(1, split="train", seed=0))
            except ValueError as error:
                raise ValueError(f"{member.label}: {budgeted[0]} has a budget of next-token KL, but {error}") from error


def budget_of(part: object) -> float:
    return float(getattr(part, "budget_kl", 0.0))  # most terms and initialisations have none


def check_radius(members: Sequence[Experiment]) -> None:
    """Raise ValueError for terms whose radius, set or to be calibrated, cannot be: training would find out midway."""
    by_radius: dict[float, list[str]] = {}
    for member in members:
        for name, radius in radii(member).items():
            by_radius.setdefault(radius, []).append(f"{member.label}: term {name!r}")
    for radius, asking in by_radius.items():
        # To see that there is one, one text will do: it takes a while. A cohort has one source.
        contexts = members[0].source.contexts(CONTEXTS if radius else 1, split="train", seed=0)
        try:
            if not checked_radius(contexts, radius):
                radius_bracket(contexts, rng=seeding.stream(0, "check_radius"))
        except ValueError as error:
            verb = "pushes" if len(asking) == 1 else "push"
            raise ValueError(f"{'; '.join(asking)} {verb} activations, but {error}") from error


def radii(member: Experiment) -> dict[str, float]:
    """Return the radius of each term that pushes activations, by its name; 0 where it is to be calibrated."""
    return {
        name: float(getattr(term, "radius"))  # noqa: B009 (not all terms have one)
        for name, term in member.objective.terms().items()
        if term.enabled and "contexts" in term.reads and hasattr(term, "radius")
    }


def check_source_provides(part: Reads, source: Source) -> None:
    """Raise ValueError unless the source provides this part of a step, by drawing a little of it."""
    if part == "contexts":
        source.contexts(CONTEXTS, split="train", seed=0)
    elif part == "predictions":
        Predictions.of(source.contexts(CONTEXTS, split="train", seed=0))
    elif part == "counterfactuals":
        source.counterfactuals(1, split="train", seed=0)
    elif part == "corrupted":
        source.corrupted(1, share=0.0, split="train", seed=0)
    elif part == "documents" and not source.has_documents:
        raise ValueError(
            f"a {type(source).__name__} has none: every row stands alone; use a source that reads text: LanguageModel, "
            "or activations cached from one"
        )


def check_finished(folders: Mapping[Path, Experiment]) -> None:
    """Raise ValueError when two folders are one, or one holds a finished run of another experiment."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"two of {[str(folder) for folder in folders]} are the same folder; give each its own")
    for folder, experiment in folders.items():
        if finished(folder) and (where := other_than(folder, experiment)):
            raise ValueError(f"{folder} holds a finished run of another experiment ({where}); give another folder")


def check_unfinished(todo: Mapping[Path, Experiment], *, resume: bool, overwrite: bool) -> None:
    """Raise ValueError when a folder holds unfinished work and neither flag says what to do, or work on another
    experiment is to be continued."""
    for folder, experiment in todo.items():
        if resume and (folder / "experiment.json").is_file() and (where := other_than(folder, experiment)):
            raise ValueError(
                f"{folder} holds an unfinished run of another experiment ({where}); give another folder, or start anew "
                "with --overwrite alone"
            )
        if (folder / "experiment.json").is_file() and not (resume or overwrite):
            raise ValueError(
                f"{folder} holds an unfinished run: continue it with --resume, or start anew with --overwrite"
            )


def other_than(folder: Path, experiment: Experiment) -> str:
    """The first setting in which the experiment stored in `folder` differs from `experiment`; empty when none does."""
    stored = upgraded(read_json(folder / "experiment.json", remedy=REMEDY))
    return difference(stored, json.loads(json.dumps(to_json(experiment))))


def difference(stored: Any, wanted: Any, at: str = "") -> str:
    """The first place where two JSON values differ, in words; empty when they are equal."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        parts = ((key, stored.get(key), wanted.get(key)) for key in sorted({*stored, *wanted}))
        return next((d for key, left, right in parts if (d := difference(left, right, f"{at}.{key}".lstrip(".")))), "")
    return "" if stored == wanted else f"{at or 'it'} is {shown(stored)} there and {shown(wanted)} here"
