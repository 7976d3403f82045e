"""The gate: what passes, what fails and why, and what could not be tested."""

import math
from dataclasses import replace

import pytest
from tests.comparison.hand_made import ABSORPTION, D_SAE, F1, FVU, Values, arranged, with_level

from unbraid.comparison.gate import GateResult, gate

SEEDS = range(5)
WIGGLE = (0.0, 0.01, -0.01, 0.005, -0.005)


def at(value: float, turn: int = 0, score: str = "f1") -> Values:
    """A score by seed, with a wiggle that differs by method."""
    return lambda seed, l0: {score: value + WIGGLE[(seed + turn) % 5]}


def passed(best=0.6, truth=1.0, untrained=0.1, **more: Values) -> GateResult:
    methods = {"batchtopk": at(best), "truth": at(truth, 1), "untrained": at(untrained, 2)} | more
    return gate(arranged(methods, seeds=SEEDS), D_SAE, [F1])[F1]


def test_a_score_that_orders_truth_methods_and_controls_passes():
    found = passed()
    assert found.passed and not found.reasons and not found.untested
    assert (found.best_method, found.untrained_method, found.seeds) == ("batchtopk", "untrained", 5)
    assert (found.truth, found.best, found.untrained) == pytest.approx((1.0, 0.6, 0.1))
    assert found.sentence == f"{F1.name}: passed" and math.isnan(found.chance)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"untrained": 0.6}, "BatchTopK 0.600 not shown to be better than untrained 0.600"),
        ({"untrained": 0.8}, "not shown to be better than untrained"),
        ({"truth": 0.6}, "not shown to be below truth"), ({"truth": 0.3}, "not shown to be below truth"),
    ],
)  # fmt: skip
def test_a_score_that_does_not_order_them_fails_and_says_so(values: dict[str, float], said: str):
    found = passed(0.6, values.get("truth", 1.0), values.get("untrained", 0.1))
    assert not found.passed and said in "; ".join(found.reasons) and found.sentence.startswith(f"{F1.name}: failed (")


def test_terms_do_not_show_it():
    """A testbed is not made valid by what is to be tested on it."""
    assert not passed(0.1, 2.0, 0.1, hsic=at(0.7, 1)).passed


def test_every_untrained_control_must_be_beaten():
    found = passed(0.6, 1.0, 0.1, pca=at(0.6, 3))
    assert not found.passed and found.untrained_method == "pca"


def test_the_best_of_many_is_held_to_a_stricter_level():
    """A gap that one method shows by its own interval is not shown by the luckiest of six standard SAEs."""
    others = {name: at(0.5, 1) for name in ("topk", "relu", "jumprelu", "mdl", "matryoshka")}
    assert passed(0.6, untrained=0.6 - 0.0155).passed
    assert not passed(0.6, 1.0, 0.6 - 0.0155, **others).passed


def test_any_standard_sae_may_show_it():
    """The best one by its mean is the noisiest: what another shows beyond doubt counts."""
    noisy = lambda seed, l0: {"f1": 0.7 + 0.3 * (-1) ** seed}
    found = passed(0.6, 2.0, 0.1, topk=noisy)
    assert found.best_method == "topk" and found.passed


def test_what_was_not_scored_is_not_tested_and_said():
    found = gate(arranged({"batchtopk": at(0.6)}, seeds=SEEDS), D_SAE, [F1])[F1]
    assert found.passed and len(found.untested) == 2
    assert "no truth or supervised probes" in found.sentence and "no control" in found.sentence


def test_two_seeds_pass_nothing():
    scores = arranged({"batchtopk": at(0.6), "truth": at(1.0), "untrained": at(0.1)}, seeds=range(2))
    found = gate(scores, D_SAE, [F1])[F1]
    assert not found.passed and "no interval from 2 seeds" in found.sentence


def test_a_score_that_no_method_has_fails():
    scores = arranged({"batchtopk": at(0.6), "untrained": at(0.1)}, seeds=SEEDS)
    assert gate(scores, D_SAE, [FVU])[FVU].reasons == ("no trained method was scored",)


def test_the_truth_need_not_reconstruct_best():
    methods = {"batchtopk": at(0.05, 0, "fvu"), "truth": at(0.2, 1, "fvu"), "untrained": at(0.9, 2, "fvu")}
    found = gate(arranged(methods, seeds=SEEDS), D_SAE, [FVU])[FVU]
    assert found.passed and "BatchTopK better than Matryoshka" in "; ".join(found.untested)


@pytest.mark.parametrize(
    ("matryoshka", "word"), [(0.1, "came out,"), (0.3, "is not shown"), (0.5, "came out the other way")]
)
def test_known_facts_must_come_out(matryoshka: float, word: str):
    methods = {
        "batchtopk": at(0.3, 0, "absorption"), "matryoshka": at(matryoshka, 1, "absorption"),
        "truth": at(0.0, 2, "absorption"), "untrained": at(0.9, 3, "absorption"),
    }  # fmt: skip
    found = gate(arranged(methods, seeds=SEEDS), D_SAE, [ABSORPTION])[ABSORPTION]
    assert found.passed == (matryoshka == 0.1) and word in found.facts[0]


def test_scores_without_a_direction_are_not_asked():
    scores = arranged({"batchtopk": at(0.6)}, seeds=SEEDS)
    l0 = scores.l0
    assert l0 is not None and gate(scores, D_SAE, [l0]) == {}


def test_the_ceiling_of_an_eval_stands_for_the_truth_where_probes_are_worse():
    methods = {"batchtopk": at(0.6), "truth": at(0.5, 1), "untrained": at(0.1, 2)}
    scores = arranged(methods, seeds=SEEDS)
    assert not gate(scores, D_SAE, [F1])[F1].passed
    of_eval = with_level(scores, replace(F1, kind="ceiling"), 0.9)
    found = gate(of_eval, D_SAE, [F1])[F1]
    assert found.passed and found.truth == pytest.approx(0.9)
    lower = gate(with_level(scores, replace(F1, kind="ceiling"), 0.55), D_SAE, [F1])[F1]
    assert not lower.passed and "not shown to be below the eval's ceiling 0.550" in lower.sentence
    better = {**methods, "truth": at(0.95, 1)}
    known = gate(with_level(arranged(better, seeds=SEEDS), replace(F1, kind="ceiling"), 0.9), D_SAE, [F1])[F1]
    assert known.truth == pytest.approx(0.95)


def test_a_level_is_of_scores_that_have_all_of_its_params():
    four = replace(F1, params="directions latents, error kept, n 4")
    scores = with_level(arranged({"batchtopk": at(0.6)}, seeds=SEEDS), four, 0.6)
    for params, known in (("", True), ("error kept, n 4", True), ("error kept, n 16", False)):
        there = with_level(scores, replace(F1, kind="chance", params=params), 0.3)
        assert math.isfinite(there.chance(four)) is known
        assert math.isnan(there.ceiling(four))
    fewer, very = replace(F1, kind="chance", params="error kept"), replace(four, kind="chance")
    assert with_level(with_level(scores, fewer, 0.3), very, 0.5).chance(four) == pytest.approx(0.5)
