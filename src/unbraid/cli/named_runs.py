"""The runs that a command names: those that are finished, and what is said of those that are not or cannot be read."""

import sys
from collections.abc import Sequence
from pathlib import Path

from unbraid.cli.resolve import run_folders
from unbraid.runs.failure import failure
from unbraid.runs.run_folder import finished
from unbraid.system.each import Failure
from unbraid.system.terminal import name as on_one_line
from unbraid.system.terminal import say


def finished_runs(paths: Sequence[Path]) -> list[Path]:
    """The finished runs among `paths`; the others are named, with the reason. Raises ValueError when there is none."""
    folders = run_folders(paths)
    done = [path for path in folders if finished(path)]
    for path in sorted(set(folders) - set(done)):
        reason = failure(path) or "not finished; continue it with --resume"
        say(f"passed over {on_one_line(path)}: {reason}", file=sys.stderr)
    if not done:
        raise ValueError("none of these runs is finished; train them to the end with --resume")
    return done


def report_unread(failures: Sequence[Failure]) -> None:
    """Name the runs that could not be read, with the reason."""
    for one in failures:
        say(f"error: {on_one_line(one.what)}: {one.reason}", file=sys.stderr)
