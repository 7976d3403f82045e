"""Safe output on a terminal: text from files, models and error messages is shown without control sequences.

An escape sequence in a folder's name could retitle, clear or overwrite what a user reads. So every line that is printed
goes through `clean`: control characters are shown as Python writes them.
"""

import builtins
import sys
import unicodedata
from typing import Any

KEPT = "\n\t"
"""Control characters that only lay text out."""
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control and format characters (direction overrides among them), of lone surrogates, and of
separators that some terminals break lines at."""
JOINERS = "\u200c\u200d"
"""Format characters that are part of the spelling of some scripts and emoji."""


def clean(text: object, *, kept: str = KEPT) -> str:
    """Return `text` with control characters written out, as \\x1b and \\u202e. `kept`: those that stay."""
    return "".join(shown(c) if is_obeyed(c, kept) else c for c in str(text))


def is_obeyed(character: str, kept: str) -> bool:
    """True for a character that a terminal would act on."""
    return unicodedata.category(character) in HIDDEN and character not in kept and character not in JOINERS


def shown(character: str) -> str:
    """Return a character's escape sequence, as Python writes it."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def name(text: object) -> str:
    """Return a name on one line, with line breaks written out too."""
    return clean(text, kept="")


def say(*texts: object, file: Any = None, end: str = "\n", flush: bool = False) -> None:
    """Print cleaned text, in characters that the stream can write."""
    stream = sys.stdout if file is None else file
    line = clean(" ".join(map(str, texts)))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    builtins.print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream, end=end, flush=flush)
