"""The package's public classes by name, found by reading its source, without importing.

A configuration file names a class by its name alone, `"type": "L1"`, wherever in the package it is defined. So names of
configuration classes, the subclasses of `Settings`, must not repeat; other classes may share one.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

PACKAGE = __name__.partition(".")[0]
ROOT = "Settings"
"""The class that every configuration class derives from."""
CLASS = re.compile(r"^class ([A-Za-z]\w*)(?:\(([^)]*)\))?:", re.MULTILINE)
"""A class at the top level of a file, and its bases."""


@cache
def defined() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """All public top-level classes: the names of their bases by module, by class name."""
    home = Path(__file__).parents[1]
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for path in sorted(home.rglob("*.py")):
        parts = [part for part in path.relative_to(home).with_suffix("").parts if part != "__init__"]
        module = ".".join([PACKAGE, *parts])
        for name, bases in CLASS.findall(path.read_text(encoding="utf-8")):
            found.setdefault(name, {})[module] = tuple(re.findall(r"(\w+)\s*(?:,|$|\[)", bases))
    return found


@cache
def public() -> Mapping[str, str]:
    """The module of every configuration class, by name. Raises ValueError when two share a name."""
    known = {ROOT}
    while more := {
        name
        for name, modules in defined().items()
        if name not in known and any(known & set(bases) for bases in modules.values())
    }:
        known |= more
    found: dict[str, str] = {}
    for name in sorted(known - {ROOT}):
        homes = [module for module, bases in defined()[name].items() if known & set(bases)]
        if len(homes) > 1:
            raise ValueError(f"{' and '.join(homes)} both define {name}: rename one, as files name it without module")
        found[name] = homes[0]
    return found


def find(name: str) -> str:
    """The module that defines a public class. Raises ValueError when there is none of this name, or several that are
    no configuration."""
    homes = [public()[name]] if name in public() else list(defined().get(name, ()))
    if len(homes) != 1:
        said = f"is defined in {' and '.join(homes)}" if homes else f"is no class of {PACKAGE}"
        raise ValueError(f"{name} {said}; name one of its public classes")
    return homes[0]


def classes(package: str, apart: tuple[str, ...] = ()) -> Mapping[str, str]:
    """Return the configuration classes of a package by name, each with its module; those in the packages `apart` in it
    are left out."""
    hidden = tuple(f"{package}.{inner}." for inner in apart)
    return {
        name: module
        for name, module in public().items()
        if module.startswith(f"{package}.") and not module.startswith(hidden)
    }


def attributes(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package that gives its configuration classes by name, importing the file
    of one when it is first used: a new file needs no line anywhere."""

    def get(name: str) -> Any:
        if name.startswith("_") or name not in classes(package):
            raise AttributeError(f"module {package!r} has no attribute {name!r}; dir({package}) lists what it has")
        return getattr(import_module(classes(package)[name]), name)

    return get, lambda: sorted(classes(package))
