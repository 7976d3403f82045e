"""Checkpoints of an unfinished run: everything needed to continue bit for bit, in safetensors, never pickle.

    <run>/checkpoints/<step>.safetensors     parameters, moments, counters, and the rows the stream carries over
    <run>/checkpoints/fit.safetensors        how far a fit, or what it found, where the run starts from one

Each holds a SHA-256 of what is in it. Every member of a cohort goes on from its own newest: one that is ahead waits, so
a kill between two members' writes loses nothing. Older ones are removed once the whole round is written, but for the
two newest of each member, and the two newest that all have.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unbraid.sources.base import Batch
from unbraid.sources.stream import Position
from unbraid.system.files import clear_leftovers, reading, write_atomically, write_text
from unbraid.system.group import Group
from unbraid.training.latent_shards import own_state

KEPT = 2
COLUMNS = ("x", "tokens", "documents", "positions")


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Tensor], position: Position, seconds: float) -> None:
    """Write a checkpoint: the state of training, and the position in the stream of activations."""
    write_sealed(path_of(folder, step), *packed(step, state, position, seconds))


def packed(
    step: int, state: Mapping[str, Tensor], position: Position, seconds: float
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the facts of a checkpoint."""
    tensors = dict(state)
    for number, rows in enumerate(position.carry):
        tensors |= {f"carry/{number}/{name}": getattr(rows, name) for name in COLUMNS}
    where = {
        "block": position.block,
        "taken": position.taken,
        "filtered": position.filtered,
        "carry": len(position.carry),
    }
    return tensors, {"step": str(step), "seconds": str(seconds), "position": json.dumps(where)}


def unpacked(tensors: dict[str, Tensor], facts: Mapping[str, str]) -> tuple[dict[str, Tensor], Position, float]:
    """Return (state, stream position, seconds spent) of a checkpoint's tensors and facts."""
    where = json.loads(facts["position"])
    carry = [Batch(*(tensors.pop(f"carry/{number}/{name}") for name in COLUMNS)) for number in range(where["carry"])]
    return tensors, Position(where["block"], where["taken"], where["filtered"], carry), float(facts["seconds"])


def load_checkpoint(folder: Path, step: int) -> tuple[dict[str, Tensor], Position, float]:
    """Read (state, stream position, seconds spent). Raises ValueError when the file is damaged."""
    path = path_of(folder, step)
    tensors, facts = read_sealed(path)
    if facts.get("step") != str(step):
        raise ValueError(f"{path} is of step {facts.get('step')}; delete it to resume from the one before")
    return unpacked(tensors, facts)


def write_sealed(path: Path, state: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    sealed = {**facts, "sha256": digest(tensors, facts)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=sealed))


