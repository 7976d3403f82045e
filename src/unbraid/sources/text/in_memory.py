"""Documents given as an object: a list or another iterable of texts, or a `datasets.Dataset`.

They are read as rows of a file are. The source stores their number and the SHA-256 of their content.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unbraid.config.settings import shown
from unbraid.sources.in_process import Reference, Registry
from unbraid.sources.text.documents import Document, Render, document_of, filled
from unbraid.sources.text.rows import ROWS_AT_ONCE, are_ids, is_chat, no_column
from unbraid.system.notices import Pace

EXPECTED = "a path or name, a datasets.Dataset, or a list of strings"


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts that were given in this process, to be read any number of times."""

    rows: Any
    """A `datasets.Dataset`, or an iterable that can be read again."""


TEXTS: Registry[Texts] = Registry(kept=4)


def add_texts(data: Any, column: str) -> tuple[str, Texts]:
    """Register texts, and return the reference to store and what the source holds. Reads all of them once.

    Raises ValueError for what holds no text, or cannot be read twice.
    """
    check_kind(data)
    found = Texts(data)
    content = Content()
    for _, value in values(found, column):
        content.add(value)
    if not content.some:
        raise ValueError(f"the texts given ({shown(data)}) hold no text; give one string or more that is not empty")
    facts = {"documents": str(content.count)} | ({"column": column} if is_dataset(data) else {})
    reference = Reference(type(data).__name__, facts, content.sha256)
    TEXTS.add(content.sha256, found)
    return str(reference), found


def read_given(text: str, column: str, render: Render | None = None) -> Iterator[Document]:
    """Yield the documents of texts that were given, in their order.

    Raises ValueError when this process does not have them, or they have changed since.
    """
    reference = Reference.parse(text)
    found = TEXTS.find(reference.sha256)
    if found is None:
        raise ValueError(
            f"this source reads texts that were given to another process: {reference.in_words}; give the same ones "
            "again: unbraid.LanguageModel(text=texts, …)"
        )
    return filled(as_documents(found, reference, column, render), "the texts given")


def as_documents(found: Texts, reference: Reference, column: str, render: Render | None) -> Iterator[Document | None]:
    """Yield each value as a document, and compare the SHA-256 of all with that of the texts given."""
    content = Content()
    for where, value in values(found, column):
        content.add(value)
        yield document_of(where, value, column, render)
    if content.sha256 != reference.sha256:
        raise ValueError(
            f"the texts given are not what they were when the source was made ({reference.in_words}), or are read from "
            f"another column ({column}); make the source again: unbraid.LanguageModel(text=texts, …)"
        )


class Content:
    """The SHA-256 of values in order, their number, and whether any is not blank."""

    def __init__(self) -> None:
        self.count, self.some = 0, False
        self._state = hashlib.sha256()
        self._pace = Pace("reading the texts given")

    def add(self, value: Any) -> None:
        """Add the next value: a text, or token ids or a chat as JSON."""
        text = isinstance(value, str)
        data = value.encode("utf-8", "surrogatepass") if text else json.dumps(value, sort_keys=True).encode()
        self._state.update(f"{'text' if text else 'json'} {len(data)}\n".encode())
        self._state.update(data)
        self.count += 1
        self.some = self.some or bool(value.strip() if text else value)
        self._pace.at(self.count, f"{self.count:,} documents")

    @property
    def sha256(self) -> str:
        return self._state.hexdigest()


def values(found: Texts, column: str) -> Iterator[tuple[str, Any]]:
    """Yield (where, value) of every document.

    Raises ValueError for a value that is none, or a Dataset without `column`.
    """
    if is_dataset(found.rows):
        yield from dataset_values(found.rows, column)
        return
    for number, item in enumerate(found.rows, 1):
        where = f"text {number} of those given"
        value = item.get(column) if isinstance(item, Mapping) else item
        if isinstance(item, Mapping) and column not in item:
            raise no_column(column, where, item)
        if not (isinstance(value, str) or are_ids(value) or is_chat(value)):
            raise ValueError(
                f"{where} is {shown(value)} ({type(value).__name__}); expected strings, as in text=['one', 'two'], "
                "or lists of token ids, or chats"
            )
        yield where, value


def dataset_values(data: Any, column: str) -> Iterator[tuple[str, Any]]:
    """Yield (where, value) of every row of a `datasets.Dataset`.

    A transform of the user's is applied; a format for tensors is not.
    """
    if column not in data.column_names:
        raise no_column(column, "the Dataset given", data[0] if len(data) else dict.fromkeys(data.column_names))
    plain = data if data.format["type"] == "custom" else data.with_format(None).select_columns([column])
    number = 0
    for batch in plain.iter(ROWS_AT_ONCE):
        for value in batch[column]:
            number += 1
            yield f"row {number} of the Dataset given", value


def is_dataset(data: Any) -> bool:
    return is_of_datasets(data, "Dataset")


def is_of_datasets(data: Any, name: str) -> bool:
    """Return whether `data` is of a class of `datasets`, which is not imported for it: who has such an object did."""
    module = sys.modules.get("datasets")
    return module is not None and isinstance(data, getattr(module, name))


def check_kind(data: Any) -> None:
    """Raise ValueError, with the remedy, for what holds no documents or can be read only once."""
    if is_of_datasets(data, "DatasetDict"):
        raise ValueError(
            f"text holds the splits {sorted(data)}; give one of them, as in text=data[{sorted(data)[0]!r}]"
        )
    if is_of_datasets(data, "IterableDataset") or is_of_datasets(data, "IterableDatasetDict"):
        raise ValueError(
            "text is a stream of datasets, whose content is known only at its end; give its name, which is streamed: "
            "text='hf://owner/name', or a part of it as a list: text=list(data.take(10_000))"
        )
    if is_dataset(data):
        return
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        raise ValueError(f"text is a table with the columns {list(data.columns)}; give one of them: text=table['…']")
    if isinstance(data, bytes | bytearray | Mapping) or not isinstance(data, Iterable):
        raise ValueError(f"text is a {type(data).__name__} ({shown(data)}); expected {EXPECTED}")
    if iter(data) is data:
        raise ValueError(
            f"text is a {type(data).__name__}, which can be read only once, and text is read several times; give a "
            "list: text=list(texts)"
        )
