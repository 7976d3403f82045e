"""The judging itself: placebos, planted gains, guards and the gate on a few simulated studies each.

The full run is docs/results/procedure.json (python -m benchmarks.procedure). Streams are fixed, so rates are too; the
bounds are far from them (four standard errors and more), so that a change of streams would pass as well.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.procedure import TABLE, line_of, rate, row_of, run, scenarios, table
from benchmarks.simulated import D_SAE, FOREST, Study, simulated
from scipy import stats

from unbraid.comparison.contrast import contrast
from unbraid.comparison.verdict import paired_with_bases

ROWS = Path(__file__).parents[2] / "docs" / "results" / "procedure.json"
EVERY = {scenario.key: scenario for scenario in scenarios()}


def rates(name: str, seeds: int = 10, studies: int = 24) -> dict[str, float]:
    row = row_of(EVERY[name, seeds], studies)
    return {event: of["rate"] for event, of in row["events"].items()}


def test_simulated_scores_have_the_truth_that_was_asked_for():
    """Means and spreads of D, and that pairing removes what a seed's runs share."""
    study = Study(terms=2, seeds=400, gains={"term-2": {"f1": 2.0, "absorption": 1.0}})
    scores = simulated(study, np.random.default_rng(0))
    pairs, _ = paired_with_bases(scores, D_SAE)
    for (own, base), planted in zip(pairs, ({}, {"f1": 2.0, "absorption": 1.0}), strict=True):
        for short in ("f1", "absorption", "recall_rarest"):
            quantity = next(q for q in scores.quantities if q.metric.startswith(METRICS[short]))
            found = contrast(scores, own, base, quantity)
            spread = FOREST[short].spread
            assert found.gain / spread == pytest.approx(planted.get(short, 0.0), abs=0.2)
            assert found.tested.sd / spread == pytest.approx(1.0, abs=0.15)


METRICS = {"f1": "f1", "absorption": "absorption_full", "recall_rarest": "recall_by_frequency"}


@pytest.mark.parametrize("noise", ["t3", "skewed up", "skewed down"])
def test_other_noise_has_mean_0_and_variance_1(noise: Any):
    scores = simulated(Study(seeds=4000, noise=noise, alone=True, l0=(4.0,)), np.random.default_rng(0))
    (own, base), *_ = paired_with_bases(scores, D_SAE)[0]
    found = contrast(scores, own, base, next(q for q in scores.quantities if q.metric == "f1"))
    assert found.gain / 0.01 == pytest.approx(0, abs=0.08) and found.tested.sd / 0.01 == pytest.approx(1, abs=0.25)


def test_a_placebo_is_equivalent_or_undecided():
    found = rates("placebo, one term, the gate taken as passed", studies=40)
    assert found["null: equivalent"] > 0.6 and found["null: better"] < 0.1 and found["claim: yes"] < 0.15


def test_a_placebo_passes_the_gate_and_is_judged_as_a_report_does():
    found = rates("placebo, one term", studies=6)
    assert found["claim: no answer"] == 0 and found["claim: yes"] < 0.5


def test_five_placebos_by_two_primaries_are_no_yes():
    found = rates("placebo, five terms")
    assert found["claim: yes"] < 0.15 and found["null: any better"] < 0.2


def test_three_seeds_decide_nothing():
    found = rates("placebo, eleven terms", seeds=3, studies=20)
    assert found["claim: undecided"] > 0.8 and found["claim: no"] == 0


def test_a_planted_gain_of_two_is_found():
    found = rates("gain of two, one term, one primary", studies=40)
    assert found["planted: better"] > 0.9 and found["planted: materially better"] > 0.5
    assert rates("gain of two, one term, one primary", seeds=16, studies=40)["planted: materially better"] > 0.8


def test_a_planted_gain_of_one_is_no_no():
    found = rates("gain of one, all of five terms")
    assert found["claim: no"] == 0 and found["claim: yes"] > 0.5


def test_guards_void_what_gave_rare_factors_up_and_nothing_else():
    for side, counted in (("gain", "better"), ("loss", "worse")):
        given_up = rates(f"guard, {side}, rare recall given up, forest")
        assert given_up["planted: void"] > 0.8 and given_up[f"planted: {counted}"] < 0.1
        equal = rates(f"guard, {side}, rare recall equal, forest")
        assert equal["planted: void"] < 0.1 and equal[f"planted: {counted}"] > 0.8


def test_the_gate_stops_scores_that_tell_nothing_and_passes_those_that_do():
    assert rates("gate, untrained equals 8 trained")["passed"] < 0.2
    assert rates("gate, a valid score, 3 spreads apart")["passed"] > 0.8
    assert rates("gate, truth equals 8 trained")["passed"] < 0.2


def test_all_standard_saes_are_beaten_only_by_what_beats_the_best():
    assert rates("against all, equals the best")["beats all"] < 0.25
    assert rates("against all, by two")["beats all"] > 0.8


@pytest.mark.parametrize("noise", ["normal", "t3"])
def test_symmetric_noise_keeps_the_level_of_t_and_of_flips(noise: str):
    found = rates(f"noise {noise}, gain of 0", studies=100)
    assert all(found[event] < 0.12 for event in ("better", "worse", "better by flips", "worse by flips"))


def test_rows_are_made_once_and_kept_in_order(tmp_path, capsys):
    out = tmp_path / "rows.json"
    first = run(out, "noise normal", 3)
    assert "noise normal, gain of 0" in capsys.readouterr().out
    assert run(out, "noise normal", 3) == first and not capsys.readouterr().out
    run(out, "placebo, one term, the gate", 2)
    names = [row["scenario"] for row in json.loads(out.read_text())]
    assert names[0].startswith("placebo") and len(names) == len(first) + 1
    assert "| noise normal, gain of 0 | 10 | 3 |" in table(first) and line_of(first[0]).startswith("noise normal")


def test_rates_have_exact_intervals():
    for hits in (0, 7, 400):
        found, expected = rate(hits, 400, 400), stats.binomtest(hits, 400).proportion_ci(0.95, "exact")
        assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=1e-4)
    # Ten contrasts a study share its base: they tell as much as one.
    assert rate(70, 4000, 400)["high"] == rate(7, 400, 400)["high"]


def test_the_documentation_shows_the_committed_rates():
    page = ROWS.parents[1] / "judging.md"
    assert set(TABLE) <= {name for name, _ in EVERY}
    assert table(json.loads(ROWS.read_text())) in page.read_text(), "python -m benchmarks.procedure table"


def test_committed_rows_are_of_the_scenarios_and_keep_what_is_asked():
    found = {(row["scenario"], row["seeds"]): row for row in json.loads(ROWS.read_text())}
    assert set(found) == set(EVERY)
    for key, row in found.items():
        assert row["studies"] == EVERY[key].studies and set(row["must"]) == set(EVERY[key].must)
    missed = {(name, event) for (name, _), row in found.items() for event, of in row["must"].items() if not of["met"]}
    # Of skewed differences no t-test keeps its level on both sides, nor do flips of signs: docs/judging.md.
    assert all(name.startswith("noise skewed") for name, _ in missed)


def test_a_study_can_be_drawn_again():
    study = Study(terms=1)
    one, two, other = (simulated(s, np.random.default_rng(i)) for s, i in ((study, 0), (replace(study), 0), (study, 1)))
    assert one.values == two.values and one.values != other.values
