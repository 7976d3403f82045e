"""The demo's end: pages of two dictionaries next to its report, and a reason where there are none."""

from pathlib import Path

import pytest
from tests.browser.stored import told
from tests.small import experiment

from unbraid.cli import study
from unbraid.cli.arguments import DemoFlags

NAME = "demo_world"


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoFlags:
    two = [experiment(name, tokens=1600) for name in study.BROWSED]
    monkeypatch.setattr(study, "demo_experiments", lambda name: [*two, experiment("relu", tokens=1600)])
    monkeypatch.setitem(study.DEMO_EVALS, NAME, ("fidelity",))
    return DemoFlags(out=tmp_path / "demo")


def test_the_demo_writes_pages_of_two_methods_side_by_side(options: DemoFlags, capsys):
    assert study.demo_part(NAME, options) == 0
    study.browse_demo(NAME, options, pages := options.out / study.DEMO_BROWSERS["demo_language"])
    assert f"pages: {pages / 'index.html'}" in capsys.readouterr().out
    (index,) = told(pages / "data" / "index.js")[1]
    assert [run["method"].partition(",")[0] for run in index["runs"]] == [*study.BROWSED]
    assert ["cards" in run for run in index["runs"]] == [True, False]
    study.browse_demo(NAME, options, pages)
    assert "kept" in capsys.readouterr().out


def test_without_the_runs_the_demo_says_why_there_are_no_pages(options: DemoFlags, capsys):
    options.out.mkdir()
    study.browse_demo(NAME, options, options.out / "browser")
    assert "batchtopk and matryoshka of demo_world are not finished" in capsys.readouterr().err
    assert not (options.out / "browser").exists()
