"""Reading a command line with tyro; every mistake is one sentence that ends in a remedy."""

import difflib
import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Literal, NoReturn, TypeVar

from unbraid.config.settings import annotations, fault_of, shown
from unbraid.system.terminal import say

T = TypeVar("T")

WIDE = "4000"
"""Columns at which tyro breaks no line of a message."""
CHOICE = r"'(.*?)'"
WORDS = {
    r"invalid literal for int\(\) with base 10: (.*)": r"\1 is not possible; it must be a whole number",
    r"could not convert string to float: (.*)": r"\1 is not possible; it must be a number",
}
"""What Python says of a word for a number, and what we say."""


def fail(message: str) -> NoReturn:
    """End with exit code 2 and one sentence."""
    say(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def nearest(given: str, choices: Iterable[str]) -> str:
    """ "did you mean …?", or what there is."""
    known = sorted(choices)
    near = difflib.get_close_matches(given, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)};"


def options_of(command: type[T], words: Sequence[str], prog: str, *, partly: bool) -> tuple[T, list[str]]:
    """A command's flags, and with `partly` the words that are none of them. Ends with exit code 2 and a sentence for
    flags that are none or values that cannot be."""
    import tyro

    config = (tyro.conf.FlagCreatePairsOff,)
    with one_sentence(prog):
        if partly:
            options, rest = tyro.cli(
                command, args=list(words), prog=prog, config=config, add_help=False, return_unknown_args=True
            )
        else:
            options, rest = tyro.cli(command, args=list(words), prog=prog, config=config, add_help=False), []
    check(options, prog)
    return options, rest


def check(options: Any, prog: str) -> None:
    """End with exit code 2 and a sentence for a value outside its bounds."""
    from unbraid.cli.flags import flags_of

    hints = annotations(type(options))
    for flag in flags_of(type(options)):
        value = getattr(options, flag.field)
        if fault := next(filter(None, (fault_of(value, hint) for hint in hints[flag.field])), ""):
            fail(f"argument {flag.name}: {shown(value)} is not possible; it must be {fault}; see `{prog} --help`")


def overridden(named: T, rest: Sequence[str], prog: str) -> T:
    """`named` with the fields that flags in `rest` set. Ends with exit code 2 and a sentence for flags that are none or
    values that cannot be."""
    import tyro

    # Without AvoidSubcommands an optional field (target_l0) would turn into a subcommand and hide the other flags.
    config = (tyro.conf.AvoidSubcommands,)
    with one_sentence(prog):
        return tyro.cli(type(named), default=named, args=list(rest), prog=prog, config=config)


@contextmanager
def one_sentence(prog: str) -> Iterator[None]:
    """Within, what tyro prints as it ends is made one sentence."""
    printed, columns = io.StringIO(), os.environ.get("COLUMNS")
    try:
        os.environ["COLUMNS"] = WIDE
        with redirect_stderr(printed), redirect_stdout(printed):
            yield
    except SystemExit as stopped:
        if not stopped.code:
            raise
        fail(sentence(printed.getvalue(), prog))
    finally:
        restore("COLUMNS", columns)


def restore(name: str, value: str | None) -> None:
    """Set a variable of the environment to what it was."""
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
    message = message.rstrip("!")
    inside = [row for row in rows[title:] if row and not set(row) <= {"-", "─"}]
    flags = [row.split()[0].rstrip(",") for row in inside if row.startswith("--") or row.isupper()]
    return f"{in_words(message, flags)} `{prog} --help`"


def in_words(message: str, flags: Sequence[str]) -> str:
    """tyro's message in our words, up to "see". `flags`: those it names, each on a line of its own."""
    if found := re.fullmatch(r"Unrecognized options?: (.*)", message):
        given = found[1].split()[0].rstrip(",")
        unknown = f"unknown arguments {', '.join(map(repr, found[1].split(', ')))}"
        near = (difflib.get_close_matches(given, flags, n=1) or flags or [""])[0]
        return f"{unknown}; did you mean {near}? See" if near and given.startswith("-") else f"{unknown}; see"
    if message.startswith("Missing from") and flags:
        return f"required: {', '.join(flags)}; see"
    choice = r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)"
    if found := re.fullmatch(choice, message, re.DOTALL):
        given, flag, choices = found.groups()
        return f"argument {flag} cannot be {given!r}; {nearest(given, re.findall(CHOICE, choices))} See"
    if found := re.match(r"Error parsing (--\S+): (.*)", message, re.DOTALL):
        for pattern, ours in WORDS.items():
            if inside := re.search(pattern, found[2]):
                return f"Error parsing {found[1]}: {inside.expand(ours)}; see"
    return f"{message or 'these flags cannot be read'}; see"


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