def read_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a sealed file. Raises ValueError when it is missing, damaged, or not as it was written."""
    remedy = "delete it to resume from the one before"
    with reading(path, remedy), safe_open(path, framework="pt") as file:
        facts = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if facts.pop("sha256", "") != digest(tensors, facts):
        raise ValueError(f"{path} is damaged (its SHA-256 is not the one written in it); {remedy}")
    return tensors, facts


def digest(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and bytes, and of the facts stored with them."""
    found = hashlib.sha256(json.dumps(sorted(facts.items())).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return found.hexdigest()


def newest(folder: Path, tell: Callable[[str], None]) -> tuple[int, dict[str, Tensor], Position, float] | None:
    """The newest checkpoint that is whole: step, state, stream position, seconds spent. Damaged ones are reported and
    removed, since what is trained again will be written in their place. None when there is none."""
    for step in sorted(steps_saved(folder), reverse=True):
        try:
            return step, *load_checkpoint(folder, step)
        except ValueError as error:
            if isinstance(error.__cause__, OSError):
                raise  # it cannot be read now, and may be another time
            older = max((s for s in steps_saved(folder) if s < step), default=0)
            path_of(folder, step).unlink()
            tell(f"{str(error).partition('; delete')[0]}: {folder.name} goes on from step {older}")
    return None


def newest_in(
    group: Group, folder: Path, tell: Callable[[str], None]
) -> tuple[int, dict[str, Tensor], Position, float] | None:
    """Return the newest checkpoint, as the first process of a group finds it; this one's latents of it, where they are
    shared out."""
    found = newest(folder, tell) if group.leads else None
    if group.alone:
        return found
    tensors, facts = packed(*found) if found is not None else ({}, {})
    facts = json.loads(group.first_text(json.dumps(facts)))
    tensors = group.named_tensors(tensors) if group.latents.alone else own_state(tensors, group)
    return (int(facts["step"]), *unpacked(tensors, facts)) if facts else None


def path_of(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"{step}.safetensors"


def steps_saved(folder: Path) -> list[int]:
    return [int(path.stem) for path in (folder / "checkpoints").glob("[0-9]*.safetensors")]


def common_steps(folders: Sequence[Path]) -> list[int]:
    """The steps every folder has a checkpoint of, rising."""
    return sorted(set.intersection(*({*steps_saved(folder)} for folder in folders)))


def common_step(folders: Sequence[Path]) -> int:
    """The newest step every folder has a checkpoint of; 0 when there is none."""
    return max(common_steps(folders), default=0)


def prune(folders: Sequence[Path]) -> None:
    """Remove old checkpoints, once a whole round of a cohort is written."""
    common = {*common_steps(folders)[-KEPT:]} if folders else set()
    for folder in folders:
        for old in sorted(steps_saved(folder))[:-KEPT]:
            if old not in common:
                path_of(folder, old).unlink(missing_ok=True)


def drop_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def tidy(folder: Path) -> None:
    """Remove half-written files of a killed process. This process holds the folder, so nobody is writing them."""
    for place in (folder, folder / "checkpoints"):
        if place.is_dir():
            clear_leftovers(place, held=True)


def trim_log(folder: Path, step: int) -> None:
    """Drop rows of metrics.jsonl that a resumed run will write again, and what a kill or damage left of a row."""
    path = folder / "metrics.jsonl"
    if path.is_file():
        rows = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        kept = [row for row in rows if row.endswith("\n") and step_of(row) < step]
        write_text(path, "".join(kept))


def step_of(row: str) -> float:
    """The step of a row; infinity when it cannot be read."""
    try:
        return float(json.loads(row)["step"])
    except (ValueError, TypeError, KeyError):
        return float("inf")


class FitCheckpoint:
    """The checkpoint of an initialisation that takes minutes: written when due, and when it is interrupted."""

    def __init__(self, folder: Path, due: "Due", tell: Callable[[str], None]):
        self.path = folder / "checkpoints" / "fit.safetensors"
        self._due, self._tell = due, tell
        self._latest: Mapping[str, Tensor] = {}
        self._steps = 0

    def read(self) -> dict[str, Tensor]:
        """Read what an earlier attempt wrote; empty when there is none or, with a warning, when it is damaged."""
        if not self.path.is_file():
            return {}
        try:
            tensors, _ = read_sealed(self.path)
        except ValueError as error:
            if isinstance(error.__cause__, OSError):
                raise
            self._tell(f"{str(error).partition('; delete')[0]}: the fit of {self.path.parents[1].name} starts anew")
            self.path.unlink()
            return {}
        # Cloned: products round differently by where in memory tensors start, and mapped ones start anywhere.
        return {name: tensor.clone() for name, tensor in tensors.items()}

    def write(self, state: Mapping[str, Tensor]) -> None:
        """Keep `state`, and write it when that is due; its tensors must not change afterwards."""
        self._latest = dict(state)
        self._steps += 1
        if self._due.now(self._steps):
            self.flush()

    def finish(self, state: Mapping[str, Tensor]) -> None:
        self._latest = dict(state)
        self.flush()

    def flush(self) -> None:
        if self._latest:
            write_sealed(self.path, self._latest, {})


class Due:
    """Decides when a checkpoint is due: every so many seconds, or steps when that is not 0."""

    def __init__(self, seconds: float, steps: int):
        self._seconds, self._steps = seconds, steps
        self._last = time.monotonic()

    def now(self, index: int) -> bool:
        """True if a checkpoint is due at this step."""
        if self._steps:
            return index % self._steps == 0
        if time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True
