"""Files, so that a reader sees the old content or the new, never half of it, and damage is told in one sentence.

What a folder of another person says is not trusted: JSON is checked for its shape (`read_json`), every error that
damage causes becomes a ValueError that names the file (`reading`), and a name out of a file stays inside its folder
(`inside`).
"""

import errno
import json
import lzma
import os
import pickle
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place. Raises OSError naming the space left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(path.parent).free
            raise OSError(
                errno.ENOSPC, f"disk full ({free:,} bytes free) while writing {path}; free some, then --resume"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(whole, temporary))


DAMAGE = (
    SafetensorError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError, EOFError,
    UnicodeDecodeError, json.JSONDecodeError, RecursionError,
)  # fmt: skip
"""What a file that is cut short, overwritten or of another kind makes readers raise."""


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Within, `path` is read: what it raises when it is missing or damaged becomes one ValueError that ends in
    `remedy`."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; {remedy}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} is damaged ({reason}); {remedy}") from error


def read_json(path: Path, expected: type = dict, *, remedy: str = "delete its folder and make it again") -> Any:
    """The JSON in `path`. Raises ValueError, naming the file and ending in `remedy`, when it is missing, damaged, or
    holds something else than an `expected` (dict or list)."""
    check_ordinary(path, LARGEST_JSON, remedy)
    with reading(path, remedy):
        found = parsed(path.read_text(encoding="utf-8"))
    if not isinstance(found, expected):
        words = {dict: "an object", list: "a list", str: "text", type(None): "null"}
        was, wanted = words.get(type(found), f"the value {found!r}"[:60]), words.get(expected, expected.__name__)
        raise ValueError(f"{path} holds {was}, expected {wanted}; {remedy}")
    return found


LARGEST_JSON = 2**28
"""Bytes: no settings, scores or index that is written here comes near it."""


def check_ordinary(path: Path, largest: int, remedy: str) -> None:
    """Raise ValueError for a pipe or a device, which could be read for ever, and for more bytes than `largest`."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no ordinary file; {remedy}")
    if path.is_file() and path.stat().st_size > largest:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes, and at most {largest:,} are read; {remedy}")


def parsed(text: str) -> Any:
    """JSON. A number of thousands of digits, which Python refuses by a ValueError of its own, is damage too."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise json.JSONDecodeError(str(error), text[:80], 0) from error


def inside(folder: Path, name: object, what: str) -> Path:
    """`folder / name` for a name out of a file. Raises ValueError unless it is a plain name, or a path of plain names,
    that stays inside `folder`, links followed. `what`: the name's own name, for the message."""
    words = name.split("/") if isinstance(name, str) else [""]
    if (
        not isinstance(name, str)
        or not all(re.fullmatch(r"[\w.+=@,-]+", w, re.ASCII) for w in words)
        or {".", ".."} & {*words}
    ):
        raise ValueError(
            f"{what} is {name!r}; expected a plain name without .. or a leading /: it could leave {folder}"
        )
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{what} is {name!r}, a link that leads out of {folder}; remove the link")
    return folder / name


def stays_inside(folder: Path, path: Path) -> None:
    """Raise ValueError for a link at `path` that leads out of `folder`: what it leads to is not the folder's to give,
    nor to be written to."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{path} is a link that leads out of {folder}; put what it leads to in its place, or remove it"
        )
