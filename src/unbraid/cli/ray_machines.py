"""The machines of a Ray cluster compared with this one, before any work: code, versions, folders and data."""

import hashlib
import importlib
import json
import os
import platform
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbraid.config.version import __version__

if TYPE_CHECKING:  # torch is not for the actors, which import this
    from unbraid.experiment.experiment import Experiment

LOOK = 300.0
"""Seconds for a machine to say what it has: it may have to load a model's configuration."""


def installed() -> dict[str, str]:
    """The versions that must be the same on every machine, as results depend on them."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "unbraid": f"{__version__} ({code()})",
        "torch": metadata.version("torch"),
    }


def code() -> str:
    """The beginning of the SHA-256 of this package's code."""
    root, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return found.hexdigest()[:12]


def check_nodes(ray: Any, nodes: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> None:
    """Raise ValueError, naming them, for machines that lack this code, this working folder or a folder of runs."""
    ours, here = installed(), os.getcwd()
    with tokens(folders) as written:
        faults: list[str] = []
        for host, found in on_each(ray, nodes, look(), here, written):
            theirs = found["installed"]
            differing = [
                f"{name} {theirs.get(name)}, not {own}" for name, own in ours.items() if theirs.get(name) != own
            ]
            if found["missing"]:
                faults.append(f"{host} cannot import unbraid as it is here ({found['missing']}): install it there")
            elif differing:
                faults.append(f"{host} has {', '.join(differing)}: install the same there")
            faults += [
                f"{host} does not see {folder}: run this in a folder, with --out in one, that all machines share"
                for folder in found["unseen"]
            ]
    if faults:
        raise ValueError("; ".join(faults))


def look() -> Callable[..., dict[str, Any]]:
    """A function that says what a machine has. It is sent by value, as the machine may have no such module."""

    def found(working: str, written: dict[str, str]) -> dict[str, Any]:
        from pathlib import Path

        theirs, missing = {}, ""
        try:
            from unbraid.cli.ray_machines import installed

            theirs = installed()
        except Exception as error:  # whatever another version's modules raise
            missing = f"{type(error).__name__}: {error}"
        token = lambda path: Path(path).read_text() if Path(path).is_file() else ""
        unseen = [str(Path(path).parent) for path, content in written.items() if token(path) != content]
        return {
            "installed": theirs,
            "missing": missing,
            "unseen": [*unseen, *([] if Path(working).is_dir() else [working])],
        }

    return found


@contextmanager
def tokens(folders: Sequence[Path]) -> Iterator[dict[str, str]]:
    """Context manager of files, by path, with a content that no other folder of the same name has."""
    with ExitStack() as removed:
        written: dict[str, str] = {}
        for folder in map(Path.absolute, folders):
            if not folder.exists():
                folder.mkdir(parents=True)
                removed.callback(remove_empty, folder)
            path, content = folder / f".shared-{uuid.uuid4().hex}", uuid.uuid4().hex
            path.write_text(content)
            removed.callback(path.unlink, missing_ok=True)
            written[str(path)] = content
        yield written


def remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def check_data(
    ray: Any,
    nodes: Sequence[Mapping[str, Any]],
    experiments: Sequence["Experiment"],
    packages: tuple[str, ...],
    permissions: tuple[str, ...],
) -> None:
    """Raise ValueError for machines that cannot read a source."""
    from unbraid.config.serialise import to_json

    sources = {json.dumps(source): source for source in (to_json(experiment.source) for experiment in experiments)}
    if not sources:
        return
    arguments = os.getcwd(), own_paths(), list(sources.values()), packages, permissions
    faults = [f"{host}: {fault}" for host, found in on_each(ray, nodes, unreadable, *arguments) for fault in found]
    if faults:
        raise ValueError("; ".join(faults))


def unreadable(
    folder: str, paths: Sequence[str], sources: Sequence[Any], packages: tuple[str, ...], permissions: tuple[str, ...]
) -> list[str]:
    """Why sources cannot be read on this machine, each reason once."""
    from unbraid.config.serialise import from_json

    settle_in(folder, paths)
    faults = []
    for stored in sources:
        try:
            source = from_json(stored, packages=packages, permissions=permissions)
            source.metadata()
            source.check()
            source.available("train")
        except (ValueError, OSError) as error:
            faults.append(first_line(error))
    return list(dict.fromkeys(faults))


def on_each(ray: Any, nodes: Sequence[Mapping[str, Any]], function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """The name of each machine, and what a function returns there. Raises ValueError for one that does not answer."""
    affinity = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    remote, found = ray.remote(num_cpus=0, max_retries=0)(function), []
    at = lambda node: affinity(node["NodeID"], soft=False)
    answers = [remote.options(scheduling_strategy=at(node)).remote(*arguments) for node in nodes]
    for node, answer in zip(nodes, answers, strict=True):
        host = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        try:
            found.append((host, ray.get(answer, timeout=LOOK)))
        except ray.exceptions.RayError as error:
            raise ValueError(f"{host} of the cluster does not answer: {first_line(error)}") from error
    return found


def own_paths() -> list[str]:
    """The working folder where a package of the user's may be imported from it."""
    return [path for path in sys.path if path == os.getcwd()]


def settle_in(folder: str, paths: Sequence[str]) -> None:
    """Work in a folder, as the process does that gives the tasks."""
    os.chdir(folder)
    sys.path.extend(path for path in paths if path not in sys.path)


def first_line(error: BaseException) -> str:
    """The beginning of an exception's message, on one line."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
