"""Documents named by one string: a file, a folder, a data set of the hub, or the synthetic language."""

import importlib
import json
import lzma
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unbraid.language import documents as language
from unbraid.text_cutting import merge_paragraphs

Document = str | list[int]
"""Text, or token ids."""
FORMS = (
    "a .txt, .jsonl, .jsonl.xz or .parquet file, a datasets folder, hf://owner/name, sample://1000, or language://1000"
)


def is_stream(text: str) -> bool:
    """Whether documents arrive over the network, in an order and a number we do not choose."""
    return text.startswith("hf://")


def is_sample(text: str) -> bool:
    return text.startswith("sample://")


def is_language(text: str) -> bool:
    """Whether documents are those of the synthetic language, whose factors are known."""
    return text.startswith("language://")


def documents(text: str, column: str) -> list[str]:
    """All documents of a local corpus, in file order. Raises ValueError, with the remedy, for what cannot be read."""
    if is_language(text):
        return from_language(text)
    path = Path(text)
    if not path.exists():
        raise ValueError(f"there is no text at {text!r}; give {FORMS}")
    if path.is_dir():
        found = _from_folder(path, column)
    elif path.name.endswith((".jsonl", ".jsonl.xz")):
        found = _from_json_lines(path, column)
    elif path.suffix == ".parquet":
        found = _from_parquet(path, column)
    elif path.suffix == ".txt":
        found = merge_paragraphs(path.read_text(encoding="utf-8"))
    else:
        raise ValueError(f"cannot read {text!r}: its suffix is none of .txt .jsonl .jsonl.xz .parquet; convert it")
    if not any(document.strip() for document in found):
        raise ValueError(f"{text!r} holds no text; give {FORMS}")
    return found


def from_language(text: str) -> list[str]:
    """`language://count[?seed=n]`: documents of the synthetic language."""
    count, seed = count_and_seed(text, "language")
    return [language.text(told) for told in language.documents(count, seed=seed)]


def count_and_seed(text: str, scheme: str) -> tuple[int, int]:
    match = re.fullmatch(rf"{scheme}://(\d+)(?:\?seed=(\d+))?", text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} does not say how many documents; write {scheme}://1000 or {scheme}://1000?seed=1")
    return int(match[1]), int(match[2] or 0)


def stream(text: str, column: str) -> Iterator[str]:
    """Documents of a hub data set, `hf://owner/name[/config][:split]`, as they arrive."""
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:/([\w.-]+))?(?::([\w.-]+))?", text)
    if match is None:
        raise ValueError(f"{text!r} does not name a hub data set; write hf://owner/name[/config][:split]")
    load_dataset = _optional("datasets").load_dataset
    name, config, split = match.groups()
    try:
        rows = load_dataset(name, config, split=split or "train", streaming=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot stream {text!r} ({error}); check its name and the network, or give a file") from error
    for row in rows:
        yield _field(row, column, text)


def _from_folder(path: Path, column: str) -> list[str]:
    datasets = _optional("datasets")
    try:
        loaded = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is a folder, but not one saved by datasets.save_to_disk; give {FORMS}") from error
    if isinstance(loaded, datasets.DatasetDict):
        raise ValueError(f"{path} holds the splits {sorted(loaded)}; give the folder of one, e.g. {path / 'train'}")
    _check_column(column, loaded.column_names, str(path))
    return [_text(value, column, str(path)) for value in loaded[column]]


def _from_parquet(path: Path, column: str) -> list[str]:
    parquet = _optional("pyarrow.parquet")
    _check_column(column, parquet.read_schema(path).names, str(path))
    values = parquet.read_table(path, columns=[column]).column(column).to_pylist()
    return [_text(value, column, str(path)) for value in values]


def _from_json_lines(path: Path, column: str) -> list[str]:
    open_ = lzma.open if path.suffix == ".xz" else open
    found = []
    with open_(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} of {path} is not JSON ({error}); write one object a line") from error
            if not isinstance(record, dict):
                raise ValueError(f"line {number} of {path} is not a JSON object; write one object a line")
            found.append(_field(record, column, f"{path} line {number}"))
    return found


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"reading this text needs {module}; pip install 'unbraid[data]'") from error


def _field(record: Mapping[str, Any], column: str, where: str) -> str:
    _check_column(column, record, where)
    return _text(record[column], column, where)


def _check_column(column: str, names: Iterable[str], where: str) -> None:
    if column not in names:
        raise ValueError(f"{where} has no column {column!r}, only {sorted(names)}; choose with --source.text-column")


def _text(value: object, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"column {column!r} of {where} holds {type(value).__name__}, not text; choose another column")
    return value
