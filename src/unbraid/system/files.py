"""Files: writes are atomic, and damage is reported in one sentence.

The content of a folder is not trusted: JSON is checked for its structure (`read_json`), every error that damage causes
becomes a ValueError that names the file (`reading`), a name read from a file must stay inside its folder (`inside`),
and a pipe or device in place of a file is refused (`check_plain`), as reading it could block for ever.
"""

import errno
import hashlib
import json
import lzma
import os
import pickle
import re
import shutil
import stat
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from unbraid.system import processes


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, then move it to `path`. Raises OSError with the free space if that fails."""
    # In a separate folder: safetensors creates another temporary file next to the one it writes.
    with explain_full_disk(path), temporary_folder(path.parent, path.name) as folder:
        temporary = folder / path.name
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Context manager of a temporary folder in `parent`, removed at the end.

    If this process is killed, it is removed as soon as another process writes into `parent`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(parent)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=temporary_prefix(name)))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def append_text(path: Path, text: str) -> None:
    """Append text to a file, as for logs; if the process is killed, half a line may remain."""
    with explain_full_disk(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8}-\d+-\d+)\.[^.]+")
NAMELESS = re.compile(r"\..+\.(json|jsonl|safetensors)\.[^.]+|\.tmp\w{6}")
"""Temporary names of earlier versions, without the process that wrote them, and of safetensors."""
FORGOTTEN_SECONDS = 86_400.0
"""Age in seconds at which a temporary file of another machine's process counts as a leftover."""


def temporary_prefix(name: str) -> str:
    """The beginning of a temporary name: it holds the process that writes, so that leftovers can be recognised."""
    return f".{name[:100]}.{processes.own()}."


def clear_leftovers(folder: Path, *, held: bool = False) -> None:
    """Remove temporary files and folders of processes that have ended; all of them where the folder is `held`."""
    with os.scandir(folder) as entries:
        hidden = [entry for entry in entries if entry.name.startswith(".")]
    for entry in hidden:
        with suppress(OSError):  # another process may be clearing them too
            found = TEMPORARY.fullmatch(entry.name)
            writer = processes.named(found[1]) if found else None
            nameless = held and NAMELESS.fullmatch(entry.name)
            touched = entry.stat(follow_symlinks=False).st_mtime
            if nameless or (writer is not None and (held or abandoned(writer, touched))):
                discard(entry)


def discard(entry: "os.DirEntry[str]") -> None:
    """Remove a file or folder."""
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    else:
        os.unlink(entry.path)


def abandoned(writer: processes.Process, touched: float) -> bool:
    """True if the process that wrote a temporary file has ended, or, elsewhere, has not touched it for a day."""
    return writer.gone if writer.here else time.time() - touched > FORGOTTEN_SECONDS


FULL = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk quota used up",
    errno.EFBIG: "file larger than the file system or a limit of this process allows",
}


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Context manager in which `path` is written: errors for lack of space become an OSError with a remedy."""
    try:
        yield
    except Exception as error:
        number = system_error(error)
        if number in FULL:
            free = shutil.disk_usage(path.parent).free
            raise OSError(
                number,
                f"{FULL[number]} ({free:,} bytes free) while writing {path}; free some, then run this again, "
                "with --resume where it trains",
            ) from error
        if number and isinstance(error, SafetensorError):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def system_error(error: BaseException | None) -> int:
    """Return the errno of an error or its causes; 0 when there is none. Libraries in Rust have it in their message."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return 0


def write_text(path: Path, text: str) -> None:
    """Write text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(whole, temporary))


DAMAGE = (
    SafetensorError, lzma.LZMAError, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError, EOFError,
    UnicodeDecodeError, json.JSONDecodeError, RecursionError,
)  # fmt: skip
"""Errors that readers raise for a file that is truncated, overwritten or of another kind."""


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Context manager in which `path` is read: a missing or damaged file raises a ValueError that ends in `remedy`."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; {remedy}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} is damaged ({reason}); {remedy}") from error


JSON_BYTES = 2**28
"""Largest JSON that is read, in bytes; files of runs and evals are far smaller."""
KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"), (stat.S_ISLNK, "a link"),
)  # fmt: skip


def check_plain(path: Path, remedy: str, *, links: bool = True, most: int | None = None) -> None:
    """Raise ValueError, ending in `remedy`, unless `path` is a file (`links`: or a link) of at most `most` bytes."""
    with reading(path, remedy):
        found = path.stat() if links else path.lstat()
    kind = next((word for test, word in KINDS if test(found.st_mode)), "")
    if kind:
        raise ValueError(f"{path} is no ordinary file but {kind}; {remedy}")
    if most is not None and found.st_size > most:
        raise ValueError(f"{path} has {found.st_size:,} bytes, expected at most {most:,}; {remedy}")


def read_json(path: Path, expected: type = dict, *, remedy: str = "delete its folder and make it again") -> Any:
    """Read JSON.

    Raises ValueError, naming the file and ending in `remedy`, when it is missing, damaged, or holds something other
    than an `expected` (dict or list).
    """
    check_plain(path, remedy, most=JSON_BYTES)
    with reading(path, remedy):
        found = parsed(path.read_text(encoding="utf-8"))
    if not isinstance(found, expected):
        words = {dict: "an object", list: "a list", str: "text", type(None): "null"}
        was, wanted = words.get(type(found), f"the value {found!r}"[:60]), words.get(expected, expected.__name__)
        raise ValueError(f"{path} holds {was}, expected {wanted}; {remedy}")
    return found


def parsed(text: str) -> Any:
    """Parse JSON. A number of thousands of digits, for which Python raises a plain ValueError, is damage too."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise json.JSONDecodeError(str(error), text[:80], 0) from error


def inside(folder: Path, name: object, what: str) -> Path:
    """Return `folder / name` for a name read from a file.

    Raises ValueError unless it is a plain name, or a path of plain names, that stays inside `folder`, links followed.
    `what`: a description of the name for the message.
    """
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
    """Raise ValueError for a link at `path` that leads out of `folder`: its target is neither read nor written."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{path} is a link that leads out of {folder}; put what it leads to in its place, or remove it"
        )


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
