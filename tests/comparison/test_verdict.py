"""Verdicts: what primaries say of a term, and terms of a claim."""

import math
from dataclasses import replace

import pytest
from tests.comparison.hand_made import ABSORPTION, D_SAE, F1, Values, arranged, contrast_of, method

from unbraid.comparison.committed import scores_of_rows
from unbraid.comparison.gate import gate
from unbraid.comparison.judgement import WORDS, Judgement, Word
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.rows import named_pair
from unbraid.comparison.scores import dose
from unbraid.comparison.verdict import SYMBOLS, Rules, TermVerdict, answer, headline_of
from unbraid.comparison.wording import number

SCORES = arranged({"batchtopk": lambda s, at: {"f1": 0.5}, "hsic": lambda s, at: {"f1": 0.5}})


def said(word: Word, doubt: str = "", metric=F1, sd: float = 0.0) -> Judgement:
    return Judgement(contrast_of([0.1 - sd, 0.1, 0.1 + sd], metric), word, 0.1, 0.01, "holm", 2, "", doubt)


def term(*words: Word, doubt: str = "", sd: float = 0.0) -> TermVerdict:
    judged = [said(word, doubt, metric, sd) for word, metric in zip(words, (F1, ABSORPTION), strict=False)]
    return TermVerdict(method(SCORES, "hsic"), method(SCORES, "batchtopk"), judged, (), math.nan)


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (("better", "equivalent"), "better"), (("materially better", "undecided"), "better"),
        (("better", "void"), "better"), (("better", "worse"), "mixed"), (("equivalent", "equivalent"), "equivalent"),
        (("worse", "worse"), "worse"), (("materially worse", "equivalent"), "no gain"),
        (("undecided", "equivalent"), "undecided"), (("worse", "undecided"), "undecided"),
        (("void", "equivalent"), "undecided"), (("not compared", "equivalent"), "undecided"),
    ],
)  # fmt: skip
def test_outcomes_of_a_term(words: tuple[Word, Word], outcome: str):
    assert term(*words).outcome == outcome


def test_what_is_in_doubt_decides_nothing():
    assert term("better", "equivalent", doubt="a guard is not shown to be kept").outcome == "undecided"
    assert term("worse", "equivalent", doubt="a guard is not shown to be kept").outcome == "undecided"


@pytest.mark.parametrize(
    ("terms", "tone"),
    [
        ([("better", "equivalent"), ("worse", "worse")], "yes"), ([("better", "worse"), ("worse", "worse")], "mixed"),
        ([("equivalent", "equivalent"), ("worse", "equivalent")], "no"),
        ([("equivalent", "equivalent"), ("undecided", "equivalent")], "undecided"),
        ([("void", "worse"), ("worse", "worse")], "undecided"),
        ([("better", "worse"), ("undecided", "worse")], "mixed"),
    ],
)  # fmt: skip
def test_the_answer_to_a_claim(terms: list[tuple[Word, Word]], tone: str):
    assert headline_of([term(*words) for words in terms], [F1, ABSORPTION])[0] == tone


def test_a_yes_says_no_more_of_the_other_terms_than_they_show():
    won, both, same = term("better", "equivalent"), term("better", "worse"), term("equivalent", "equivalent")
    said = lambda *terms: headline_of(terms, [F1, ABSORPTION])[1]
    assert said(won, same).endswith("; the other 1 term is not.")
    assert said(won, both, same).endswith("; of the other 2 terms 1 is better by one primary and worse by another.")


def test_an_undecided_claim_says_what_each_of_its_terms_could_have_found():
    quiet, noisy = term("undecided", sd=0.1), term("undecided", sd=0.2)
    sizes = [number(t.primaries[0].could_find) for t in (quiet, noisy)]
    headline = lambda *terms: headline_of(terms, [F1])[1]
    assert f"a difference of {sizes[0]} to {sizes[1]}, by term, in {F1.name} (the smallest" in headline(noisy, quiet)
    assert f"a difference of {sizes[0]} in {F1.name} (the smallest of interest is 0.100)" in headline(quiet)


