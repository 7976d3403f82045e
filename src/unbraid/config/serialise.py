"""Conversion of frozen dataclasses to JSON and back, and their fingerprint.

Every dataclass is written with its class: one of this package by its name alone, `"type": "L1"`, which `names` finds
wherever it is defined; one of another package as `"package.module:Class"`, one of a script or notebook as
`"__main__:Class"`. Only the packages the caller names are ever imported, and nothing but dataclasses is ever built.
What an earlier version wrote is upgraded first (`old_names`).

A `permission` is no configuration: it is never written and never read, so a field that is one changes no fingerprint.
Users give it for each run, and no file can.
"""

import dataclasses
import hashlib
import importlib
import json
import math
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from unbraid.config import names
from unbraid.config.old_names import upgraded

MAIN = "__main__"
OWN_PACKAGES = (names.PACKAGE,)
PERMISSION = "permission"
ADDED = "added"


def permission() -> Any:
    """The default (False) of a field by which a user allows something, and which is no part of the experiment."""
    return dataclasses.field(default=False, compare=False, metadata={PERMISSION: True})


def added(default: Any) -> Any:
    """Return the default of a field that came after files had been written. It is stored only where it has another
    value, so that what those files describe keeps its fingerprint."""
    return dataclasses.field(default=default, metadata={ADDED: True})


