"""What is written is executed: the map equals the disk, and the README's code runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from unbraid import catalog
from unbraid.cli import arguments

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tree_of(text: str) -> set[str]:
    """Paths of the indented tree in docs/index.md."""
    block = next(b for b in re.findall(r"```\n(.*?)```", text, re.S) if b.startswith("src/unbraid/\n"))
    found, folders = set(), []
    for line in block.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        else:
            found.add("/".join([*folders, name]))
    return found


def test_the_map_in_the_docs_equals_the_disk():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src/unbraid", "benchmarks", "docs"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert tree_of((ROOT / "docs" / "index.md").read_text(encoding="utf-8")) == set(listed)


def test_every_file_in_the_map_but_markers_has_a_caption():
    lines = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    bare = [line.split()[0] for line in lines if re.fullmatch(r" +[a-z_]+\.py", line)]
    assert set(bare) <= {"__init__.py"}


def test_the_readmes_python_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    ran = subprocess.run([sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert len(list((tmp_path / "runs" / "example").iterdir())) == 3


def test_the_readmes_commands_exist_with_their_flags():
    commands = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
    used = [part.split() for line in commands for part in line.split("&&") if part.strip().startswith("unbraid")]
    assert len(used) >= 4
    for words in used:
        options, _ = arguments().parse_known_args(words[1:])
        assert options.command == words[1]
        if options.overridable:
            catalog.pick(options.name, catalog.experiments(), "experiment")


@pytest.mark.parametrize(("header", "known"), [("term", catalog.terms), ("eval", catalog.evals)])
def test_the_readme_lists_every_member(header, known):
    (table,) = re.findall(rf"^\| {header} \|.*\n((?:\|.*\n)+)", README, re.M)
    rows = re.findall(r"^\| `(.*?)` \|", table, re.M)
    assert {name for row in rows for name in row.replace("`", "").split(", ")} == set(known())


def test_the_readme_says_of_every_term_what_it_reads():
    (table,) = re.findall(r"^\| term \|.*\| reads \|\n((?:\|.*\n)+)", README, re.M)
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[1:]]
    said = {name.strip("`"): reads for names, _, reads in rows for name in names.split(", ")}
    assert said == {name: ", ".join(kind.reads) for name, kind in catalog.terms().items()}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/index.md", "docs/concepts.md"])
def test_links_and_named_files_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r"`((?:docs|benchmarks|src|tests)/[^`*<> ]+)`", text)
    missing = [path for path in named if not ((ROOT / name).parent / path).exists() and not (ROOT / path).exists()]
    assert not missing


def test_numbers_in_the_readme_are_filled_in():
    assert "MEASURED" not in README
