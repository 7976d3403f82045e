"""Plain words, held: docstrings' first lines are sentences, one class a name, no retired names, seams within bounds."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "unbraid"
LONGEST_FUNCTION, LONGEST_FILE, SHORT = 60, 400, 5
"""Lines of a function and of a file at most, and of the body of a function that may go without a docstring."""
BEGINNINGS = re.compile(r"(Of|What|Whether|Where|Who|Whose|Which|How|Told|As|The same)\b")
"""First words that make no sentence of a docstring's first line."""
DIALECT = re.compile(r"\btold\b|\blayers after\b|\bstands? for\b|\bbeside\b|\basked\b", re.IGNORECASE)
"""Words that this project once used in a sense of its own: tell, downstream layers, represent, next to, requested."""
RETIRED = frozenset({
    "hold_near", "Supply", "pressures", "side_by_side", "Differing", "looked_up", "Lesson", "owners", "Observed",
    "untrained_like", "Tap", "Tail", "offers", "meanings", "materials", "subjects", "forecast", "why_not", "Hole",
    "gaps", "conclude", "nothing_to_say", "Way", "first_sight", "doubts", "in_todays_words", "Found", "Fitting",
    "OWN_FAULTS", "try_to_give", "Watch", "unwatched", "ABOVE_ZERO",
})  # fmt: skip
"""Names that have got better ones."""


class Documented(NamedTuple):
    """Something public that may have a docstring."""

    where: str
    kind: str
    text: str | None
    lines: int
    inherits: bool


@cache
def parsed() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def documented(path: Path, tree: ast.Module) -> Iterator[Documented]:
    where = str(path.relative_to(PACKAGE))
    yield Documented(where, "module", ast.get_docstring(tree), 0, False)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield Documented(f"{where}: {node.name}", "function", ast.get_docstring(node), body_lines(node), False)
    for node in classes:
        # The docstring of a module of one class is that class's too.
        kind = "class" if len(classes) > 1 else "only class"
        yield Documented(f"{where}: {node.name}", kind, ast.get_docstring(node), 0, bool(node.bases))
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                name = f"{where}: {node.name}.{method.name}"
                yield Documented(name, "method", ast.get_docstring(method), body_lines(method), bool(node.bases))


def body_lines(node: ast.FunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.body[0].lineno + 1


def fault_of(found: Documented) -> str:
    if found.text is None:
        needed = found.kind in ("module", "class") or (
            found.kind in ("function", "method") and found.lines > SHORT and not found.inherits
        )
        return f"{found.where}: no docstring" if needed else ""
    summary = " ".join(found.text.split("\n\n")[0].split())
    if BEGINNINGS.match(summary):
        return f"{found.where}: {summary[:60]!r} is no sentence that says what it is or does"
    return "" if summary.endswith((".", "?", "!", ":")) else f"{found.where}: {summary[-40:]!r} does not end"


@pytest.mark.parametrize("package", sorted({package_of(path) for path in PACKAGE.rglob("*.py")}))
def test_docstrings_say_what_things_are_in_plain_words(package: str):
    faults = []
    for path, tree in parsed().items():
        if package_of(path) != package:
            continue
        faults += filter(None, map(fault_of, documented(path, tree)))
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            # A single word is a key or a name in files, not prose.
            if " " in text and (found := DIALECT.search(text)):
                line = getattr(node, "lineno", 0) + text[: found.start()].count("\n")
                faults.append(f"{path.relative_to(PACKAGE)}:{line}: {found[0]!r}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("The mean of all.", True),
        ("Return the mean.", True),
        ("Of all, the mean.", False),
        ("Whether it is one.", False),
        ("The mean of all", False),
        ("Offsets of rows.", True),
        (None, False),
    ],
)
def test_the_rule_tells_sentences_from_others(text: str | None, ok: bool):
    assert (fault_of(Documented("a: f", "function", text, SHORT + 1, False)) == "") == ok


def test_retired_names_are_gone():
    found = []
    for path, tree in parsed().items():
        names = {path.stem: 0}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names[node.name] = node.lineno
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names[node.id] = node.lineno
        found += [f"{path.relative_to(PACKAGE)}:{names[name]} {name}" for name in sorted(RETIRED & names.keys())]
    assert not found, "\n".join(found)


def test_a_class_name_means_one_thing():
    homes = defaultdict(list)
    for path, tree in parsed().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(PACKAGE)))
    several = {name: where for name, where in homes.items() if len(where) > 1}
    assert not several, several


def test_the_glossary_has_each_word_once_in_order_and_with_a_meaning():
    lines = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    words = [row[0] for row in rows]
    assert [word for word, count in Counter(words).items() if count > 1] == []
    assert all(len(row) == 2 and row[1].endswith(".") for row in rows)
    assert words == sorted(words, key=str.lower)


def test_no_function_and_no_file_is_long():
    long = []
    for path, tree in parsed().items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE:
            long.append(f"{path.relative_to(PACKAGE)}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION:
                long.append(f"{path.relative_to(PACKAGE)}: {node.name}")
    assert not long, "\n".join(long)
