"""Runs of one experiment at several widths."""

from dataclasses import replace

from unbraid.experiment import Experiment
from unbraid.run import Run


def other_widths(run: Run) -> list[Run]:
    """The runs beside that differ in width and name alone, narrowest first."""
    same = [other for other in run.beside() if at_any_width(other.experiment) == at_any_width(run.experiment)]
    return sorted(same, key=width)


def width(run: Run) -> int:
    return run.experiment.dictionary.d_sae


def at_any_width(experiment: Experiment) -> Experiment:
    return replace(experiment, name="", dictionary=replace(experiment.dictionary, d_sae=0))
