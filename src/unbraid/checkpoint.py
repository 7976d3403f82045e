"""Checkpoints of an unfinished run: everything needed to continue bit for bit, in safetensors, never pickle.

    <run>/checkpoints/<step>.safetensors     parameters, moments, counters, and the rows the stream carries over

The two newest are kept: members of a cohort write one after the other, so a kill between two writes leaves some
members one checkpoint ahead, and the step they all have is still there.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unbraid.files import write_atomically, write_text
from unbraid.source import Batch, Position

KEPT = 2


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Tensor], position: Position, seconds: float) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    for number, rows in enumerate(position.carry):
        for name in ("x", "tokens", "documents", "positions"):
            tensors[f"carry/{number}/{name}"] = getattr(rows, name).contiguous()
    where = {
        "block": position.block,
        "taken": position.taken,
        "filtered": position.filtered,
        "carry": len(position.carry),
    }
    facts = {"step": str(step), "seconds": str(seconds), "position": json.dumps(where)}
    write_atomically(
        folder / "checkpoints" / f"{step}.safetensors", lambda path: save_file(tensors, path, metadata=facts)
    )
    for old in sorted(steps_saved(folder))[:-KEPT]:
        path_of(folder, old).unlink()


def load_checkpoint(folder: Path, step: int) -> tuple[dict[str, Tensor], Position, float]:
    """(state, stream position, seconds spent). Raises ValueError when the file is damaged."""
    path = path_of(folder, step)
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"checkpoint {path} is damaged ({error}); delete it to resume from the one before") from error
    where = json.loads(facts["position"])
    names = ("x", "tokens", "documents", "positions")
    carry = [Batch(*(tensors.pop(f"carry/{number}/{name}") for name in names)) for number in range(where["carry"])]
    return tensors, Position(where["block"], where["taken"], where["filtered"], carry), float(facts["seconds"])


def path_of(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"{step}.safetensors"


def steps_saved(folder: Path) -> list[int]:
    return [int(path.stem) for path in (folder / "checkpoints").glob("[0-9]*.safetensors")]


def common_step(folders: Sequence[Path]) -> int:
    """The newest step every folder has a checkpoint of; 0 when there is none."""
    return max(set.intersection(*({0, *steps_saved(folder)} for folder in folders)))


def drop_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def trim_log(folder: Path, step: int) -> None:
    """Drop rows of metrics.jsonl that a resumed run will write again."""
    path = folder / "metrics.jsonl"
    if path.is_file():
        rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] < step]
        write_text(path, "".join(kept))
