"""The flags of a command as help shows them, read from its dataclass."""

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from tyro.conf import Positional

from unbraid.config.settings import annotations


@dataclass(frozen=True)
class Flag:
    """A flag or a positional argument as help shows it."""

    name: str
    """With its dashes; a positional argument's is its metavar."""
    field: str
    metavar: str
    positional: bool
    required: bool
    default: Any
    group: str
    """Title of the flags it stands among; empty for those of the command itself."""


def flags_of(command: type) -> Iterator[Flag]:
    """Every flag of a command, positional arguments among them; its own first, then those it shares with others."""
    place = lambda one: next(i for i, cls in enumerate(command.__mro__) if one.name in inspect.get_annotations(cls))
    for one in sorted(fields(command), key=place):
        hint = annotations(command)[one.name][0]
        extras = getattr(hint, "__metadata__", ())
        named = next((extra for extra in extras if hasattr(extra, "metavar")), None)
        metavar = getattr(named, "metavar", None) or choices(hint)
        name = getattr(named, "name", None) or one.name
        positional = any(extra in Positional[int].__metadata__ for extra in extras)  # pyright: ignore
        shown = metavar if positional else f"--{name.replace('_', '-')}"
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        group = getattr(command.__mro__[place(one)], "title", "") if place(one) else ""
        yield Flag(shown, one.name, metavar, positional, default is MISSING, default, group)


def choices(hint: Any) -> str:
    """The values that a Literal allows, as {a,b}; empty for other types."""
    return "{" + ",".join(hint.__args__) + "}" if getattr(hint, "__origin__", None) is Literal else ""