def test_a_no_says_within_what_and_nothing_where_no_smallest_effect_is_known():
    lost = term("worse", "worse")
    unknown = replace(lost, primaries=[replace(j, smallest=math.nan) for j in lost.primaries])
    headline = lambda *terms: headline_of(terms, [F1, ABSORPTION])[1]
    within = f"by {F1.name} (±0.100) and {ABSORPTION.name} (±0.100)."
    assert headline(lost) == f"No: the one term is equivalent to its base, or worse, {within}"
    assert headline(lost, lost) == f"No: each of 2 terms is equivalent to its base, or worse, {within}"
    assert headline(unknown).endswith(f"by {F1.name} and {ABSORPTION.name}.")


def test_a_card_about_another_claim_than_the_runs_are_is_no_answer():
    (found,) = answer(SCORES, D_SAE, Rules(only=2, registered="on 2026-01-01 as forest.toml")).verdicts
    assert found.tone == "unknown" and "no method here is evidence for claim 2" in found.headline
    assert found.status == "registered on 2026-01-01 as forest.toml"


def test_a_primary_that_was_not_measured_is_named():
    rows = lambda gain: lambda s, at: {"f1": 0.5 + gain + WIGGLE[s]}
    untrained = lambda s, at: {"f1": 0.1 + WIGGLE[s]}
    scores = arranged({"batchtopk": rows(0), "hsic": rows(0.1), "untrained": untrained}, seeds=range(5))
    (verdict,) = answer(scores, D_SAE).verdicts
    assert "Not counted: full absorption: not measured." in verdict.evidence


def test_a_dose_is_that_of_the_methods_own_penalty():
    doses = [Quantity("dose", "dose", f"term {name}") for name in ("a", "z", "z2")]
    hsic = method(SCORES, "hsic").runs
    values = {doses[0]: {"another": 0.9}, doses[1]: {hsic[0].run: 0.2}, doses[2]: {hsic[0].run: 0.4}}
    scores = replace(SCORES, quantities=(*SCORES.quantities, *doses), values={**SCORES.values, **values})
    assert dose(scores, method(scores, "hsic")) == pytest.approx(0.3)
    assert math.isnan(dose(scores, method(scores, "batchtopk")))


def test_chance_and_controls_are_those_of_the_width():
    rows = [
        {"world": "hand", "method": name, "asked": 4.0, "d_sae": width, "seed": 0, "l0": 4.0, "f1": 0.1, "control": c}
        for name, c in (("batchtopk", False), ("untrained", True))
        for width in (8, 16)
    ]
    scores = scores_of_rows(rows)
    chance = replace(F1, kind="chance")
    values = {chance: {run.run: run.d_sae / 100 for m in scores.methods for run in m.runs}}
    scores = replace(scores, quantities=(*scores.quantities, chance), values={**scores.values, **values})
    assert (scores.chance(F1, 8), scores.chance(F1, 16)) == (0.08, 0.16)
    assert gate(scores, 8, [F1])[F1].chance == 0.08
    for width in (8, 16):
        pair = named_pair(scores, width, "untrained", "batchtopk")
        assert pair is not None and pair[0].d_sae == pair[1].d_sae == width


def test_every_word_has_its_symbol():
    assert set(SYMBOLS) == set(WORDS)


WIGGLE = (0.0, 0.004, -0.004, 0.002, -0.002)


def at(f1: float, turn: int = 0) -> Values:
    return lambda seed, l0: {"f1": f1 + WIGGLE[(seed + turn) % 5], "l2_ratio": 1.0}


def test_a_score_that_fails_the_gate_decides_nothing():
    methods = {"batchtopk": at(0.5), "hsic": at(0.7, 1), "truth": at(0.9, 2), "untrained": at(0.5, 3)}
    found = answer(arranged(methods, seeds=range(5)), D_SAE).verdicts[0]
    assert found.tone == "unknown" and "no primary passed its controls here" in found.headline
    found = answer(arranged(methods | {"untrained": at(0.1, 3)}, seeds=range(5)), D_SAE).verdicts[0]
    assert found.tone == "yes" and "exploratory" in found.status


def test_no_baseline_or_nothing_to_judge_is_no_answer():
    for methods, why in (({"hsic": at(0.5)}, "no standard SAE was run"), ({"topk": at(0.5)}, "only standard SAEs")):
        found = answer(arranged(methods, seeds=range(5)), D_SAE).verdicts[0]
        assert found.tone == "unknown" and why in found.headline
