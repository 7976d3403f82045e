"""Results of evals in a run folder, results/<eval>.json: written into the folder and nowhere else, and read whole.

A result is signed, and says which weights it scored. One that was cut short, changed, or is of another shape is a
damaged result: an eval makes it again, a report shows it as what it is. Tables that an eval stores besides its scores
are files next to it, results/<eval>.<part>, whose size and SHA-256 the result holds; it is written after them.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from unbraid.config.old_names import upgraded_score
from unbraid.config.settings import is_number
from unbraid.system.files import reading, write_atomically, write_json
from unbraid.system.sealing import Seals, check_sealed, read_signed, seals_in, signed

FOLDER = "results"
FILES = "files"
"""The key of a result under which it has the seals of its files."""
ScoreKind = Literal["measured", "chance", "ceiling", "reference"]
"""What a score is of: the run, or a level to compare it with."""
REMEDY = "score the run again: unbraid eval makes it anew"
NO_FILES: Mapping[str, bytes] = MappingProxyType({})


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


def write_result(run: Path, name: str, result: Mapping[str, Any], files: Mapping[str, bytes] = NO_FILES) -> None:
    """Write a result, and before it its files by their part of the name; those of an earlier result are removed."""
    path = result_path(run, name)
    contents = {f"{name}.{part}": content for part, content in files.items()}
    for old in path.parent.glob(f"{name}.*.*"):
        if old.name not in contents:
            old.unlink()
    for file, content in contents.items():
        write_atomically(path.parent / file, lambda temporary, content=content: temporary.write_bytes(content))
    seals = {
        file: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for file, content in contents.items()
    }
    write_json(path, signed({**result, FILES: seals} if seals else result))


def check_files(run: Path, result: Mapping[str, Any]) -> Seals:
    """Return the seals of a result's files. Raises ValueError unless each is there as it was written."""
    folder = own_folder(run, FOLDER)
    seals = seals_in(result, folder)
    for name in seals:
        if not is_part(name, str(result.get("eval"))):
            raise ValueError(f"{folder} has a result of {result.get('eval')!r} with a file {name!r}; {REMEDY}")
        check_sealed(folder, name, seals, remedy=REMEDY)
    return seals


def read_file(run: Path, result: Mapping[str, Any], part: str) -> bytes:
    """Return a result's file, by its part of the name. Raises ValueError unless it is there as it was written."""
    name = f"{result.get('eval')}.{part}"
    folder = own_folder(run, FOLDER)
    if name not in check_files(run, result):
        raise ValueError(f"{folder} has no {name}; {REMEDY}")
    with reading(folder / name, REMEDY):
        return (folder / name).read_bytes()


def is_part(name: str, of: str) -> bool:
    """True for a plain name of a file that belongs to an eval."""
    return re.fullmatch(rf"{re.escape(of)}\.[a-z_]+\.[a-z]+", name) is not None


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
