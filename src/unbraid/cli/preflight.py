"""Faults that would be found out after the night, known of a cohort and its evals before any folder is made."""

from collections.abc import Sequence

from unbraid.evals.shared.evaluation import Eval
from unbraid.experiment.experiment import Experiment
from unbraid.sources.base import Source
from unbraid.system import devices


def lacking(source: Source, evals: Sequence[Eval]) -> list[str]:
    """The things that evals lack of a source, each reason once with the evals that it stands in the way of."""
    names: dict[str, list[str]] = {}
    for item in evals:
        try:
            reason = item.lacks(source)
        except ValueError as error:  # a cache without an eval split
            reason = str(error)
        if reason:
            names.setdefault(reason, []).append(item.name)
    return [f"{listed(found)} could not be scored: {reason}" for reason, found in names.items()]


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more evals"


def trains(cohort: Sequence[Experiment]) -> bool:
    """Tell whether anything is trained on tokens: fits and controls alone cost no night, and a fit of a few prompts has
    no held-out text."""
    return any(experiment.training.tokens for experiment in cohort)


def held_back(source: Source) -> bool:
    """Tell whether an eval split is wanted: --source.eval-share 0 says that none is."""
    return getattr(source, "eval_share", 1.0) > 0


def check_device(cohort: Sequence[Experiment]) -> None:
    """Raise ValueError, before any folder is made, for a device that torch does not see."""
    devices.check_device(cohort[0].training.device, "--training.device")
    devices.check_device(getattr(cohort[0].source, "device", "cpu"), "--source.device")
