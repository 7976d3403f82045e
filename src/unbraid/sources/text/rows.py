"""Rows of the files that people keep text in: JSON lines, JSON, CSV, Parquet, Arrow, and what datasets saves.

A row is an object by column, or a text or a list by itself. The format of a file is found by its content before its
name.
"""

import csv
import importlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from unbraid.sources.text.bytes import (
    ARROW,
    PACKED_ENDINGS,
    PARQUET,
    head,
    lines,
    not_utf8,
    packing,
    reading_text,
    whole,
)
from unbraid.system.memory import free_memory

ENDINGS = {
    ".txt": "text", ".text": "text", ".md": "text", ".jsonl": "json", ".ndjson": "json", ".json": "json",
    ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow",
}  # fmt: skip
"""The kind of a file by the ending of its name, before .gz and the like."""
DELIMITERS = ",\t;|"
ROWS_AT_ONCE = 64
GROUP_SHARE = 0.5
"""The share of free memory that a row group of Parquet may unpack to."""
PATIENCE = 1000
"""Rows after which a column that none of them has is given up."""
LONG_NAME = 40
"""Characters of a column's name that an error shows; in a table without names, its first text is one."""
DECODER = json.JSONDecoder(strict=False)  # tabs within strings are common, and harmless


def ending(path: Path) -> str:
    """Return the file's suffix, before .gz and the like."""
    name = path.name.lower()
    packed = next((end for end in PACKED_ENDINGS if name.endswith(end)), "")
    return Path(name.removesuffix(packed)).suffix


def kind_of(path: Path) -> str:
    """Return the format of a file: text, json, csv, parquet, arrow. Raises ValueError for what is none of them."""
    start, named = head(path), ENDINGS.get(ending(path), "")
    if start.startswith(PARQUET):
        return "parquet"
    if start.startswith(ARROW):
        return "arrow"
    if named == "parquet":
        raise ValueError(f"{path} is named as Parquet but does not begin as such a file does; get it again")
    if named != "json" and named != "arrow" and holds_json_lines(start):
        return "json"
    if not named:
        raise ValueError(
            f"cannot read {str(path)!r}: its suffix is none of {' '.join(ENDINGS)}, nor that with .gz .bz2 .xz .zst; "
            "convert it, or rename it if it is one of them"
        )
    return named


def holds_json_lines(start: bytes) -> bool:
    line = start.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
    try:
        return line.startswith(b"{") and isinstance(DECODER.decode(line.decode("utf-8").strip()), dict)
    except (ValueError, RecursionError):
        return False


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield (where, row) of every row of a file; of wide files only `columns` are read.

    Raises ValueError, naming the file and the place, for what cannot be read.
    """
    kind = kind_of(path)
    if kind == "text":
        raise ValueError(f"{path} is plain text, without columns; give .jsonl, .csv or .parquet")
    if kind == "csv":
        yield from csv_rows(path, columns)
    elif kind == "json":
        yield from json_rows(path, columns)
    else:
        with arrow_errors(path):
            batches = parquet_batches(path, columns) if kind == "parquet" else arrow_batches(path)
            yield from table_rows(batches, columns, str(path))


# ---- JSON --------------------------------------------------------------------------------------------------


def decoded(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file and their numbers."""
    for number, line in enumerate(lines(path), 1):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"line {number} of {path} {not_utf8(path)}") from error


