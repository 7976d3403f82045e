"""A folder that appears whole or not at all, and of which nothing is left when its writer is killed.

It is filled beside its place, under a name that says whose it is: .<name>.<host>.<process>.unfinished-<random>. Whoever
next makes a folder there removes those whose process is gone.
"""

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

MARK = "unfinished"
CLOCKS = 5.0
"""Seconds by which the start of a process and the time of a folder may disagree."""


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """The folder to fill; it is at `out` when the block has ended without an error. Raises ValueError when something is
    there already, before or by then."""
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(out.parent)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name[:80]}.{host()}.{os.getpid()}.{MARK}-"))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        refuse_existing(out)
        try:
            os.rename(temporary, out)
        except OSError:
            refuse_existing(out)  # another was quicker
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(out: Path) -> None:
    if os.path.lexists(out):
        raise ValueError(f"{out} exists already and is left as it is; name another folder with --out")


def remove_abandoned(parent: Path) -> None:
    """Remove what killed processes of this machine have left."""
    pattern = re.compile(rf"\..*\.{re.escape(host())}\.(\d+)\.{MARK}-\w+")
    for path in parent.iterdir():
        found = pattern.fullmatch(path.name)
        if found and path.is_dir() and not path.is_symlink() and not at_work(int(found[1]), path):
            shutil.rmtree(path, ignore_errors=True)


def at_work(process: int, folder: Path) -> bool:
    """Whether the process that fills `folder` is there: not ended, and not a later one that got its number."""
    try:
        known = psutil.Process(process)
        return known.status() != psutil.STATUS_ZOMBIE and known.create_time() <= folder.stat().st_mtime + CLOCKS
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
    except psutil.AccessDenied:
        return True


def host() -> str:
    """This machine's name, in letters that a folder's may have."""
    return re.sub(r"[^\w-]", "-", socket.gethostname())[:40] or "host"
