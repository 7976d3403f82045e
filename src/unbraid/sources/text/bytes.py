"""Bytes and lines of text files, unpacked where they are packed.

The compression of a file is found by its first bytes, whatever its name. It is unpacked a piece at a time, and no more
than memory can take: a few kilobytes can hold gigabytes.
"""

import bz2
import codecs
import gzip
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from unbraid.system.files import DAMAGE
from unbraid.system.memory import free_memory
from unbraid.system.notices import Pace

PIECE = 2**20
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of packed files."""
PACKED_ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".zstd")
NO_TEXT = {
    b"PK\x03\x04": "a zip archive", b"PK\x05\x06": "a zip archive", b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive", b"%PDF": "a PDF", b"\x04\x22\x4d\x18": "packed by lz4", b"\x93NUMPY": "a NumPy array",
    b"SQLite format 3": "a database", b"\x89PNG": "an image", b"\xff\xd8\xff": "an image",
    b"\xd0\xcf\x11\xe0": "an Office document", b"\x7fELF": "a program",
}  # fmt: skip
"""First bytes of files that hold no text, and the name of each kind."""
PARQUET, ARROW, ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
ZEROS = 0.2
"""The share of zero bytes above which a file is not UTF-8 text."""
WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
TIMES = 1000
"""A file that unpacks to more times its size is taken for one made to fill memory: text packs 3 to 20 times."""
UNSUSPICIOUS = 2**26
"""Bytes that any file may unpack to."""
WHOLE_SHARE = 1 / 12
"""The share of free memory that may be read as one piece: a line, or a file of one JSON value.

As Python objects it takes several times as much."""


@contextmanager
def reading_text(path: Path) -> Iterator[None]:
    """Turn errors from reading a damaged file, raised while open, into a ValueError that names the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} {not_utf8(path)}") from error
    except (OSError, *DAMAGE) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"cannot read {path} ({reason}); it may be cut short: get it again") from error


def not_utf8(path: Path) -> str:
    return (
        "is not UTF-8 text; if you know its encoding, convert it, as from Latin-1: "
        f"iconv -f LATIN1 -t UTF-8 '{path.name}' > 'utf8-{path.name}'"
    )


def head(path: Path) -> bytes:
    """Return the first bytes of the text in a file, unpacked. Raises ValueError for what is no text."""
    with reading_text(path), opened(path) as file:
        found = file.read(PIECE)
    kind = next((name for magic, name in NO_TEXT.items() if found.startswith(magic)), "")
    if found[257:262] == b"ustar":
        kind = "a tar archive"
    if not kind and not found.startswith((PARQUET, ARROW, ARROW_STREAM, *WIDE)) and found.count(0) > len(found) * ZEROS:
        kind = "binary, or UTF-16 without its mark"
    if kind:
        raise ValueError(f"{path} is {kind}, not text; unpack it, or convert it to .jsonl")
    if found.startswith(WIDE):
        raise ValueError(f"{path} is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 '{path.name}' > 'utf8-{path.name}'")
    return found


def packing(path: Path) -> str:
    """Return the compression of a file, by its first bytes; empty when there is none."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((name for magic, name in PACKED.items() if start.startswith(magic)), "")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open the unpacked bytes of a file, to be read in order."""
    packed = packing(path)
    with path.open("rb") as raw, unpacked(raw, packed) as file:
        yield file


def unpacked(raw: BinaryIO, packed: str) -> Any:
    """Return a readable stream of the unpacked bytes; `packed` is the compression, empty for none."""
    if packed == "zstd":
        import pyarrow

        return pyarrow.input_stream(raw, compression="zstd")
    if packed == "gzip":
        return gzip.GzipFile(fileobj=raw)
    return {"bz2": bz2.open, "xz": lzma.open}[packed](raw) if packed else raw


def pieces(path: Path) -> Iterator[bytes]:
    """Yield the unpacked bytes, a piece at a time. Raises ValueError for a file that unpacks to far too much."""
    size, unpacked_size = path.stat().st_size, 0
    pace = Pace(f"reading {path.name}", size)
    packed = packing(path)
    with reading_text(path), path.open("rb") as raw, unpacked(raw, packed) as file:
        while piece := file.read(PIECE):
            unpacked_size += len(piece)
            if packed and unpacked_size > max(UNSUSPICIOUS, TIMES * size):
                raise ValueError(
                    f"{path} has {size:,} bytes and unpacks to more than {unpacked_size:,}, which is no text: it would "
                    "fill memory; if it is meant so, unpack it first"
                )
            yield piece
            pace.at(min(raw.tell(), size) if not raw.closed else size)


def lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file with their ends, without a byte order mark.

    Raises ValueError for one too long for memory.
    """
    most, held = int(WHOLE_SHARE * free_memory()), 0
    pending: list[bytes] = []  # of a line that goes on in the next piece
    for piece in unmarked(pieces(path)):
        if pending and pending[-1].endswith(b"\r"):
            yield b"".join(pending) + piece[: piece.startswith(b"\n")]
            piece, pending, held = piece[piece.startswith(b"\n") :], [], 0
        found = piece.splitlines(keepends=True)
        open_ended = found.pop() if found and not found[-1].endswith(b"\n") else b""
        if found:
            yield b"".join(pending) + found[0]
            yield from found[1:]
            pending, held = [], 0
        if open_ended:
            pending.append(open_ended)
            held += len(open_ended)
        if held > most:
            raise ValueError(
                f"{path} has a line of more than {most:,} bytes, a twelfth of the memory that is free; cut it up"
            )
    if pending:
        yield b"".join(pending)


def unmarked(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same pieces without a byte order mark at the beginning."""
    first = next(parts, b"")
    yield first.removeprefix(codecs.BOM_UTF8)
    yield from parts


def whole(path: Path) -> bytes:
    """Return all bytes of a file that is to be read as one value.

    Raises ValueError when they are too many for memory.
    """
    most, found, size = int(WHOLE_SHARE * free_memory()), [], 0
    for piece in unmarked(pieces(path)):
        size += len(piece)
        if size > most:
            raise ValueError(
                f"{path} must be read at once and holds more than {most:,} bytes, a twelfth of the memory that is "
                "free; convert it to .jsonl, one document a line"
            )
        found.append(piece)
    return b"".join(found)
