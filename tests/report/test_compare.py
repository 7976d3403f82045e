"""Tables of the front door: `compare`, `gate` and `verdicts` on planted studies."""

import math
from pathlib import Path

import pytest
from tests.report.planted import WORST, planted
from tests.report.test_answer import TWO

import unbraid as ub

TERMS = {"hsic": {"f1": 0.06}, "melbo": {}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> str:
    """Runs in which MCC cannot tell untrained dictionaries from trained ones."""
    root: Path = tmp_path_factory.mktemp("compared")
    controls = {"untrained": WORST | {"mcc": 0.1}}
    planted(root, TERMS, knobs=("melbo",), bases=TWO, controls=controls, seeds=range(6), l0s=(8, 16))
    return str(root)


def test_every_method_is_compared_with_its_own_base_by_every_score(runs):
    table = ub.compare(runs)
    assert set(zip(table.method, table.base, strict=True)) == {("hsic", "batchtopk"), ("melbo", "batchtopk")}
    assert {"L0", "FVU"} == set(table.axis)
    (f1,) = table.query("method == 'hsic' and metric == 'f1' and axis == 'L0'").to_dict("records")
    assert f1["word"] == "materially better" and f1["difference"] == pytest.approx(0.06, abs=0.02)
    assert f1["value"] - f1["base_value"] == pytest.approx(f1["difference"]) and f1["seeds"] == 6
    assert f1["levels"].count(" and ") == 1, "two of L0"
    assert 0 < f1["p"] <= f1["q"] < 0.01 and f1["smallest"] > 0 and f1["could_find"] > 0


def test_scores_that_failed_the_gate_are_there_and_not_counted(runs):
    failed = ub.compare(runs).query("metric == 'mcc'")
    assert set(failed.word) == {"not counted"} and len(failed) == 4
    assert failed.note.str.contains("failed the gate: .* not shown to be better than untrained").all()
    assert failed.q.isna().all() and failed.difference.notna().all()


def test_any_two_methods_can_be_compared(runs):
    table = ub.compare(runs, method="matryoshka")
    assert set(table.method) == {"matryoshka"} and set(table.base) == {"batchtopk"}
    said = table.query("axis == 'L0'").set_index("metric").word
    assert said["absorption_full"] == "materially better" and said["fvu"] == "materially worse"
    assert said["mcc"] == "not counted"
    counted = table.query("axis == 'L0' and word != 'not counted'")
    assert f" over {len(counted)}" in counted.set_index("metric").note["fvu"], "what failed the gate is in no family"
    other = ub.compare(runs, method="hsic", against="melbo").query("axis == 'L0' and metric == 'f1'")
    assert set(other.base) == {"melbo"} and list(other.word) == ["materially better"]


def test_methods_that_are_not_there_are_named_with_the_nearest(runs):
    with pytest.raises(ValueError, match="no method is called 'hsci'; did you mean 'hsic'"):
        ub.compare(runs, method="hsci")
    with pytest.raises(ValueError, match="no method is called 'nothing at all'; there are: batchtopk, hsic"):
        ub.compare(runs, method="hsic", against="nothing at all")


def test_the_gate_as_a_table(runs):
    table = ub.gate(runs).set_index("metric")
    assert table.passed["f1"] and not table.passed["mcc"] and table.best_method["f1"] in ("hsic", "matryoshka")
    assert math.isnan(table.truth["f1"]) and "no truth" in table.not_tested["f1"]
    assert table.chance["f1"] == pytest.approx(0.2) and table.smallest_from["f1"].startswith("a third of Matryoshka")


def test_verdicts_as_a_table(runs):
    table = ub.verdicts(runs)
    assert list(table.tone)[0] == "yes" and list(table.tone)[1] in ("no", "undecided")
    assert list(table.columns) == ["claim", "d_sae", "source", "tone", "headline", "status"]
    assert set(table.status) == {"exploratory: no claim card was registered before the runs"}
