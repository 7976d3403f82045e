"""Help texts of the package's own experiments, kept between calls: making one imports torch, which takes seconds.

A text is kept with a key made of what it depends on, the package's source files by size and time of change, and used
as long as the key is the same. Where the folder cannot be read or written, the text is made each time.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from unbraid.system.user_cache import cache_folder

PACKAGE = Path(__file__).parents[1]


def key() -> str:
    """The digest of all that a help text depends on: the package's files, Python, and torch's version."""
    files = sorted(PACKAGE.rglob("*.py"))
    states = [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in ((path, path.stat()) for path in files)]
    versions = [sys.version, metadata.version("torch"), os.cpu_count()]
    return hashlib.sha256(json.dumps([states, versions]).encode(errors="surrogatepass")).hexdigest()


def kept(name: str, make: Callable[[], str]) -> str:
    """The text called `name`, made now unless one with today's key is kept."""
    path, now = cache_folder() / "help" / f"{name}.json", key()
    with suppress(OSError, ValueError, TypeError, KeyError):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] == now and isinstance(stored["text"], str):
            return stored["text"]
    text = make()
    with suppress(OSError):
        write(path, json.dumps({"key": now, "text": text}))
    return text


def write(path: Path, content: str) -> None:
    """Put a whole file in place: who reads meanwhile sees the old one or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
