"""Texts that the benchmark reads without a hub: plain texts, and texts labelled by two crossed attributes.

A labelled file has a text, a class and an attribute in each row. The two most frequent values of the attribute are
used and the most frequent classes, balanced over both values. A file with classes only (SST-2) serves evals that need
no attribute: its texts are divided in two by a hash. Documents of the synthetic language are labelled by place and
register.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from unbraid.sources.synthetic_language import documents as language
from unbraid.sources.synthetic_language import lexicon
from unbraid.sources.text.corpus import split_of
from unbraid.sources.text.documents import documents, is_language, is_sample, is_stream, without_surrogates
from unbraid.sources.text.rows import rows as rows_of_file
from unbraid.system.files import write_text

DOCUMENTS = 5000
"""Largest number of plain documents handed to the benchmark."""
LANGUAGE_DOCUMENTS = 2000
"""Number of plain documents drawn from the synthetic language."""
CLASSES = 5
"""Number of classes per data set, as in SAEBench."""
ROWS = {"train": 300, "test": 100}
"""Largest number of rows of each class and value, by split."""
FEWEST = {"train": 40, "test": 16}
"""Least number of rows of each class and value, by split; a class with fewer is left out."""
TEST_SHARE = 0.25
UNREAD = 2**20
"""Seed of language documents that only the benchmark reads."""
SUFFIX = "_as_bias_in_bios"
"""End of a data set's name by which SAEBench recognises one with two attributes."""


