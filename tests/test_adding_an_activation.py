"""docs/adding-an-activation.md, executed: file, checks, commands; and an activation that others can load."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from tests.small import WORLD, experiment
from tests.test_adding_a_term import SMALL
from unbraid import catalog
from unbraid.cli.main import main
from unbraid.config.serialise import OWN_PACKAGES
from unbraid.formats import saelens
from unbraid.formats.export import export
from unbraid.runs.run import Run
from unbraid.training.loop import train

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "adding-an-activation.md").read_text(encoding="utf-8")
SOFT = '''"""Soft threshold: max(pre - amount, 0)."""

from dataclasses import dataclass
from typing import ClassVar

from unbraid.config.settings import PositiveFloat
from unbraid.dictionary.activations.base import Thresholded
from unbraid.dictionary.activations.relu import ReLU


@dataclass(frozen=True)
class SoftThreshold(Thresholded):
    amount: PositiveFloat = 0.5
    for_training_only: ClassVar[bool] = True

    def margin(self):
        return -self.amount

    def value(self, pre, threshold):
        return (pre - self.amount).relu()

    def dense(self, pre, threshold):
        return (pre - self.amount).relu()

    def for_inference(self, dictionary, sample):
        state = dictionary.state_dict()
        return ReLU(), {**state, "b_enc": state["b_enc"] - self.amount}
'''


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def write_package(root: Path, package: str, files: dict[str, str]) -> None:
    (folder := root / package / "activations").mkdir(parents=True)
    for place in (folder, folder.parent):
        (place / "__init__.py").touch()
    for name, text in files.items():
        (folder / name).write_text(text)


def test_the_walkthrough_works_in_small(tmp_path, monkeypatch, capsys):
    file, checks = blocks("python")
    package = "signed_latents"  # another test's package is called `mine`, and is imported already
    write_package(tmp_path, package, {"abs_topk.py": file})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    exec(checks.replace("from mine.", f"from {package}."), {})
    for line in blocks("sh")[0].strip().splitlines():
        words = shlex.split(line.replace("--package mine", f"--package {package}"))[1:]
        words = [str(p) for w in words for p in (sorted(tmp_path.glob(w)) if w.endswith("*") else [w])]
        less = {
            "train": [*SMALL, "--training.tokens", "2048", "--dictionary.activation.k", "3"],
            "eval": ["--evals", "fidelity"],
        }
        assert main([*words, *less[words[0]]]) == 0, words
    (run,) = (p for p in (tmp_path / "runs" / "abs").iterdir() if p.is_dir())
    check_run(run, package)
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "no library has an equivalent" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def check_run(run: Path, package: str) -> None:
    """Its signed codes are read back with the package, and refused, with the remedy, without."""
    read = Run.open(run, (*OWN_PACKAGES, package)).dictionary()
    z = read.encode(torch.randn(50, read.d_in, generator=torch.Generator().manual_seed(0)))
    assert ((z != 0).sum(1) == 3).all() and (z < 0).any()
    assert json.loads((run / "cfg.json").read_text())["architecture"] == f"{package}.activations.abs_topk:AbsTopK"
    with pytest.raises(ValueError, match=f"if you trust it, name it: --package {package}"):
        saelens.read(run)
    (score,) = (s for s in json.loads((run / "results" / "fidelity.json").read_text())["scores"] if s["metric"] == "l0")
    assert score["value"] == 3


def test_one_that_becomes_another_after_training_loads_elsewhere(tmp_path, monkeypatch):
    write_package(tmp_path, "soft", {"soft_threshold.py": SOFT})
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = catalog.activations((*OWN_PACKAGES, "soft"))["SoftThreshold"]
    assert "SoftThreshold" not in catalog.activations()
    (folder,) = train([experiment(activation=kind(), tokens=320)], tmp_path / "runs")
    run = Run.open(folder, (*OWN_PACKAGES, "soft"))
    assert run.experiment.dictionary.activation == kind()
    assert "SoftThreshold -> ReLU" in repr(run.dictionary())
    export(folder, tmp_path / "out", "dictionary_learning")
    export(folder, tmp_path / "saelens")
    x = WORLD.sample(64, seed=0).x
    torch.testing.assert_close(saelens.read(tmp_path / "saelens")(x), run.dictionary()(x))
    with pytest.raises(ValueError, match="sparsify has TopK alone, and this is ReLU"):
        export(folder, tmp_path / "sparsify", "sparsify")


def test_it_is_under_a_page():
    assert len(TEXT.splitlines()) <= 66
