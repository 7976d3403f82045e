"""Figures of the report in a notebook: each by one call, with names, a legend and the report's own numbers."""

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from tests.report.planted import planted
from tests.report.test_answer import TWO

import unbraid as ub
from unbraid.report import write_report


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root: Path = tmp_path_factory.mktemp("notebook") / "runs"
    planted(root, {"hsic": {"f1": 0.06}}, bases=TWO, seeds=range(4), l0s=(8, 16))
    return root


def traces(figure: Any) -> Any:
    return figure.data


def test_every_figure_of_the_report_is_there_by_its_title(runs, tmp_path):
    drawn = ub.plot.figures(str(runs / "*"))
    write_report(sorted(runs.iterdir()), tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(drawn) > 10 and all(isinstance(figure, go.Figure) for figure in drawn.values())
    assert all(f">{title}</b>" in html for title in drawn)
    f1: Any = drawn["F1 of one latent a factor"]  # Any: plotly's figures say nothing of their traces
    shown = [trace for trace in f1.data if trace.showlegend]
    assert [trace.name for trace in shown] == ["BatchTopK", "Matryoshka", "HSIC", "truth", "untrained"]
    assert f1.layout.showlegend and f1.layout.title.text == "F1 of one latent a factor"


def test_claims_gate_standards_and_costs_by_one_call(runs):
    (hsic,) = traces(ub.plot.claims(str(runs)))
    assert hsic.name == "HSIC against BatchTopK" and len(hsic.x) == 2 and max(hsic.x) > 1
    assert {trace.name for trace in traces(ub.plot.gate(str(runs)))} >= {"truth", "best trained method"}
    assert [trace.name for trace in traces(ub.plot.standards(str(runs)))] == ["Matryoshka against BatchTopK"]
    assert traces(ub.plot.costs(str(runs)))[0].orientation == "h"


def test_what_cannot_be_drawn_says_why(runs):
    with pytest.raises(ValueError, match="nothing to draw: score the runs by the eval dose"):
        ub.plot.dose(str(runs))
    with pytest.raises(ValueError, match="0 testbeds fit; name one by testbed=, of: world of 512 factors"):
        ub.plot.gate(str(runs), testbed="language")
    assert ub.plot.testbeds(str(runs)) == ["world of 512 factors"]
