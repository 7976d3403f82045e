"""Finds run folders by path, pattern or the folder they are in."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from unbraid.runs.run import Run
from unbraid.runs.run_folder import is_run

Runs = str | Path | Run | Sequence[str | Path | Run]
"""Run folders: one's path, a pattern such as "runs/x/*", a folder that holds some, a run, or several of these."""


def folders_of(runs: Runs) -> list[Path]:
    """Return the run folders meant, each once, in the order given; those of a pattern or folder by name.

    Raises ValueError for a path that is no run folder and holds none, and for a pattern that no run folder matches.
    """
    if not isinstance(runs, str | Path | Run | Iterable):
        raise ValueError(f"runs are a {type(runs).__name__}; expected a path, a pattern, a Run, or several")
    given = [runs] if isinstance(runs, str | Path | Run) else list(runs)
    if not given:
        raise ValueError('there is no run folder; give a path, or a pattern such as "runs/x/*"')
    return list(dict.fromkeys(folder for item in given for folder in folders_at(item)))


def folders_at(where: str | Path | Run) -> list[Path]:
    """Return the run folders that one path or pattern means."""
    if isinstance(where, Run):
        return [where.path]
    if not isinstance(where, str | Path):
        raise ValueError(f"a run is a {type(where).__name__}; expected a path, a pattern or a Run")
    if not str(where):
        raise ValueError("the path of a run is empty; give a run folder, a pattern or a folder of runs")
    path = Path(where)
    if is_run(path):
        return [path]
    among = sorted(path.iterdir()) if path.is_dir() else [Path(found) for found in sorted(glob.glob(str(where)))]
    found = [folder for folder in among if is_run(folder)]
    if not found:
        there = "holds no run" if path.is_dir() else "does not exist" if not among else "matches no run folder"
        raise ValueError(f"{where} {there} (one has an experiment.json); unbraid.train and fit(save=…) make some")
    return found
