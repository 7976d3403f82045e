"""Documents named by one string: a file, a folder, a data set of the hub, or the synthetic language."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from unbraid.config.settings import shown
from unbraid.sources.synthetic_language import documents as language
from unbraid.sources.text.bytes import reading_text
from unbraid.sources.text.cutting import cut, joined
from unbraid.sources.text.rows import (
    ENDINGS,
    are_ids,
    column_of,
    decoded,
    ending,
    is_chat,
    kind_of,
    optional,
    rows,
    saved_rows,
)
from unbraid.system.memory import free_memory
from unbraid.system.notices import log

Document = str | list[int]
"""Text, or token ids."""
Render = Callable[[list[dict[str, Any]]], str]
"""Writes a chat out as text."""
FORMS = (
    "a .txt, .jsonl, .json, .csv, .tsv or .parquet file, also with .gz, .bz2, .xz or .zst, a folder of such files, a "
    "datasets folder, hf://owner/name, sample://1000, or language://1000"
)
BLANK = r"\n\s*\n"
"""The separator of paragraphs in plain text."""
ENDLESS = 2**22
"""Characters without a blank line after which plain text is cut, so that no more of it is held."""
NOT_DATA = {"dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json", "README.md"}
"""Files that describe the data files of a folder."""
SPLITS = r"(?:^|[^a-z])(train|test|validation|valid|dev|eval)(?:[^a-z]|$)"
HELD_SHARE = 0.5
"""The share of free memory that documents held as a list may take."""
PYTHON_TEXT = 4
"""Bytes that a character may take in memory."""


def is_stream(text: str) -> bool:
    """Return whether documents arrive over the network, in an order and a number not known beforehand."""
    return text.startswith("hf://")


def is_sample(text: str) -> bool:
    return text.startswith("sample://")


def is_language(text: str) -> bool:
    """Return whether documents are those of the synthetic language, whose factors are known."""
    return text.startswith("language://")


def documents(text: str, column: str) -> list[str]:
    """Return all texts of a local corpus, in file order.

    Raises ValueError, with the remedy, for what cannot be read.
    """
    found: list[str] = []
    held, most = 0, HELD_SHARE * free_memory()
    for document in read(text, column):
        if not isinstance(document, str):
            raise ValueError(f"column {column!r} of {text} holds token ids, not text; choose another column")
        found.append(document)
        held += PYTHON_TEXT * len(document)
        if held > most:
            raise ValueError(f"{text} holds more text than half of the memory that is free; give a part of it")
    return found


def read(text: str, column: str, render: Render | None = None) -> Iterator[Document]:
    """Yield the documents of a local corpus one by one, in file order; chats are written out by `render`.

    Raises ValueError, with the remedy, for what cannot be read.
    """
    if is_language(text):
        return iter(from_language(text))
    path = Path(text).expanduser()
    if not path.exists():
        prose = re.search(r"\s", text) is not None
        spoken = "; for texts themselves give a list: text=['…', '…']" if prose else ""
        raise ValueError(f"there is no text at {shown(text) if prose else repr(text)}; give {FORMS}{spoken}")
    if not (path.is_file() or path.is_dir()):
        raise ValueError(f"{text} is neither a file nor a folder; give {FORMS}")
    return filled(from_folder(path, column, render) if path.is_dir() else from_file(path, column, render), text)


def filled(found: Iterable[Document | None], text: str) -> Iterator[Document]:
    """Yield documents that are not empty; the others are counted. Raises ValueError when none does."""
    count: Counter[str] = Counter()
    written = False
    for document in found:
        count["all"] += 1
        if not document:
            count["empty"] += 1
            continue
        if isinstance(document, str):
            mended = without_surrogates(document)
            count["mended"] += mended is not document
            document = mended
        written = written or not isinstance(document, str) or bool(document.strip())
        yield document
    if not written:
        raise ValueError(f"{text!r} holds no text; give {FORMS}")
    if count["empty"]:
        log.warning(
            "%s: %s of %s documents are empty and were left out", text, f"{count['empty']:,}", f"{count['all']:,}"
        )
    if count["mended"]:
        log.warning("%s: half characters (lone surrogates) in %d documents were replaced", text, count["mended"])


def without_surrogates(text: str) -> str:
    """Return the text with surrogates joined to characters where both halves are there, and replaced where not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def document_of(where: str, value: Any, column: str, render: Render | None) -> Document | None:
    """Return a value as a document; None when it is empty. Raises ValueError when it is none."""
    if value is None or isinstance(value, str) or are_ids(value):
        return value
    if is_chat(value):
        if render is None:
            raise ValueError(
                f"column {column!r} of {where} holds chats, and no tokenizer is at hand to write them out; choose a "
                "column of text"
            )
        try:
            return render(value)
        except Exception as error:  # templates are programs of the model's authors
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"the chat at {where} cannot be written out: {reason}") from error
    if value == []:
        return None
    raise ValueError(
        f"column {column!r} of {where} holds {type(value).__name__}, not text (nor token ids, nor a chat); choose "
        "another column"
    )


