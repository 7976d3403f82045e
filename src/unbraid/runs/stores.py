"""Copies of finished runs in an object store, by fsspec: s3://bucket/runs, gs://…, az://…, sftp://…, file://….

A store has no rename and no lock, so a run is written where it is trained and copied when it is finished. Its
provenance.json goes last: without it a folder in the store is no run, and copying again goes on. What comes from a
store is compared with its seal before it becomes a folder here.
"""

import importlib
import os
import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from unbraid.runs.run_folder import finished, read_facts
from unbraid.runs.select import folders_of
from unbraid.system.files import check_plain, inside, temporary_folder, write_atomically
from unbraid.system.sealing import PROVENANCE, check_sealed, read_signed

NOT_COPIED = ("checkpoints",)
"""Folders of a run that mean nothing elsewhere."""
MOST_FILES = 10_000
"""Files of one run that are fetched."""
REMEDY = "delete the copy, and copy the run again from where it was trained"


def is_url(text: str) -> bool:
    """Return whether a place is one of a store."""
    return "://" in text


def copy_runs(runs: Sequence[str | Path], to: str | Path, *, force: bool = False) -> list[str]:
    """Copy finished runs into a store or out of one; return where each is.

    runs: run folders, patterns or folders of runs; of a store, the URL of a run or of a folder of runs. to: a URL, or
    for runs of a store a folder. A run that is there already keeps its scores; `force` replaces those that differ.

    Raises:
        ValueError: when nothing is there to copy, a run is unfinished or changed since it was sealed, another run has
            its name there, or the store cannot be used.
    """
    places = [str(run) for run in runs]
    if is_url(str(to)):
        if any(map(is_url, places)):
            raise ValueError(
                "one side of a copy is on this machine; copy into a folder first, then into the other store"
            )
        folders = folders_of(places)
        if unfinished := [folder for folder in folders if not finished(folder)]:
            raise ValueError(f"{unfinished[0]} is no finished run; train it to its end with --resume, then copy")
        return [sent(folder, str(to), force=force) for folder in folders]
    if here := [place for place in places if not is_url(place)]:
        raise ValueError(f"{here[0]} and {to} are both on this machine; cp -r copies a run folder")
    return [str(fetched(url, Path(to), force=force)) for place in places for url in runs_at(place)]


def sent(folder: Path, to: str, *, force: bool = False) -> str:
    """Copy one run into the store folder `to`; return its URL."""
    own = sealed(folder)
    url = posixpath.join(to.rstrip("/"), folder.name)
    with store_of(url) as (fs, root):
        there = provenance_at(fs, root)
        if there and there.get("sha256") != own.get("sha256"):
            raise ValueError(f"{url} holds another run of that name; copy into another folder of the store")
        names = sorted(files_in(folder), key=lambda name: name == PROVENANCE)  # last: it marks a whole run
        for name in names:
            at = posixpath.join(root, name)
            if force or not (there and fs.exists(at)):
                fs.makedirs(posixpath.dirname(at), exist_ok=True)
                fs.put_file(str(folder / name), at)
    return url


def fetched(url: str, to: Path, *, force: bool = False) -> Path:
    """Copy one run out of a store into the folder `to`; return its folder."""
    name = PurePosixPath(url.rstrip("/")).name
    home = inside(to, name, f"the run of {url}")
    with store_of(url) as (fs, root):
        names = names_at(fs, root, url)
        if os.path.lexists(home):
            if provenance_at(fs, root).get("sha256") != sealed(home).get("sha256"):
                raise ValueError(f"{home} holds another run of that name; copy into another folder")
            for each in names:
                if each.startswith("results/") and (force or not (home / each).exists()):
                    write_atomically(inside(home, each, "a file of a run"), lambda at, n=each: get(fs, root, n, at))
            return home
        with temporary_folder(to, name) as folder:
            for each in names:
                at = inside(folder / name, each, f"a file of {url}")
                at.parent.mkdir(parents=True, exist_ok=True)
                get(fs, root, each, at)
            sealed(folder / name)
            os.replace(folder / name, home)
    return home


def runs_at(url: str) -> list[str]:
    """Return the URLs of the finished runs at a place: that of a run, or those in a folder of runs."""
    with store_of(url) as (fs, root):
        if provenance_at(fs, root):
            return [url]
        found = sorted(fs.glob(posixpath.join(root, "*", PROVENANCE)))
        if not found:
            raise ValueError(f"{url} holds no finished run (one has a {PROVENANCE}); check the address")
        return [posixpath.join(url.rstrip("/"), PurePosixPath(each).parent.name) for each in found]


@contextmanager
def store_of(url: str) -> Iterator[tuple[Any, str]]:
    """Context manager of the file system behind a URL and the path in it. What it raises becomes a ValueError."""
    fsspec: Any = importlib.import_module("fsspec")
    try:
        yield fsspec.core.url_to_fs(url)
    except ImportError as error:  # says which package speaks to this kind of store
        raise ValueError(f"{url}: {error}") from error
    except ValueError:
        raise
    except Exception as error:  # every store has errors of its own
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"the store at {url} failed ({said}); what was copied whole stays, so run it again") from error


def sealed(folder: Path) -> dict[str, Any]:
    """Read a run's provenance. Raises ValueError for a run of which a file is not as it was sealed."""
    facts = read_facts(folder)
    for name in facts.seals:
        check_sealed(folder, name, facts.seals, remedy=REMEDY)
    return dict(facts.provenance)


def files_in(folder: Path) -> Iterator[str]:
    """The names of the plain files of a run, but those of no use elsewhere."""
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in NOT_COPIED and not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                check_plain(Path(at) / name, "remove it, or put the file itself there", links=False)
                yield (Path(at) / name).relative_to(folder).as_posix()


def names_at(fs: Any, root: str, url: str) -> list[str]:
    """The names of a run's files in a store."""
    found = sorted(posixpath.relpath(each, root) for each in fs.find(root))
    if PROVENANCE not in found:
        raise ValueError(f"{url} is no finished run: it has no {PROVENANCE}; check the address, or copy it again")
    if len(found) > MOST_FILES:
        raise ValueError(f"{url} has {len(found):,} files, and a run at most {MOST_FILES:,}; check the address")
    return found


def provenance_at(fs: Any, root: str) -> dict[str, Any]:
    """The provenance of the run at a place of a store; empty where there is none."""
    if not fs.exists(posixpath.join(root, PROVENANCE)):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        get(fs, root, PROVENANCE, Path(folder) / PROVENANCE)
        return read_signed(Path(folder) / PROVENANCE, remedy=REMEDY)


def get(fs: Any, root: str, name: str, at: Path) -> None:
    fs.get_file(posixpath.join(root, name), str(at))
