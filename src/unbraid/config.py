"""Frozen dataclasses to JSON and back, and their fingerprint.

Every dataclass is written with its class path, `"type": "unbraid.terms.l1:L1"`, and read back by importing it.
Only the packages the caller names are ever imported, and nothing but dataclasses is ever built.

A `permission` is no configuration: it is never written and never read, so a field that is one changes no fingerprint.
Whoever runs gives it, each time, and no file can.
"""

import dataclasses
import hashlib
import importlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

OWN_PACKAGES = ("unbraid",)
PERMISSION = "permission"


def permission() -> Any:
    """The default, False, of a field that allows something to whoever runs this, and says nothing of the experiment."""
    return dataclasses.field(default=False, compare=False, metadata={PERMISSION: True})


def to_json(value: Any) -> Any:
    """`value` as plain JSON data. Raises TypeError for anything that is not configuration."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        fields = {
            f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if PERMISSION not in f.metadata
        }
        return {"type": f"{cls.__module__}:{cls.__qualname__}", **fields}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} is not configuration: use dataclasses, mappings, tuples, numbers and text")


def from_json(data: Any, *, packages: tuple[str, ...] = OWN_PACKAGES, permissions: tuple[str, ...] = ()) -> Any:
    """The inverse of `to_json`, with `permissions` given. Raises ValueError for what `to_json` does not write: a class
    outside `packages`, unknown or missing fields, a permission that the data gives itself, values that a class
    refuses."""
    if isinstance(data, list):
        return tuple(from_json(item, packages=packages, permissions=permissions) for item in data)
    if not isinstance(data, dict):
        return data
    inner = {k: from_json(v, packages=packages, permissions=permissions) for k, v in data.items() if k != "type"}
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
    """The dataclass at `package.module:Class`. Raises ValueError when it cannot be had, or may not be imported."""
    if not (isinstance(path, str) and re.fullmatch(r"\w+(\.\w+)*:\w+", path)):
        raise ValueError(f"a type is {path!r:.80}; expected a class, as package.module:Class")
    module, _, name = path.partition(":")
    check_package(path, module, packages)
    try:
        cls = getattr(importlib.import_module(module), name)
    except Exception as error:  # a package may raise anything when it is imported
        raise ValueError(f"cannot import {path} ({error}); is its package installed and on the path?") from error
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise ValueError(f"{path} is not a dataclass, so it cannot be configuration")
    check_package(path, cls.__module__, packages)  # modules hold classes of others too
    return cls


def check_package(path: str, module: str, packages: tuple[str, ...]) -> None:
    """Raise ValueError when `module` is not of these packages."""
    root = module.partition(".")[0]
    if root not in packages:
        raise ValueError(f"{path} lives outside {list(packages)}; if you trust it, name it: --package {root}")


def not_finite(node: Any, at: str = "") -> str | None:
    """Where the first number is that is nan or infinite, as objective.penalties.effect.cap; None when none is."""
    if isinstance(node, float) and not math.isfinite(node):
        return at
    inside = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    return next((w for key, child in inside if (w := not_finite(child, f"{at}.{key}".lstrip("."))) is not None), None)


def fingerprint(value: Any) -> str:
    """The first 12 hex digits of the SHA-256 of the canonical JSON: same configuration in, same name out."""
    written = to_json(value)
    if (where := not_finite(written)) is not None:
        raise ValueError(f"the setting {where} is not a finite number, so it cannot be stored; give it one")
    text = json.dumps(written, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
