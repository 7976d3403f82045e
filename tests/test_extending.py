"""docs/extending.md, executed: an eval of one file in a package of its own."""

import json
import re
import shlex
from pathlib import Path

from tests.finished_runs import make_world_run
from unbraid.cli.main import main

TEXT = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")


def test_an_eval_of_one_file_scores_runs(tmp_path, monkeypatch):
    ((title, code),) = re.findall(r'```python title="(.*?)"\n(.*?)```', TEXT, re.S)
    file = tmp_path / title
    file.parent.mkdir(parents=True)
    for folder in (file.parent, file.parent.parent):
        (folder / "__init__.py").touch()
    file.write_text(code)
    run = make_world_run(tmp_path / "runs")
    (tmp_path / "runs" / "lab").symlink_to(run.parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    ((command,),) = [block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S)]
    words = [str(p) for w in shlex.split(command)[1:] for p in (sorted(tmp_path.glob(w)) if w.endswith("*") else [w])]
    assert main(words) == 0
    (score,) = json.loads((run / "results" / "norms.json").read_text())["scores"]
    assert score["metric"] == "norm_ratio" and 0.3 < score["value"] < 1.2