def json_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the rows of JSON: one value a line, or one value for the whole file."""
    full = ((number, line) for number, line in decoded(path) if line.strip())
    first, second = next(full, None), next(full, None)
    if first is None:
        return
    if second is None or not is_json(first[1]):
        value = parsed(first[1], path, first[0]) if second is None else parsed_whole(path, *first)
        found = rows_in(value, columns)
        for number, row in enumerate(found, 1):
            yield f"{path} line {first[0]}" if len(found) == 1 else f"{path} row {number}", row
        return
    for number, line in chain([first, second], full):
        yield f"{path} line {number}", parsed(line, path, number)


def is_json(text: str) -> bool:
    try:
        DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def parsed(line: str, path: Path, number: int) -> Any:
    """Return the JSON value of a line. Raises ValueError, naming file and line, when it is none."""
    try:
        return DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        plain = ", or name it .txt if it is plain text" if number == 1 and line.lstrip()[0] not in '{["' else ""
        reason = str(error) or "nested too deeply"
        raise ValueError(f"line {number} of {path} is not JSON ({reason}); write one object a line{plain}") from error


def parsed_whole(path: Path, number: int, line: str) -> Any:
    """Return the JSON value of a file whose first line is not one. Raises ValueError when the file is none either."""
    if line.lstrip()[0] in "{[":
        try:
            return DECODER.decode(as_text(path))
        except (json.JSONDecodeError, RecursionError) as error:
            if ending(path) == ".json":
                reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
                raise ValueError(f"{path} is not JSON ({reason}); write a list of objects, or one a line") from error
    return parsed(line, path, number)


def as_text(path: Path) -> str:
    with reading_text(path):
        return whole(path).decode("utf-8")


def rows_in(value: Any, columns: Sequence[str]) -> Sequence[Any]:
    """Return the rows of a file that is one JSON value: a list, or an object that holds the list or the columns."""
    if isinstance(value, list):
        return [value] if are_ids(value) else value
    if isinstance(value, dict) and not set(columns) & set(value):
        lists = [item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], dict)]
        return lists[0] if len(lists) == 1 else [value]
    if isinstance(value, dict) and all(are_rows(value.get(column)) for column in columns):
        return [dict(zip(columns, row, strict=True)) for row in zip(*(value[c] for c in columns), strict=True)]
    return [value]


def are_rows(value: Any) -> bool:
    return isinstance(value, list) and not are_ids(value) and not is_chat(value)


# ---- CSV ---------------------------------------------------------------------------------------------------


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield rows by the names in the first line; the separator is a comma, or one by which `columns` appear there."""
    csv.field_size_limit(sys.maxsize)  # `lines` bounds them
    texts = (text for _, text in decoded(path))
    header = next((text for text in texts if text.strip()), "")
    given = "\t" if ending(path) == ".tsv" else ","
    split = {by: next(csv.reader([header], delimiter=by), []) for by in dict.fromkeys(given + DELIMITERS)}
    by = next((by for by, names in split.items() if set(columns) <= set(names)), given)
    table = csv.reader(texts, delimiter=by, strict=True)
    names = split[by]
    try:
        for row in table:
            where = f"{path} line {table.line_num + 1}"
            if len(row) > len(names):
                raise ValueError(
                    f"{where} has {len(row)} fields and the first line {len(names)}; put text with commas in quotes"
                )
            if row:
                yield where, dict(zip(names, row, strict=False))
    except csv.Error as error:
        raise ValueError(f"{path} line {table.line_num + 1} is not CSV ({error}); quote every text") from error


# ---- Parquet, Arrow and datasets ---------------------------------------------------------------------------


def optional(module: str) -> Any:
    """Return a module that is imported only when it is needed. Raises ValueError when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"reading this text needs {module}; pip install {module.partition('.')[0]}") from error


@contextmanager
def arrow_errors(path: Path) -> Iterator[None]:
    """Turn pyarrow's errors about a damaged file, raised while open, into a ValueError that names the file."""
    try:
        with reading_text(path):
            yield
    except (optional("pyarrow").ArrowException, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"cannot read {path} ({reason}); it may be cut short: get it again") from error