def to_json(value: Any) -> Any:
    """Return `value` as plain JSON data.

    Raises TypeError for anything that is not configuration, and ValueError for a class that could not be found again,
    such as one defined inside a function.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        fields = {field.name: to_json(getattr(value, field.name)) for field in stored_fields(value)}
        return {"type": type_name(cls), **fields}
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{wrong[0]!r} is the name of {value[wrong[0]]!r}, but is no text: JSON names all by text")
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} is not configuration: use dataclasses, mappings, tuples, numbers and text")


def stored_fields(value: Any) -> Iterator[dataclasses.Field[Any]]:
    """The fields of a dataclass that are written."""
    for field in dataclasses.fields(value):
        unset = ADDED in field.metadata and getattr(value, field.name) == field.default
        if PERMISSION not in field.metadata and not unset:
            yield field


def type_name(cls: type) -> str:
    """Return the name of a class in files: L1, package.module:Class or __main__:Class.

    Raises ValueError for a class that is not at the top level of its module, as it could not be found again.
    """
    if not cls.__qualname__.isidentifier():
        raise ValueError(
            f"the class {cls.__qualname__} is defined inside a function or class, so a file that names it cannot be "
            "read again: define it at the top level of a module, script or notebook"
        )
    if names.public().get(cls.__name__) == cls.__module__:
        return cls.__name__
    return f"{cls.__module__}:{cls.__name__}"


def check_stored(value: Any, what: str) -> None:
    """Raise ValueError, with `what` as its description, unless `value` is the same after writing to JSON and reading.

    Called before any work whose result could then not be opened.
    """
    try:
        written = to_json(value)
        read = from_json(json.loads(json.dumps(written)), packages=packages_of(written))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} cannot be stored: {error}") from error
    if read != value and to_json(read) != written:
        raise ValueError(
            f"{what} is not the same once stored and read again: keep every setting in a field of its dataclass, and "
            "let the class change none when it is made"
        )


def packages_of(data: Any) -> tuple[str, ...]:
    """Return the packages, other than this one, of the classes that JSON names."""
    nodes = list(data.values()) if isinstance(data, dict) else data if isinstance(data, list) else []
    own = data.get("type") if isinstance(data, dict) else None
    found = {own.partition(":")[0].partition(".")[0]} if isinstance(own, str) and ":" in own else set[str]()
    return tuple(sorted(found.union(*map(packages_of, nodes))))


def from_json(data: Any, *, packages: tuple[str, ...] = OWN_PACKAGES, permissions: tuple[str, ...] = ()) -> Any:
    """Invert `to_json`, also for data of earlier versions, with `permissions` given.

    Raises ValueError for data that `to_json` does not write: a class outside `packages`, unknown or missing fields, a
    permission in the data, values that a class refuses.
    """
    return built(upgraded(data), packages, permissions)


def built(data: Any, packages: tuple[str, ...], permissions: tuple[str, ...]) -> Any:
    """Build the object that JSON of the current version describes."""
    if isinstance(data, list):
        return tuple(built(item, packages, permissions) for item in data)
    if not isinstance(data, dict):
        return data
    inner = {k: built(v, packages, permissions) for k, v in data.items() if k != "type"}
    if "type" not in data:
        return inner
    cls = resolve(data["type"], packages=packages)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    allowed = {n for n, f in fields.items() if PERMISSION in f.metadata}
    if taken := sorted(allowed & set(inner)):
        raise ValueError(
            f"{taken[0]} of {data['type']} is no setting that a file can give: remove it there, and allow it when you "
            f"run, with --{taken[0].replace('_', '-')}"
        )
    given = {**inner, **dict.fromkeys(allowed & set(permissions), True)}
    unknown = sorted(set(given) - set(fields))
    required = {n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING}
    missing = sorted(required - set(given))
    if unknown or missing:
        raise ValueError(
            f"{data['type']} does not match this version of its class: unknown fields {unknown}, missing {missing}. "
            "It was written by another version; use the one named in provenance.json, or train again."
        )
    try:
        return cls(**given)
    except ValueError:
        raise
    except Exception as error:  # a class that does not check its fields may raise anything for them
        raise ValueError(f"{data['type']} cannot be made of what is written for {sorted(given)}: {error}") from error


def resolve(path: Any, *, packages: tuple[str, ...] = OWN_PACKAGES) -> type:
    """Return the dataclass with a name by `type_name`. Raises ValueError if it is not found or may not be imported."""
    if not (isinstance(path, str) and re.fullmatch(r"(\w+(\.\w+)*:)?\w+", path)):
        raise ValueError(f"a type is {path!r:.80}; expected a class, as L1 or package.module:Class")
    module, _, name = path.rpartition(":")
    if not module and name not in names.public():
        raise ValueError(f"there is no class {name}; one of another package is named as package.module:{name}")
    module = module or names.public()[name]
    check_package(path, module, packages)
    try:
        found = of_script(name, packages) if module == MAIN else getattr(importlib.import_module(module), name)
    except ValueError:
        raise
    except Exception as error:  # a package may raise anything when it is imported
        raise ValueError(f"cannot import {path} ({error}); is its package installed and on the path?") from error
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ValueError(f"{path} is not a dataclass, so it cannot be configuration")
    check_package(path, found.__module__, packages)  # modules hold classes of others too
    return found


def of_script(name: str, packages: tuple[str, ...]) -> type:
    """Return the dataclass `name` that a script or notebook defined: this one, or else the only one of that name in
    the packages named. Raises ValueError when there is none, or several."""
    here = getattr(sys.modules[MAIN], name, None)
    places = [found for package in packages if package != names.PACKAGE for found in modules_of(package)]
    found = [here] if here is not None else [vars(place)[name] for place in places if name in vars(place)]
    classes = {cls for cls in found if isinstance(cls, type) and dataclasses.is_dataclass(cls)}
    if len(classes) == 1:
        return classes.pop()
    among = f"in {', '.join(packages)}" if packages != OWN_PACKAGES else "here"
    raise ValueError(
        f"{name} was defined in a script or notebook, and there {'are several' if classes else 'is none'} {among}: "
        "define it before reading, or put it into a module, say mine.py, and name that: --package mine"
    )


def modules_of(package: str) -> list[ModuleType]:
    """Return a package that the user named and the modules in it. Raises ValueError when one cannot be imported."""
    try:
        parent = importlib.import_module(package)
        inside = pkgutil.walk_packages(getattr(parent, "__path__", []), f"{package}.")
        return [parent, *(importlib.import_module(found.name) for found in inside)]
    except Exception as error:  # a package may raise anything when it is imported
        raise ValueError(f"cannot import {package} ({error}); is it installed and on the path?") from error


def check_package(path: str, module: str, packages: tuple[str, ...]) -> None:
    """Raise ValueError when `module` is not of these packages; a class of a script or notebook needs no import."""
    root = module.partition(".")[0]
    if root not in (*packages, MAIN, names.PACKAGE):
        raise ValueError(f"{path} lives outside {list(packages)}; if you trust it, name it: --package {root}")


def not_finite(node: Any, at: str = "") -> str | None:
    """Return the path of the first nan or infinity, as in objective.penalties.effect.cap; None when there is none."""
    if isinstance(node, float) and not math.isfinite(node):
        return at
    inside = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    return next((w for key, child in inside if (w := not_finite(child, f"{at}.{key}".lstrip("."))) is not None), None)


def fingerprint(value: Any) -> str:
    """Return the first 12 hex digits of the SHA-256 of the canonical JSON: equal for equal configuration."""
    written = to_json(value)
    if (where := not_finite(written)) is not None:
        raise ValueError(f"the setting {where} is not a finite number, so it cannot be stored; give it one")
    text = json.dumps(written, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
