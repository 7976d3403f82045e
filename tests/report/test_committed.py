"""Reports from committed rows: the same verdicts, gate and means as from the runs whose rows they are."""

import json
from pathlib import Path

import pandas as pd
import pytest
from benchmarks.judge import collect
from tests.report.planted import planted
from tests.report.test_answer import TWO
from tests.report.test_page import first_screen
from tests.report.test_traced import Traced

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


def test_every_number_of_every_table_is_the_same(both):
    of_runs, of_rows = (numbers(path) for path in (both[0], both[2]))
    lost = {title for title in of_runs.keys() - of_rows.keys() if "in training" not in title}
    assert len(of_rows) > 15 and not lost and of_rows.keys() <= of_runs.keys()
    for title, rows in of_rows.items():
        assert rows.keys() == of_runs[title].keys(), title
        for key, row in rows.items():
            for name, theirs in of_runs[title][key].items():
                mine = row[name]
                near = isinstance(theirs, float) and mine is not None
                assert mine == (pytest.approx(theirs, rel=5e-3, abs=1e-4) if near else theirs), (title, key, name)


def numbers(path: Path) -> dict[str, dict[tuple, dict]]:
    """By table and by the words of a row its numbers, each by its column."""
    found = {}
    for title, _, table in Traced(path.read_text(encoding="utf-8"), pd.DataFrame()).tables:
        rows = [dict(zip(table["head"], cells, strict=True)) for cells in table["rows"]]
        found[title] = {tuple(row.get(name) for name in WORDS): row for row in rows}
    return found


WORDS = ("method", "base", "against", "score", "held equal", "L0 requested", "distortion", "latents")
"""Columns that say what a row is of."""


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
