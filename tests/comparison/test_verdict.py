"""Verdicts: what primaries say of a term, and terms of a claim."""

import math

import pytest
from tests.comparison.hand_made import ABSORPTION, D_SAE, F1, Values, arranged, contrast_of, method

from unbraid.comparison.judgement import WORDS, Judgement, Word
from unbraid.comparison.verdict import SYMBOLS, TermVerdict, answer, headline_of

SCORES = arranged({"batchtopk": lambda s, at: {"f1": 0.5}, "hsic": lambda s, at: {"f1": 0.5}})


def said(word: Word, doubt: str = "", metric=F1) -> Judgement:
    return Judgement(contrast_of([0.1] * 3, metric), word, 0.1, 0.01, "holm", 2, "", doubt)


def term(*words: Word, doubt: str = "") -> TermVerdict:
    judged = [said(word, doubt, metric) for word, metric in zip(words, (F1, ABSORPTION), strict=False)]
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
