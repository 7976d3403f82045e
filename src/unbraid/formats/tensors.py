"""Reading of tensors from other people's files: no code is run, and no more memory is used than there is.

Floating-point tensors come in float32, whole numbers as they are; what is neither is refused.
"""

import math
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import torch
from numpy.lib import format as npy
from safetensors import safe_open
from torch import Tensor

COPIES = 3
"""Of the weights in float32 that are held at once: as they were read, in our form, and one between."""
READERS_OF_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

T = TypeVar("T")


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors. Raises ValueError, with the file, when it is missing, damaged or larger than the memory."""

    def shapes() -> dict[str, list[int]]:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no mapping)

    def tensors() -> dict[str, Tensor]:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    make_room(path, COPIES * 4 * sum(map(math.prod, attempted(path, shapes).values())))
    return usable(attempted(path, tensors), path)


def load_torch(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict and no code: what else a pickle may hold is refused. For the rest as
    `load_safetensors`."""

    def state() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats of old versions
            return torch.load(path, map_location="cpu", weights_only=True)

    make_room(path, 2 * COPIES * attempted(path, lambda: unpacked_size(path)))
    found = attempted(path, state)
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} holds no state dict; save one with torch.save(ae.state_dict(), …)")
    return usable(found, path)


def load_npz(path: Path) -> dict[str, Tensor]:
    """The arrays in an .npz, none of them a pickle. For the rest as `load_safetensors`."""

    def arrays() -> dict[str, Tensor]:
        check_npz(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(native(file[name])) for name in file.files}

    make_room(path, 2 * COPIES * attempted(path, lambda: unpacked_size(path)))
    return usable(attempted(path, arrays), path)


def attempted(path: Path, read: Callable[[], T]) -> T:
    """Return the result of `read`. Raises ValueError when the file is not ordinary, and for all errors of `read`."""
    if not path.exists():
        raise ValueError(f"{path} is missing; fetch it again")
    if not path.is_file():
        raise ValueError(f"{path} is no ordinary file; fetch it again")
    try:
        return read()
    except Exception as error:  # a stranger's bytes make readers raise anything: MemoryError, KeyError, struct.error
        said = " ".join(str(error).split())[:160]
        reason = said if said and said.isprintable() else type(error).__name__
        raise ValueError(
            f"{path} cannot be read as tensors alone ({reason}): missing parts or another kind of file; fetch it again"
        ) from error


def unpacked_size(path: Path) -> int:
    """Bytes of what a zip holds once it is unpacked, or of another file as it is."""
    if not zipfile.is_zipfile(path):
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return sum(member.file_size for member in archive.infolist())


def make_room(path: Path, needed: int) -> None:
    """Raise ValueError when fewer bytes of memory than `needed` are free."""
    free = psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"reading {path} takes about {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free; free "
            "some, or read it on a larger machine"
        )


def check_npz(path: Path) -> None:
    """Raise ValueError for a member that states more numbers than it holds: NumPy would make room for all of them."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                shape, _, dtype = READERS_OF_HEADERS[npy.read_magic(file)](file)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError(f"{member.filename} states the shape {shape}, and holds {member.file_size} bytes")


def native(array: np.ndarray) -> np.ndarray:
    """Convert an array to a type that torch has."""
    return array.astype(np.float32) if array.dtype.kind == "f" else np.ascontiguousarray(array)


def usable(tensors: Mapping[Any, Tensor], path: Path) -> dict[str, Tensor]:
    """Plain tensors of numbers, detached, in float32 when they are not whole numbers."""
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
        if not isinstance(name, str) or not plain or tensor.is_complex():
            raise ValueError(
                f"{path}: {name!r} is {tensor.dtype}, {tensor.layout} on {tensor.device}; expected plain tensors of "
                "real numbers"
            )
    held = {name: tensor.detach() for name, tensor in tensors.items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in held.items()}


def take(tensors: Mapping[str, Tensor], names: tuple[str, ...], where: Path) -> list[Tensor]:
    """The tensors of these names. Raises ValueError when one is missing, or holds no floating-point numbers."""
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ValueError(f"{where}: tensors {missing} are missing; found {sorted(tensors)}")
    found = [tensors[name] for name in names]
    whole = {name: str(value.dtype) for name, value in zip(names, found, strict=True) if not value.is_floating_point()}
    if whole:
        raise ValueError(
            f"{where}: expected floating-point weights, found {whole}; dequantise them where they were made"
        )
    return found


def take_all(
    tensors: Mapping[str, Tensor], names: tuple[str, ...], where: Path, *, besides: tuple[str, ...] = ()
) -> list[Tensor]:
    """The tensors of these names, as `take`. Raises ValueError for others too, unless they are among `besides`."""
    found = take(tensors, names, where)
    refuse_others(tensors, (*names, *besides), where)
    return found


def refuse_others(tensors: Mapping[str, Tensor], known: tuple[str, ...], where: Path) -> None:
    """Raise ValueError for tensors that nothing here would read: an SAE that has them computes something else. A
    scaling factor of ones changes nothing."""
    for name in sorted(tensors.keys() - set(known)):
        if name in ("scaling_factor", "finetuning_scaling_factor") and bool((tensors[name] == 1).all()):
            continue
        raise ValueError(
            f"{where}: {shown(name)} is no tensor of this kind of SAE, which has {', '.join(known)}; is the "
            "architecture in its settings right?"
        )


def quoted(value: object) -> str:
    """A setting out of a stranger's file, in quotes when it is text."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def shown(value: object) -> str:
    """A word out of a stranger's file, as a sentence shows it: short, and without control characters."""
    text = value if isinstance(value, str) and value.isprintable() and value else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
