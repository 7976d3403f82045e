"""Long text as documents: paragraphs are joined, and text without paragraphs is cut, best at the end of a line."""

import re
from collections.abc import Iterable, Iterator

PARAGRAPHS = 2000
"""Characters a document cut from a .txt file holds at least."""
IDS = 500
"""Token ids that a document cut from longer ones holds at least."""
ENDS = (r"\n", r"[.!?…。！？][\"'”’)\]]*\s|[。！？]", r"\s")
"""Where text may be cut, best first: after a line, after a sentence, after a word."""


def joined(paragraphs: Iterable[str], least: int = PARAGRAPHS) -> Iterator[str]:
    """Yield documents of whole paragraphs, of `least` characters or more but for the last. Blank ones are left out."""
    pending: list[str] = []
    size = 0
    for paragraph in paragraphs:
        if paragraph.strip():
            pending.append(paragraph.strip("\n"))
            size += len(pending[-1])
        if size >= least:
            yield "\n\n".join(pending)
            pending, size = [], 0
    if pending:
        yield "\n\n".join(pending)


def cut(text: str, least: int = PARAGRAPHS) -> Iterator[str]:
    """Yield pieces that make up the text, each of `least` to twice `least` characters; the last may be shorter."""
    start = 0
    while len(text) - start >= 2 * least:
        window = text[start + least - 1 : start + 2 * least - 1]
        found = next((match for end in ENDS if (match := re.search(end, window))), None)
        end = start + least - 1 + (found.end() if found else 1)
        yield text[start:end]
        start = end
    yield text[start:]


def shorter(documents: Iterable[str | list[int]]) -> Iterator[str | list[int]]:
    """Cut documents, texts or token ids, into documents of a few thousand characters."""
    for document in documents:
        if isinstance(document, str):
            yield from cut(document)
        else:
            yield from (document[at : at + IDS] for at in range(0, len(document), IDS))
