"""What is shown on a terminal: names and texts out of files, models and error messages, with nothing a terminal obeys.

An escape sequence in a folder's name could retitle, clear or overwrite what a user reads. So every line that is printed
goes through `clean`: control characters are shown as Python writes them.
"""

import builtins
import sys
import unicodedata
from typing import Any

KEPT = "\n\t"
"""Control characters that do no more than lay text out."""
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control and format characters (direction overrides among them), of lone surrogates, and of
separators that some terminals break lines at."""
JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji are spelt with."""


def clean(text: object, *, kept: str = KEPT) -> str:
    """`text` with control characters shown: \\x1b, \\u202e. `kept`: those that stay."""
    return "".join(shown(c) if is_obeyed(c, kept) else c for c in str(text))


def is_obeyed(character: str, kept: str) -> bool:
    return unicodedata.category(character) in HIDDEN and character not in kept and character not in JOINERS


def shown(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def name(text: object) -> str:
    """A name on one line: a line break in it is shown too."""
    return clean(text, kept="")


def say(*texts: object, file: Any = None, end: str = "\n", flush: bool = False) -> None:
    """`print` of cleaned text, in characters that the stream can write."""
    stream = sys.stdout if file is None else file
    line = clean(" ".join(map(str, texts)))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    builtins.print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, end=end, flush=flush)
