"""Help that a newcomer can read: what a flag does, its default, and how to see the rest.

A study has a hundred flags a member; tyro prints them all, which `--help-all` still does.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unbraid.cli.commands import WORDS, Command
from unbraid.cli.flags import Flag, flags_of
from unbraid.config.hints import first_few

if TYPE_CHECKING:
    from unbraid.experiment.factorial import Factorial

COLUMNS = 110
LEFT = 33
"""Columns of a flag's name; its help begins after them."""
DEEP = ("source", "training", "dictionary", "activation")
"""Parts whose flags are shown one by one; of others only that there are some."""
LISTED = 24
"""Members named, at most."""


# ---- a command ----------------------------------------------------------------------------------------------


def command_help(name: str, command: Command, cls: type) -> str:
    """Usage, arguments and flags of a command."""
    about = docstrings(cls)
    every = list(flags_of(cls))
    positional = [flag for flag in every if flag.positional]
    places = [*command.words, *(flag.name for flag in positional)]
    needed = [f"{flag.name} {flag.metavar}" for flag in every if flag.required and not flag.positional]
    usage = " ".join(["usage: unbraid", name, *places, *needed, "[flags]"])
    lines = [usage, "", f"{command.summary[0].upper()}{command.summary[1:]}.", ""]
    if places:
        lines += ["arguments", *(row(word, WORDS[word]) for word in command.words)]
        lines += [*(row(flag.name, about[flag.field]) for flag in positional), ""]
    rows = [
        row(
            "-h, --help",
            "Show this; with a NAME, also the fields used most." if command.of_experiment else "Show this.",
        )
    ]
    if command.of_experiment:
        rows.append(row("--help-all", "With a NAME, show every field of the experiment or study."))
    for group in sorted({flag.group for flag in every}):
        own = [flag_row(flag, about[flag.field]) for flag in every if not flag.positional and flag.group == group]
        lines += ["", f"flags of {group}", *own] if group else ["flags", *own, *rows]
    return "\n".join(lines)


def flag_row(flag: Flag, about: str) -> str:
    """A flag, what it does, and its default where its text does not say it."""
    said = "default:" in about or flag.default in (None, False, "", (), ("*",))
    default = " (required)" if flag.required else "" if said else f" (default: {shown(as_written(flag.default))})"
    return row(f"{flag.name} {flag.metavar}".strip(), f"{' '.join(about.split())}{default}")


def as_written(value: Any) -> Any:
    """A default as one would type it."""
    if isinstance(value, Path) and value.is_relative_to(Path.home()):
        return f"~/{value.relative_to(Path.home())}"
    return f"{value:g}" if isinstance(value, float) else value


def row(left: str, text: str) -> str:
    """Two columns; the second begins on the next line when the first is too long."""
    lines = textwrap.wrap(" ".join(text.split()), COLUMNS - LEFT - 3, break_on_hyphens=False)
    first = f"  {left:<{LEFT}} " if len(left) <= LEFT else f"  {left}\n{' ' * (LEFT + 3)}"
    return f"{first}{(chr(10) + ' ' * (LEFT + 3)).join(lines)}".rstrip()


# ---- an experiment ------------------------------------------------------------------------------------------


def short_help(named: Any, prog: str) -> str:
    """The flags of an experiment or a study that are used most, with their defaults."""
    from unbraid.experiment.factorial import Factorial

    lines = [f"flags of {prog.split()[-1]}", *flags(named, "")]
    members = getattr(named, "members", None)
    if isinstance(members, Mapping):
        lines += ["", *about_members(members)]
    elif isinstance(named, Factorial):
        lines += ["", *about_designs(named)]
    part = "members" if members else "bases and terms" if isinstance(named, Factorial) else "terms"
    every = f"every flag there is, those of {part} included: {prog} --help-all"
    return "\n".join([*lines, "", every])


def flags(node: Any, prefix: str) -> Iterator[str]:
    """A line for every setting of a dataclass, and of the parts it is made of."""
    from unbraid.objective.objective import Objective

    about = docstrings(type(node))
    for field in fields(node):
        value, flag = getattr(node, field.name), f"{prefix}{field.name.replace('_', '-')}"
        if isinstance(value, Objective):
            yield from terms(value, flag)
        elif is_dataclass(value) and field.name in DEEP:
            yield f"  {flag.rpartition('.')[2]}: {type(value).__name__}"
            yield from flags(value, f"{flag}.")
        elif is_dataclass(value) and fields(value):
            yield line(f"--{flag}.…", f"{type(value).__name__}; its flags: --help-all", None)
        elif not is_dataclass(value) and not isinstance(value, Mapping):
            yield line(f"--{flag}", about.get(field.name, ""), value)


def terms(objective: Any, flag: str) -> Iterator[str]:
    """A line a term: its weight, and that there is more."""
    for name, term in objective.penalties.items():
        first = f"--{flag}.penalties.{name.replace('_', '-')}.weight"
        yield line(first, f"{type(term).__name__}; {len(fields(term)) - 1} more flags: --help-all", term.weight)


def about_designs(study: "Factorial") -> list[str]:
    """The methods of a factorial study, and how to choose some."""
    first = next(iter(study.designs))
    text = f"methods (choose runs with --only PATTERN …, as {first}*): {first_few(study.designs, LISTED)}"
    return textwrap.wrap(text, COLUMNS, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def about_members(members: Mapping[str, Any]) -> list[str]:
    first = next(iter(members)).replace("_", "-")
    shown = first_few(members, LISTED)
    text = f"members (choose with --only NAME …; flags of one: --members.{first}.…): {shown}"
    return textwrap.wrap(text, COLUMNS, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def line(flag: str, about: str, value: Any) -> str:
    """The flag, the first sentence of what it says of itself, its default."""
    default = "" if value is None else f" ({shown(value)})"
    first = " ".join(about.split()).partition(". ")[0].rstrip(".")
    room = COLUMNS - 3 - max(LEFT, len(flag)) - len(default)
    return f"  {flag:<{LEFT}} {textwrap.shorten(first, max(room, 8), placeholder=' …')}{default}"


def shown(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value) if value != "" else "none"
    return text if len(text) <= 40 else f"{text[:39]}…"


@cache
def docstrings(cls: type) -> dict[str, str]:
    """The text below each field of a dataclass, its bases included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue  # a class without a file
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, text in zip(body, body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                found[field.target.id] = str(getattr(text.value, "value", ""))
    return found