@dataclass(frozen=True)
class LabelledTexts:
    """Texts labelled by two crossed attributes, the same number for each combination."""

    name: str
    classes: tuple[str, ...]
    values: tuple[str, str]
    rows: Mapping[str, Sequence[tuple[str, int, int]]]
    """Rows of (text, class, value) by split."""

    def request(self) -> dict[str, Any]:
        """The description of this data set in the request to the benchmark."""
        each = {split: len(rows) // (2 * len(self.classes)) for split, rows in self.rows.items()}
        pairs = [list(self.classes[i : i + 2]) for i in range(0, len(self.classes) - 1, 2)]
        return {"name": self.name, "classes": list(self.classes), "values": list(self.values), "pairs": pairs, **each}

    def write(self, folder: Path) -> None:
        """Write the rows of each split below `folder`."""
        for split, rows in self.rows.items():
            write_rows(
                folder / self.name / f"{split}.jsonl", ({"text": t, "class": c, "attribute": a} for t, c, a in rows)
            )


def write_rows(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def plain(text: str, column: str, eval_share: float) -> list[str]:
    """The held-out documents of a run's text, or all where none are held out. Raises ValueError for text elsewhere."""
    if is_language(text):  # a seed that no run reads
        return [language.text(document) for document in language.documents(LANGUAGE_DOCUMENTS, seed=UNREAD)]
    if is_stream(text) or is_sample(text):
        raise ValueError(f"the run's text {text!r} is not a file here; name one to read with --text")
    found = documents(text, column)
    held = [document for document in found if split_of(document, eval_share) == "eval"]
    return (held or found)[:DOCUMENTS]


def entities(folder: str) -> str:
    """The absolute path of the folder of RAVEL's JSON files. Raises ValueError when it holds none."""
    path = Path(folder).absolute()
    if not list(path.glob("ravel_city_*.json")):
        raise ValueError(
            f"--ravel {folder}: no ravel_city_….json there; name the folder that RAVEL's archive unpacks to"
        )
    return str(path)


@lru_cache(maxsize=4)
def labelled(spec: str) -> LabelledTexts:
    """Read labelled texts: FILE:CLASS:ATTRIBUTE, FILE:CLASS, or language://N.

    Raises ValueError when the file has no such columns or too few rows.
    """
    if is_language(spec):
        return balanced("language", list(language_texts()))
    path, class_, attribute = columns_of(spec)
    return balanced(path.name.partition(".")[0], list(read(path, class_, attribute)))


def columns_of(spec: str) -> tuple[Path, str, str]:
    """Split a spec into file, class column and attribute column ("" where only a class is named)."""
    words = spec.rsplit(":", 2)
    if len(words) == 3 and not Path(words[0]).exists() and Path(f"{words[0]}:{words[1]}").exists():
        words = [f"{words[0]}:{words[1]}", words[2]]  # a colon in the file's name
    if len(words) < 2 or not all(words):
        raise ValueError(
            f"--labelled {spec!r}: write FILE:CLASS:ATTRIBUTE, such as reviews.jsonl.xz:category:rating, or FILE:CLASS"
        )
    return Path(words[0]), words[1], words[2] if len(words) == 3 else ""


def crossed(spec: str) -> bool:
    """True if a spec names two columns of labels."""
    return is_language(spec) or bool(columns_of(spec)[2])


def read(path: Path, class_: str, attribute: str) -> Iterator[tuple[str, str, str]]:
    """Yield text, class and attribute of every row with a text; the attribute is `half` where none is named.

    Raises ValueError for what cannot be read.
    """
    columns = [column for column in ("text", class_, attribute) if column]
    try:
        for where, row in rows_of_file(path, columns):
            missing = [key for key in columns if not isinstance(row, Mapping) or key not in row]
            if missing:
                raise ValueError(
                    f"{where}: no {missing[0]!r}; it has {sorted(row) if isinstance(row, Mapping) else row}"
                )
            if row["text"]:
                text = without_surrogates(str(row["text"]))
                yield text, str(row[class_]), str(row[attribute]) if attribute else half(text)
    except (ValueError, OSError) as error:
        raise ValueError(f"cannot read labelled texts from {path}: {error}") from error


def half(text: str) -> str:
    """One of two values that are independent of the text's content."""
    return "ab"[hashlib.sha256(f"half/{text}".encode(errors="surrogatepass")).digest()[0] % 2]


def language_texts(count: int = 5_000, seed: int = UNREAD + 1) -> Iterator[tuple[str, str, str]]:
    """Yield documents of the language with their setting (the class) and their register (the attribute)."""
    registers, places = tuple(lexicon.REGISTERS), tuple(lexicon.PLACES)
    setting = {place: name for name, found in lexicon.SETTINGS.items() for place in found}
    for document in language.documents(count, seed=seed):
        state = next((word.state for word in document if word.state.place >= 0 and word.state.register >= 0), None)
        if state is not None:
            yield language.text(document), setting[places[state.place]], registers[state.register]


def balanced(stem: str, found: Sequence[tuple[str, str, str]]) -> LabelledTexts:
    """Balance the most frequent classes over the two most frequent values of the attribute."""
    values = [value for value, _ in Counter(value for _, _, value in found).most_common(2)]
    cells: dict[tuple[str, str, str], list[str]] = {}
    for text, class_, value in dict.fromkeys(found):
        split = "test" if split_of(text, TEST_SHARE) == "eval" else "train"
        cells.setdefault((split, class_, value), []).append(text)
    count = lambda split, class_: min((len(cells.get((split, class_, value), ())) for value in values), default=0)
    enough = [
        c for c, _ in Counter(c for _, c, _ in found).most_common() if all(count(s, c) >= FEWEST[s] for s in FEWEST)
    ]
    classes = tuple(enough[:CLASSES])
    if len(values) < 2 or len(classes) < 2:
        raise ValueError(
            f"{stem}: {len(classes)} classes have {FEWEST['train']} training and {FEWEST['test']} test texts of each "
            f"of two values of the attribute; two are needed: name other columns, or give more text"
        )
    rows = {
        split: [
            (text, i, j)
            for i, class_ in enumerate(classes)
            for j, value in enumerate(values)
            for text in cells[split, class_, value][: min(ROWS[split], *(count(split, c) for c in classes))]
        ]
        for split in FEWEST
    }
    return LabelledTexts(f"labelled/{stem}{SUFFIX}", classes, (values[0], values[1]), rows)
