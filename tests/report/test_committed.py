"""Reports from committed rows: the same verdicts, gate and means as from the runs whose rows they are."""

import json
from pathlib import Path

import pytest
from benchmarks.judge import collect
from tests.report.planted import planted
from tests.report.test_answer import TWO
from tests.report.test_page import drawn, first_screen

from unbraid.comparison.committed import read_committed
from unbraid.report import write_report


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, Path, Path]:
    """The report on runs, the file of their rows, and the report on that."""
    root = tmp_path_factory.mktemp("committed")
    folders = planted(root / "runs", {"hsic": {"f1": 0.06}}, bases=TWO, seeds=range(4), l0s=(8,))
    for folder in folders:
        path = folder / "provenance.json"
        facts = json.loads(path.read_text())
        facts["summary"]["geometry"] = "raw"  # as every run of today says
        path.write_text(json.dumps(facts))
    rows = root / "rows.json"
    rows.write_text(json.dumps(collect(folders, "forest")))
    write_report(folders, root / "runs.html")
    write_report([rows], root / "rows.html")
    return root / "runs.html", rows, root / "rows.html"


def test_the_first_screen_says_the_same(both):
    of_runs, of_rows = (" ".join(first_screen(path).split()) for path in (both[0], both[2]))
    assert "Yes: HSIC is materially better" in of_rows and "4 seeds could find" in of_rows
    said = lambda text: (
        text.partition("What was not tested")[0].partition("Claim 1")[2].replace("World of 512 factors", "Forest")
    )
    assert said(of_rows) == said(of_runs)


@pytest.mark.parametrize("title", ["Which scores count here", "Full absorption", "Fraction of variance unexplained"])
def test_every_number_of_a_figure_is_the_same(title, both):
    of_runs, of_rows = (drawn(path, title)["table"] for path in (both[0], both[2]))
    assert of_runs["head"] == of_rows["head"] and len(of_runs["rows"]) == len(of_rows["rows"])
    known = {tuple(row[:2]): row for row in of_runs["rows"]}
    for row in of_rows["rows"]:
        for mine, theirs in zip(row, known[tuple(row[:2])], strict=True):
            assert mine == (pytest.approx(theirs, rel=2e-3, abs=1e-5) if isinstance(theirs, float) else theirs)


def test_rows_whose_runs_are_gone_have_no_dead_links(both):
    html = both[2].read_text(encoding="utf-8")
    assert "hsic-l0_8-s0-" in html and "experiment.json" not in html and 'href="../' not in html


def test_a_file_that_holds_no_rows_is_refused(tmp_path):
    path = tmp_path / "rows.json"
    for text, reason in (
        ("{}", "holds an object, expected a list; name run folders"),
        ("[]", "holds no rows; name run folders"),
        ('[{"world": "w"}]', "row 0 of .* lacks method, asked"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=reason):
            read_committed(path)
    row = {"world": "w", "method": "m", "asked": 1.0, "d_sae": 8, "seed": 0, "control": False, "f1": "high"}
    path.write_text(json.dumps([row]))
    with pytest.raises(ValueError, match="row 0 of .* has a f1 that is no number"):
        read_committed(path)
