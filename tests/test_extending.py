"""docs/extending.md, executed: an eval and a factorial study, of one file each in a package of their own."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import unbraid as ub
from tests.finished_runs import make_world_run
from unbraid.cli.main import main

TEXT = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.strip().splitlines()]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A working folder with the page's files, and its package on the path."""
    for title, code in re.findall(r'```python title="(.*?)"\n(.*?)```', TEXT, re.S):
        file = tmp_path / title
        file.parent.mkdir(parents=True, exist_ok=True)
        for folder in (file.parent, file.parent.parent):
            (folder / "__init__.py").touch()
        file.write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_an_eval_of_one_file_scores_runs(lab):
    run = make_world_run(lab / "runs")
    (lab / "runs" / "lab").symlink_to(run.parent)
    (command,) = [line for line in COMMANDS if line.startswith("unbraid eval")]
    words = [str(p) for w in shlex.split(command)[1:] for p in (sorted(lab.glob(w)) if w.endswith("*") else [w])]
    assert main(words) == 0
    (score,) = json.loads((run / "results" / "norms.json").read_text())["scores"]
    assert score["metric"] == "norm_ratio" and 0.3 < score["value"] < 1.2


def test_a_factorial_study_of_one_file_is_planned_and_tested(lab, capsys):
    quick = ["--training.tokens", "1024", "--seeds", "0", "--sparsities", "3"]
    (command,) = [line for line in COMMANDS if line.startswith("unbraid plan")]
    assert main([*shlex.split(command)[1:], *quick]) == 0
    assert "dictionaries  10 on one stream" in capsys.readouterr().out
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "decorrelated()" in block]
    names: dict[str, Any] = {"ub": ub}
    exec((lab / "lab" / "studies" / "decorrelated.py").read_text(), names)
    small = replace(
        names["decorrelated"](), training=ub.Training(tokens=1024, batch_size=512), seeds=(0,), sparsities=(3,)
    )
    exec(code, names | {"decorrelated": lambda: small})
    made = {path.name.partition("-l0")[0] for path in (lab / "runs" / "test").iterdir()}
    assert (
        "batchtopk-lr_x2-correlation-0.3" in made and "batchtopk-whitened-correlation-0.1" in made and len(made) == 10
    )