# ---- files and folders -------------------------------------------------------------------------------------


def from_file(path: Path, column: str, render: Render | None) -> Iterator[Document | None]:
    if kind_of(path) == "text":
        yield from joined(paragraphs(path))
        return
    for where, value in column_of(rows(path, [column]), column):
        yield document_of(where, value, column, render)


def paragraphs(path: Path) -> Iterator[str]:
    """Yield the text between blank lines, read a megabyte at a time."""
    pending = ""
    for part in texts(path):
        pending += part
        body = pending.rstrip()  # a blank line may go on in the next part
        *found, last = re.split(BLANK, body)
        yield from found
        pending = last + pending[len(body) :]
        if len(pending) > ENDLESS:
            *found, pending = cut(pending)
            yield from found
    yield from re.split(BLANK, pending)


def texts(path: Path, least: int = 2**20) -> Iterator[str]:
    """Yield plain text in parts of whole lines, each ended by \\n."""
    part: list[str] = []
    size = 0
    for _, line in decoded(path):
        bare = line.rstrip("\r\n")
        part.append(bare + "\n" if len(bare) < len(line) else bare)
        size += len(line)
        if size >= least:
            yield "".join(part)
            part, size = [], 0
    yield "".join(part)


def from_folder(folder: Path, column: str, render: Render | None) -> Iterator[Document | None]:
    """Yield the documents of a folder: one that datasets.save_to_disk wrote, or one of data files."""
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        for where, value in column_of(saved_rows(folder, [column]), column):
            yield document_of(where, value, column, render)
        return
    for path in files_in(folder):
        yield from from_file(path, column, render)


def files_in(folder: Path) -> Sequence[Path]:
    """Return the data files of a folder, by name.

    Raises ValueError when there are none, or they are of several kinds or several splits.
    """
    with reading_text(folder):
        found = [
            path
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in NOT_DATA and ending(path) in ENDINGS and not hidden(path, folder)
        ]
    if not found:
        raise ValueError(f"{folder} is a folder, but not one saved by datasets.save_to_disk, nor of text; give {FORMS}")
    kinds = Counter(ENDINGS[ending(path)] for path in found)
    if len(kinds) > 1:
        counted = ", ".join(f"{number} of {kind}" for kind, number in sorted(kinds.items()))
        raise ValueError(f"{folder} mixes files of several kinds ({counted}); put those of one into a folder")
    splits = {match[1] for path in found if (match := re.search(SPLITS, str(path.relative_to(folder)).lower()))}
    if len(splits) > 1:
        raise ValueError(f"{folder} holds files of the splits {sorted(splits)}; put those of one into a folder")
    return found


def hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)


# ---- the language and the hub ------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def from_language(text: str) -> Sequence[str]:
    """Return the documents of the synthetic language that `language://count[?seed=n]` names."""
    count, seed = count_and_seed(text, "language")
    return tuple(language.text(document) for document in language.documents(count, seed=seed))


def count_and_seed(text: str, scheme: str) -> tuple[int, int]:
    match = re.fullmatch(rf"{scheme}://(\d+)(?:\?seed=(\d+))?", text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} does not say how many documents; write {scheme}://1000 or {scheme}://1000?seed=1")
    return int(match[1]), int(match[2] or 0)


def stream(text: str, column: str, render: Render | None = None) -> Iterator[Document]:
    """Yield the documents of a hub data set, `hf://owner/name[/config][:split]`, as they arrive."""
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:/([\w.-]+))?(?::([\w.-]+))?", text)
    if match is None:
        raise ValueError(f"{text!r} does not name a hub data set; write hf://owner/name[/config][:split]")
    load_dataset = optional("datasets").load_dataset
    name, config, split = match.groups()
    numbered = arriving(lambda: load_dataset(name, config, split=split or "train", streaming=True), text)
    found = (document_of(where, value, column, render) for where, value in column_of(numbered, column))
    yield from filled(found, text)


def arriving(load: Callable[[], Iterable[Any]], text: str) -> Iterator[tuple[str, Any]]:
    """Yield rows and their numbers. Raises ValueError when they do not arrive."""
    try:
        for number, row in enumerate(load(), 1):
            yield f"{text} row {number}", row
    except Exception as error:  # of half a dozen libraries: of the network, of formats, of the hub
        raise ValueError(f"cannot stream {text!r} ({error}); check its name and the network, or give a file") from error
