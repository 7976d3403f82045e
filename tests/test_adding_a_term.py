"""docs/adding-a-term.md, executed: its file, its checks, its commands."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

from unbraid.cli.main import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "adding-a-term.md").read_text(encoding="utf-8")


SMALL = ["--training.batch-size", "256", "--source.factors", "48", "--source.d-in", "16", "--source.l0", "3",
         "--source.roots", "8", "--source.depth", "1", "--dictionary.d-sae", "64"]  # fmt: skip


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def write_package(root: Path) -> str:
    """The term in its file; the checks of it."""
    term, checks = blocks("python")
    (package := root / "mine" / "terms").mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "hoyer.py").write_text(term)
    return checks


def commands(root: Path) -> Iterator[list[str]]:
    """The words of each, with what their patterns match by then."""
    for line in blocks("sh")[0].strip().splitlines():
        for command in line.split("&&"):
            words = shlex.split(command)[1:]
            yield [str(p) for w in words for p in (sorted(root.glob(w)) if w.endswith("*") else [w])]


def test_the_walkthrough_works_in_small(tmp_path, monkeypatch):
    """In this process, with fewer tokens and one eval."""
    checks = write_package(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # two rows beside the tokens of 64: short to read
        exec(checks, {})
    for words in commands(tmp_path):
        less = {"train": [*SMALL, "--training.tokens", "2048"], "eval": ["--evals", "fidelity"]}.get(words[0], [])
        assert main([*words, *less]) == 0, words
    check_runs(tmp_path)


@pytest.mark.slow
def test_the_walkthrough_works_as_written(tmp_path):
    checks = write_package(tmp_path)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    run(sys.executable, "-c", checks)
    unbraid = str(Path(sys.executable).with_name("unbraid"))
    for words in commands(tmp_path):
        run(unbraid, *words)
    check_runs(tmp_path)


def check_runs(root: Path) -> None:
    runs = [p for p in (root / "runs" / "hoyer").iterdir() if p.is_dir()]
    assert len(runs) == 2
    with_term = [p for p in runs if "losses/hoyer" in (p / "metrics.jsonl").read_text()]
    assert len(with_term) == 1 and '"gradient_ratio": 0.1' in (with_term[0] / "experiment.json").read_text()
    assert (root / "runs" / "hoyer" / "report.html").stat().st_size > 10_000


def test_it_is_under_a_page():
    assert len(TEXT.splitlines()) <= 66