def parquet_batches(path: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Yield the record batches of a Parquet file. Raises ValueError when a row group does not fit in free memory."""
    pyarrow, parquet = optional("pyarrow"), optional("pyarrow.parquet")
    source = in_memory(path) if packing(path) else path
    file = parquet.ParquetFile(source)
    texts = [field.name for field in file.schema_arrow if field.name in columns and pyarrow.types.is_string(field.type)]
    if texts:  # as dictionaries: a text that is stored once and named by a million rows is then held once
        file = parquet.ParquetFile(source, read_dictionary=texts, metadata=file.metadata)
    size, free = largest_group(file.metadata), free_memory()
    if size > GROUP_SHARE * free:
        raise ValueError(
            f"{path} has a row group of {size:,} bytes, unpacked, more than half of the {free:,} bytes of memory that "
            "are free; write it in smaller ones"
        )
    found = [name for name in file.schema_arrow.names if name in columns]
    yield from file.iter_batches(ROWS_AT_ONCE, columns=found if len(found) == len(columns) else None)


def largest_group(metadata: Any) -> int:
    """Return the bytes of the largest row group, unpacked."""
    return max((metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)), default=0)


def arrow_batches(path: Path) -> Iterator[Any]:
    """Yield the record batches of an Arrow file or stream."""
    pyarrow = optional("pyarrow")
    with pyarrow.OSFile(str(path)) if not packing(path) else in_memory(path) as file:
        start = file.read(len(ARROW))
        file.seek(0)
        if start == ARROW:
            read = pyarrow.ipc.open_file(file)
            yield from (read.get_batch(i) for i in range(read.num_record_batches))
        else:
            yield from pyarrow.ipc.open_stream(file)


def in_memory(path: Path) -> Any:
    return optional("pyarrow").BufferReader(whole(path))


def table_rows(batches: Iterable[Any], columns: Sequence[str], path: str) -> Iterator[tuple[str, Any]]:
    """Yield (where, row) of every row of record batches; only `columns` where all of them are there."""
    number = 0
    for batch in batches:
        for at in range(0, batch.num_rows, ROWS_AT_ONCE):
            part = batch.slice(at, ROWS_AT_ONCE)
            names = [name for name in part.schema.names if name in columns]
            part = part.select(names) if len(names) == len(columns) else part
            for row in range(part.num_rows):  # one by one: together they may be many times what is stored
                number += 1
                yield f"{path} row {number}", {name: part[name][row].as_py() for name in part.schema.names}


def saved_rows(folder: Path, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a folder that datasets.save_to_disk wrote."""
    datasets = optional("datasets")
    with arrow_errors(folder):
        loaded = datasets.load_from_disk(str(folder))
        if isinstance(loaded, datasets.DatasetDict):
            raise ValueError(
                f"{folder} holds the splits {sorted(loaded)}; give the folder of one, e.g. {folder / 'train'}"
            )
        batches = (table for table in loaded.with_format("arrow").iter(ROWS_AT_ONCE))
        yield from table_rows(batches, columns, str(folder))


# ---- columns -----------------------------------------------------------------------------------------------


def column_of(found: Iterable[tuple[str, Any]], column: str) -> Iterator[tuple[str, Any]]:
    """Yield (where, value) of one column, None where a row lacks it; rows that are no objects are their own value.

    Raises ValueError, naming the columns that there are, when no row has it.
    """
    first: tuple[str, Mapping[str, Any]] | None = None
    seen = False
    for number, (where, row) in enumerate(found):
        if not isinstance(row, Mapping):
            seen = True
            yield where, row
            continue
        first = first or (where, row)
        seen = seen or column in row
        if not seen and number > PATIENCE:
            break
        yield where, row.get(column)
    if first is not None and not seen:
        raise no_column(column, *first)


def no_column(column: str, where: str, row: Mapping[str, Any]) -> ValueError:
    """Return the error for a column that no row has; it lists the columns that there are, and the likeliest."""
    short = {name: name if len(name) <= LONG_NAME else f"{name[:LONG_NAME]}…" for name in sorted(row)}
    names = list(short.values())
    kinds = ", ".join(f"{short[name]}: {in_words(row[name])}" for name in short)
    likely = short.get(likeliest(row), "")
    hint = f", such as {likely}" if likely else ""
    return ValueError(
        f"{where} has no column {column!r}, only {names} ({kinds}); choose with --source.text-column{hint}"
    )


def likeliest(row: Mapping[str, Any]) -> str:
    """Return the column that most likely holds the documents: a chat, the longest text, token ids."""
    ranks = {"a chat": 2, "text": 1, "token ids": 0}
    ranked = {
        name: (ranks[kind], len(value)) for name, value in row.items() if (kind := in_words(value)) in ranks and value
    }
    return max(ranked, key=lambda name: ranked[name], default="")


def are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) and {"role", "content"} <= set(item) for item in value)
    )


def in_words(value: Any) -> str:
    """Return the kind of a value, as an error names it."""
    if is_chat(value):
        return "a chat"
    if are_ids(value):
        return "token ids"
    words = {
        str: "text",
        bool: "yes or no",
        int: "a whole number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return words.get(type(value), "nothing" if value is None else type(value).__name__)
