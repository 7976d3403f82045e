"""How the command line is read: argparse and tyro, with every mistake told in one sentence that ends in a remedy."""

import argparse
import ast
import difflib
import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, Literal, NoReturn, TypeVar

from unbraid.system.terminal import say

T = TypeVar("T")

HIDDEN = ("demo-part",)
"""Commands that only other commands call."""
WIDE = "4000"
"""Columns at which tyro breaks no line of a message."""


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are one sentence with the nearest right spelling."""

    def error(self, message: str) -> NoReturn:
        said = spelt(message)
        fail(f"{said}{' See' if said.endswith('?') else '; see'} `{self.prog} --help`")


def wide(prog: str) -> argparse.HelpFormatter:
    """Help in few lines, whatever the terminal."""
    return argparse.HelpFormatter(prog, width=110, max_help_position=32)


def fail(message: str) -> NoReturn:
    """End with exit code 2 and one sentence."""
    say(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def spelt(message: str) -> str:
    """argparse's message, with a suggestion in place of the list of all choices."""
    found = re.fullmatch(r"argument (.+): invalid choice: '?(.*?)'? \(choose from (.*)\)", message, re.DOTALL)
    if found is None:
        return message
    what, given, listed = found.groups()
    choices = [choice for choice in re.findall(r"[\w.-]+", listed) if choice not in HIDDEN]
    return f"{what} cannot be {given!r}; {nearest(given, choices)}"


def nearest(given: str, choices: Iterable[str]) -> str:
    """ "did you mean …?", or what there is."""
    known = sorted(choices)
    near = difflib.get_close_matches(given, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"


def unknown(parser: argparse.ArgumentParser, rest: Sequence[str]) -> NoReturn:
    """For arguments that no flag takes."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    first = next((word for word in rest if word.startswith("-")), rest[0])
    near = difflib.get_close_matches(first.partition("=")[0], flags, n=1)
    hint = f"did you mean {near[0]}? See" if near else "see"
    fail(f"unknown arguments {' '.join(map(repr, rest))}; {hint} `{parser.prog} --help`")


def overridden(named: T, rest: Sequence[str], prog: str) -> T:
    """`named` with the fields that flags in `rest` set. Ends with exit code 2 and a sentence for flags that are none or
    values that cannot be."""
    import tyro

    # Without AvoidSubcommands an optional field (target_l0) would turn into a subcommand and hide the other flags.
    config = (tyro.conf.AvoidSubcommands,)
    told, wanted = io.StringIO(), os.environ.get("COLUMNS")
    try:
        os.environ["COLUMNS"] = WIDE
        with redirect_stderr(told), redirect_stdout(told):
            return tyro.cli(type(named), default=named, args=list(rest), prog=prog, config=config)
    except SystemExit as stopped:
        if not stopped.code:
            raise
        fail(sentence(told.getvalue(), prog))
    finally:
        restored("COLUMNS", wanted)


def restored(name: str, value: str | None) -> None:
    """A variable of the environment as it was."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def sentence(box: str, prog: str) -> str:
    """tyro's box of text as one sentence: what stands between its first two rules, and the flag that was meant."""
    rows = [line.strip(" │╭╮╰╯") for line in box.splitlines()]
    rules = [index for index, row in enumerate(rows) if row and set(row) <= {"─", "-"}]
    title = 1 if rows and "─" in rows[0] else rules[0] + 1 if rules else 0  # in the frame, or above a rule of its own
    end = next((index for index in rules if index > title), len(rows))
    message = " ".join(" ".join(rows[title:end]).split()).rstrip(".")
    flags = [row.split()[0].rstrip(",") for row in rows if row.startswith("--") and not set(row) <= {"-"}]
    if message.startswith("Unrecognized options") and flags:
        given = message.split(": ", 1)[-1].split(",")[0]
        near = (difflib.get_close_matches(given, flags, n=1) or flags)[0]
        return f"{message}; did you mean {near}? See `{prog} --help`"
    return f"{message or 'these flags cannot be read'}; see `{prog} --help`"


# ---- --cross ------------------------------------------------------------------------------------------------


def axis(text: str) -> tuple[str, list[Any]]:
    """ "training.lr=1e-4,3e-4" as a field and its values. A value that holds commas is quoted, or in brackets."""
    field, equals, values = text.partition("=")
    if not equals or not values.strip() or not field.strip():
        raise ValueError(f"--cross {text!r}: write FIELD=VALUE,VALUE, such as training.lr=1e-4,3e-4")
    found = [value(word) for word in separated(values, text)]
    twice = [one for index, one in enumerate(found) if one in found[:index]]
    if twice:
        raise ValueError(f"--cross {text!r} names {twice[0]!r} twice; name each value once")
    return field.strip(), found


def axes(texts: Sequence[str]) -> dict[str, list[Any]]:
    """All fields that are crossed."""
    found = [axis(text) for text in texts]
    names = [field for field, _ in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"--cross {twice[0]} is given twice; write all its values in one: {twice[0]}=VALUE,VALUE")
    return dict(found)


def value(word: str) -> Any:
    """As Python reads it, or the word itself."""
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return word


def separated(values: str, text: str) -> list[str]:
    """Words between commas that stand outside quotes and brackets."""
    words, depth, quote, start = [], 0, "", 0
    for place, character in enumerate(values):
        begins = place == start or depth > 0  # an apostrophe inside a word is none
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and begins:
            quote = character
        elif character in "([{" and begins:
            depth += 1
        elif character in ")]}" and depth:
            depth -= 1
        elif character == "," and not depth:
            words.append(values[start:place])
            start = place + 1
    words.append(values[start:])
    if quote or depth:
        raise ValueError(f"--cross {text!r}: a quote or bracket is not closed; close it, or leave it out")
    if not all(word.strip() for word in words):
        raise ValueError(f"--cross {text!r} has an empty value; write '' for empty text, or drop a comma")
    return [word.strip() for word in words]


# ---- the last resort ----------------------------------------------------------------------------------------

TRACEBACK = "UNBRAID_TRACEBACK"
"""Variable of the environment that has tracebacks shown."""
BUG = 3
"""Exit code of what should not happen."""


def report_bug(error: Exception, command: str) -> Literal[3]:
    """Say what happened and where the traceback is; the exit code."""
    text = "".join(traceback.format_exception(error))
    where = f"set {TRACEBACK}=1 to see where"
    if os.environ.get(TRACEBACK):
        say(text, file=sys.stderr)
    else:
        try:
            handle, name = tempfile.mkstemp(prefix="unbraid-", suffix=".txt")
            with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{command}\n\n{text}")
            where = f"traceback in {name}, or with {TRACEBACK}=1"
        except OSError:
            pass
    reason = " ".join(str(error).split())[:300]
    say(f"error: this is a bug in unbraid: {type(error).__name__}: {reason} ({where})", file=sys.stderr)
    return BUG
