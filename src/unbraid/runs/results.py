"""Results of evals in a run folder, results/<eval>.json: written into the folder and nowhere else, and read whole.

A result is signed, and says which weights it scored. One that was cut short, changed, or is of another shape is a
damaged result: an eval makes it again, a report shows it as what it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from unbraid.config.old_names import upgraded_score
from unbraid.config.settings import is_number
from unbraid.system.files import write_json
from unbraid.system.sealing import read_signed, signed

FOLDER = "results"
ScoreKind = Literal["measured", "chance", "ceiling", "reference"]
"""What a score is of: the run, or a level to compare it with."""
REMEDY = "score the run again: unbraid eval makes it anew"


def results_of(run: Path) -> list[Path]:
    """The results there are, by name. Raises ValueError when their folder is a link or no folder."""
    folder = run / FOLDER
    return sorted(own_folder(run, FOLDER).glob("*.json")) if folder.exists() or folder.is_symlink() else []


def result_path(run: Path, name: str) -> Path:
    """The path of an eval's result, written or not. Raises ValueError where it would be outside of the run folder."""
    path = own_folder(run, FOLDER) / f"{name}.json"
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError(f"{path} is a link or no file: nothing is written through it; remove it")
    return path


def own_folder(run: Path, name: str) -> Path:
    """A folder in a run folder that may be written to. Raises ValueError when it is a link, or something else."""
    folder = run / name
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link: nothing is written or read through it; remove it")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is no folder, expected one that holds results; remove it")
    return folder


def write_result(run: Path, name: str, result: Mapping[str, Any]) -> None:
    write_json(result_path(run, name), signed(result))


def read_result(path: Path) -> dict[str, Any]:
    """Read a result. Raises ValueError, naming the file, unless it is a whole result of the eval it is named after."""
    result = read_signed(path, remedy=REMEDY)
    if fault := fault_of(result, path.stem):
        raise ValueError(f"{path} {fault}; {REMEDY}")
    if "scores" in result:
        result["scores"] = [upgraded_score(row) for row in result["scores"]]
    return result


def fault_of(result: Mapping[str, Any], name: str) -> str:
    """The fault in the shape of a result; empty when there is none."""
    if result.get("eval", name) != name:
        return f"is the result of {result['eval']!r}, expected {name!r}"
    if not isinstance(result.get("version", 0), int | str):
        return "has a version that is neither a number nor text"
    if not isinstance(result.get("definitions", {}), dict) or not isinstance(result.get("definition", ""), str):
        return "has definitions that are not text by metric"
    reasons = [result[key] for key in ("error", "not_applicable") if key in result]
    if reasons:
        return "" if all(isinstance(reason, str) for reason in reasons) else "has a reason that is no text"
    scores = result.get("scores")
    if not isinstance(scores, list):
        return "has no list of scores, no error and no reason why it does not apply"
    return next((f"has a score of another shape, {str(row)[:60]}" for row in scores if not is_score(row)), "")


def is_score(row: object) -> bool:
    """True for a score as `evaluation.rows_of` writes it."""
    if not isinstance(row, dict) or not {"metric", "value"} <= set(row):
        return False
    params = row.get("params", {})
    return (
        row.get("kind", "measured") in get_args(ScoreKind)
        and isinstance(row["metric"], str)
        and (row["value"] is None or is_number(row["value"]))
        and row.get("better", "neither") in ("higher", "lower", "neither")
        and (params is None or (isinstance(params, dict) and all(map(is_plain, params.values()))))
    )


def is_plain(value: object) -> bool:
    return is_number(value) or isinstance(value, str | bool)
