"""What is written is executed: commands parse, code runs, tables list every member, links lead somewhere."""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from unbraid import catalog
from unbraid.cli.calls import read
from unbraid.cli.commands import COMMANDS
from unbraid.runs.run_folder import is_run

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
GENERATED = {"notebooks/", "api/"}
"""Folders of pages that are made when the site is built."""


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def commands(path: Path) -> list[list[str]]:
    """Words of every `unbraid` command in a page's shell blocks, comments left out."""
    lines = [
        line.split("#")[0]
        for block in re.findall(r"```sh\n(.*?)```", text_of(path), re.S)
        for line in block.splitlines()
    ]
    return [shlex.split(part) for line in lines for part in line.split("&&") if part.strip().startswith("unbraid")]


def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_map_of_the_code_lists_every_module_with_a_sentence():
    made = hooks()
    rows = re.findall(r"^\| `((?:\w+/)*\w+)` \| (.+) \|$", made.map_of_the_code(), re.M)
    shown = sorted((name.split("/")[-1], sentence) for name, sentence in rows)
    files = [path for path in (ROOT / "src" / "unbraid").rglob("*.py") if (path.parent / "__init__.py").is_file()]
    named = [path for path in files if path.stem not in ("__init__", "__main__")]
    assert shown == sorted((path.stem, made.cell(made.first_line(path))) for path in named)
    assert made.MAP in text_of(DOCS / "index.md")


def python_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text_of(ROOT / page), re.S)


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec("\n".join(block for block in python_of(page) if "sae_lens" not in block), {})
    assert is_run(tmp_path / "runs" / "mine")


@pytest.mark.slow
def test_saelens_loads_what_the_readme_saved(tmp_path):
    blocks = python_of("README.md")
    assert "sae_lens" in blocks[-1]
    equal = "assert (sae.decode(sae.encode(torch.as_tensor(X[:8]).float())) - x_hat).abs().max() < 1e-4"
    code = "\n".join([*blocks, "import torch", equal])
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_the_readme_fits_on_a_hundred_lines():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 100


@pytest.mark.parametrize("page", [path for path in PAGES if commands(path)], ids=lambda path: path.stem)
def test_commands_exist_with_their_flags(page):
    for words in commands(page):
        size = 2 if " ".join(words[1:3]) in COMMANDS else 1  # study register
        name, flags = " ".join(words[1 : 1 + size]), words[1 + size :]
        call = read(name, COMMANDS[name], flags)
        if call is not None and COMMANDS[name].of_experiment and not call.options.package:
            catalog.pick(call.name or "", catalog.experiments(), "experiment")


def test_every_command_is_on_the_page_of_commands():
    table = re.findall(r"^\| `unbraid ([\w ]+)` \|", text_of(DOCS / "command-line.md"), re.M)
    helped = subprocess.run([sys.executable, "-m", "unbraid.cli", "--help"], capture_output=True, text=True, check=True)
    assert set(table) == set(re.findall(r"^ {4}(\w+(?: \w+)?) {2,}\w", helped.stdout, re.M))


@pytest.mark.parametrize(
    ("page", "header", "known"), [("terms", "term", catalog.terms), ("evals", "eval", catalog.evals)]
)
def test_every_member_is_listed(page, header, known):
    (table,) = re.findall(rf"^\| {header} \|.*\n((?:\|.*\n)+)", text_of(DOCS / f"{page}.md"), re.M)
    rows = re.findall(r"^\| `(.*?)` \|", table, re.M)
    assert {name for row in rows for name in row.replace("`", "").split(", ")} == set(known())


def test_the_table_of_terms_says_of_each_what_it_reads():
    (table,) = re.findall(r"^\| term \|.*\| reads \|\n((?:\|.*\n)+)", text_of(DOCS / "terms.md"), re.M)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[1:]]
    said = {name.strip("`"): reads for names, _, reads in rows for name in names.split(", ")}
    assert said == {name: ", ".join(kind.reads) for name, kind in catalog.terms().items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_and_named_files_exist(page):
    text = text_of(page)
    named = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r"`((?:docs|benchmarks|src)/[^`*<> ]+)`", text)
    missing = [path for path in named if not (page.parent / path).exists() and not (ROOT / path).exists()]
    assert not [path for path in missing if not path.startswith(tuple(GENERATED)) and not told_in_the_past(page)]


def told_in_the_past(page: Path) -> bool:
    """Whether a page speaks of files as they were on the day it was written."""
    return page.name in ("log.md", "CHANGELOG.md")


def test_every_page_is_in_the_navigation():
    nav = text_of(ROOT / "mkdocs.yml")
    assert not [path.name for path in DOCS.glob("*.md") if f": {path.name}\n" not in nav]


def test_the_rows_of_results_are_named_on_their_page():
    assert not [
        path.name
        for path in (DOCS / "results").iterdir()
        if f"(results/{path.name})" not in text_of(DOCS / "results.md")
    ]


def test_hooks_need_no_mkdocs_to_be_read():
    tree = ast.parse(text_of(DOCS / "hooks.py"))
    assert not [node for node in tree.body if isinstance(node, ast.ImportFrom) and "mkdocs" in (node.module or "")]
