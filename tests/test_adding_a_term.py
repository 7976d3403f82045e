"""docs/adding-a-term.md, executed: its file, its checks, its commands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "adding-a-term.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def test_the_walkthrough_works_as_written(tmp_path):
    term, checks = blocks("python")
    (package := tmp_path / "mine" / "terms").mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "hoyer.py").write_text(term)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    run(sys.executable, "-c", checks)
    unbraid = str(Path(sys.executable).with_name("unbraid"))
    for line in blocks("sh")[0].strip().splitlines():
        for command in line.split("&&"):
            words = shlex.split(command)[1:]
            globbed = [str(p) for w in words for p in (sorted(tmp_path.glob(w)) if w.endswith("*") else [w])]
            run(unbraid, *globbed)
    runs = [p for p in (tmp_path / "runs" / "hoyer").iterdir() if p.is_dir()]
    assert len(runs) == 2
    with_term = [p for p in runs if "losses/hoyer" in (p / "metrics.jsonl").read_text()]
    assert len(with_term) == 1 and '"rho": 0.1' in (with_term[0] / "experiment.json").read_text()
    assert (tmp_path / "runs" / "hoyer" / "report.html").stat().st_size > 10_000


def test_it_is_under_a_page():
    assert len(TEXT.splitlines()) <= 66
