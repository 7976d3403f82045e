"""The mark of a run that cannot be trained to its end: failed.json, with the step and the reason.

Training is a function of the experiment, so it would fail again at the same step: a failed run is neither resumed nor
waited for by the cohort it was in. Starting it anew removes the mark.
"""

import traceback
from pathlib import Path

from unbraid.system.files import read_json, write_json

MARK = "failed.json"


def mark_failed(folder: Path, step: int, error: Exception) -> None:
    where = "".join(traceback.format_exception(error))
    write_json(folder / MARK, {"step": step, "error": str(error), "traceback": where})


def failure(folder: Path) -> str:
    """The reason why the run stopped for good; empty when it did not."""
    path = folder / MARK
    if not path.is_file():
        return ""
    mark = read_json(path)
    return f"stopped at step {mark.get('step')} for good: {mark.get('error')}"


def forget_failure(folder: Path) -> None:
    (folder / MARK).unlink(missing_ok=True)
