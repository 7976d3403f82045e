"""Files, so that a reader sees the old content or the new, never half of it, and damage is told in one sentence.

What a folder of another person says is not trusted: JSON is checked for its shape (`read_json`), every error that
damage causes becomes a ValueError that names the file (`reading`), a name out of a file stays inside its folder
(`inside`), and what stands in a file's place (a pipe would wait for ever) is told from one (`check_plain`).
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
    """Let `write` fill a temporary file beside `path`, then put it in place. Raises OSError naming the space left."""
    # In a folder of its own: safetensors puts a temporary file of its own beside what it is told to write.
    with told_when_full(path), temporary_folder(path.parent, path.name) as folder:
        temporary = folder / path.name
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder beside what is to become `parent / name`, gone afterwards; gone too, when this process is killed, as
    soon as another writes into `parent`."""
    parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(parent)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=temporary_prefix(name)))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def append_text(path: Path, text: str) -> None:
    """For logs: a kill may leave half a line."""
    with told_when_full(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8}-\d+-\d+)\.[^.]+")
NAMELESS = re.compile(r"\..+\.(json|jsonl|safetensors)\.[^.]+|\.tmp\w{6}")
"""Of versions before names told whose they are, and of safetensors."""
FORGOTTEN_SECONDS = 86_400.0
"""Age at which what a process of another machine is writing is taken for a leftover."""


def temporary_prefix(name: str) -> str:
    """The beginning of a temporary name: for whom, and by which process, so that others know when it is a leftover."""
    return f".{name[:100]}.{processes.own()}."


def clear_leftovers(folder: Path, *, held: bool = False) -> None:
    """Remove temporary files and folders of processes that have ended before they could; all there are where the folder
    is `held`, so that nobody else writes there."""
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
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    else:
        os.unlink(entry.path)


def abandoned(writer: processes.Process, touched: float) -> bool:
    return writer.gone if writer.here else time.time() - touched > FORGOTTEN_SECONDS


FULL = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk quota used up",
    errno.EFBIG: "file larger than the file system or a limit of this process allows",
}


@contextmanager
def told_when_full(path: Path) -> Iterator[None]:
    """Within, `path` is written: whatever a library raises for want of space becomes an OSError that says what was
    written, how much is free and what to do."""
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
    """The system's number of what went wrong; 0 when it is not the system's. Rust keeps it in a text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return 0


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


JSON_BYTES = 2**28
"""Largest JSON that is read: what a run, an eval or another library writes is far below."""
KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"), (stat.S_ISLNK, "a link"),
)  # fmt: skip


def check_plain(path: Path, remedy: str, *, links: bool = True, most: int | None = None) -> None:
    """Raise ValueError, ending in `remedy`, unless `path` is a file of at most `most` bytes. `links`: whether a link to
    one will do."""
    with reading(path, remedy):
        found = path.stat() if links else path.lstat()
    kind = next((word for test, word in KINDS if test(found.st_mode)), "")
    if kind:
        raise ValueError(f"{path} is no ordinary file but {kind}; {remedy}")
    if most is not None and found.st_size > most:
        raise ValueError(f"{path} has {found.st_size:,} bytes, expected at most {most:,}; {remedy}")


def read_json(path: Path, expected: type = dict, *, remedy: str = "delete its folder and make it again") -> Any:
    """The JSON in `path`. Raises ValueError, naming the file and ending in `remedy`, when it is missing, damaged, or
    holds something else than an `expected` (dict or list)."""
    check_plain(path, remedy, most=JSON_BYTES)
    with reading(path, remedy):
        found = parsed(path.read_text(encoding="utf-8"))
    if not isinstance(found, expected):
        words = {dict: "an object", list: "a list", str: "text", type(None): "null"}
        was, wanted = words.get(type(found), f"the value {found!r}"[:60]), words.get(expected, expected.__name__)
        raise ValueError(f"{path} holds {was}, expected {wanted}; {remedy}")
    return found


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


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
