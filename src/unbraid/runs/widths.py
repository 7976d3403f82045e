"""Runs of one experiment at several widths."""

from unbraid.runs.run import Run
from unbraid.runs.siblings import alike


def other_widths(run: Run) -> list[Run]:
    """A sibling for each other width that differs from this one in width and name alone, narrowest first. Of
    several at one width the first by name."""
    found: dict[int, Run] = {}
    for other in alike(run, "name", "dictionary.d_sae"):
        if width(other) != width(run):
            found.setdefault(width(other), other)
    return [found[d_sae] for d_sae in sorted(found)]


def width(run: Run) -> int:
    return run.experiment.dictionary.d_sae
