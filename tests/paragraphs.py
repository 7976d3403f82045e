"""The documents of a whole text, as the reader that goes line by line must give them."""

import re

from unbraid.sources.text.cutting import PARAGRAPHS, joined


def merge_paragraphs(text: str, least: int = PARAGRAPHS) -> list[str]:
    """Return paragraphs joined until each document holds `least` characters; the last may hold fewer.

    Paragraphs are separated by blank lines.
    """
    return list(joined(re.split(r"\n\s*\n", text), least))
