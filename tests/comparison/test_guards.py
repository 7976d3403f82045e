"""Guards: kept, broken, or not shown, the same for the side that gains and the side that loses."""

from dataclasses import replace

import pytest
from tests.comparison.hand_made import ABSORPTION, D_SAE, F1, Values, arranged, method

from unbraid.comparison.committed import quantity_of
from unbraid.comparison.contrast import contrast
from unbraid.comparison.guards import GUARDS, checked, guard_quantity, guarded, unmeasured_guards
from unbraid.comparison.judgement import Judgement, judge
from unbraid.comparison.scores import Scores

NOISE = (0.0, 0.01, -0.01, 0.005, -0.005, 0.008, -0.008, 0.002)


def side(f1: float, rare: float = 0.5, ratio: float = 1.0, noise: float = 0.0, **more: float) -> Values:
    """A method's scores; noise of the rare recall by seed, the same for all levels."""
    of = lambda seed, l0: {"f1": f1 + NOISE[seed] / 10, "recall_rarest": rare + noise * NOISE[seed], "l2_ratio": ratio}
    return lambda seed, l0: of(seed, l0) | {short: value + NOISE[seed] / 10 for short, value in more.items()}


def judged(own: Values, base: Values, metric=F1) -> tuple[Scores, Judgement]:
    scores = arranged({"batchtopk": base, "hsic": own}, seeds=range(len(NOISE)))
    found = judge([contrast(scores, method(scores, "hsic"), method(scores, "batchtopk"), metric)], {metric: 0.01})
    return scores, guarded(scores, found, {m.name: m for m in scores.methods})[0]


def test_a_gain_at_equal_guards_counts():
    _, found = judged(side(0.6), side(0.5))
    assert found.word == "materially better" and found.gained and not found.doubt


@pytest.mark.parametrize(("rare", "ratio", "said"), [(0.3, 1.0, "rare factors"), (0.5, 0.9, "reconstructions shrank")])
def test_a_gain_that_breaks_a_guard_is_void(rare: float, ratio: float, said: str):
    _, found = judged(side(0.6, rare, ratio), side(0.5))
    assert found.word == "void" and not found.gained and said in found.reason and "hsic broke a guard" in found.reason


def test_a_loss_to_a_base_that_breaks_a_guard_is_void():
    """The base is ahead, and is what gave rare factors up."""
    _, found = judged(side(0.5), side(0.6, rare=0.3))
    assert found.word == "void" and not found.lost and "batchtopk broke a guard" in found.reason


def test_the_side_that_is_behind_may_have_broken_anything():
    assert judged(side(0.6), side(0.5, rare=0.1))[1].gained
    assert judged(side(0.5, rare=0.1), side(0.6))[1].lost


def test_a_guard_that_is_not_shown_to_be_kept_leaves_a_gain_in_doubt():
    """A mean at the bound, with a spread: the word stands, and decides nothing."""
    _, found = judged(side(0.6, rare=0.45, noise=5.0), side(0.5))
    assert found.word == "materially better" and not found.gained and "not shown to keep a guard" in found.doubt
    _, found = judged(side(0.5), side(0.6, rare=0.45, noise=5.0))
    assert found.word == "materially worse" and not found.lost and found.doubt


def test_words_without_a_side_ahead_are_not_guarded():
    _, found = judged(side(0.5, rare=0.1), side(0.5))
    assert found.word == "equivalent" and not found.doubt


def test_ninety_per_cent_of_rare_recall_must_be_kept_and_no_more():
    for rare, outcome in ((0.46, "kept"), (0.44, "broken")):
        scores, _ = judged(side(0.6, rare, noise=0.1), side(0.5))
        found = checked(scores, method(scores, "hsic"), method(scores, "batchtopk"), F1)
        assert {c.guard.metric: c.outcome for c in found}["recall_by_frequency"] == outcome


def test_a_base_that_stretches_is_held_to_one():
    """Of |x_hat| / |x| = 1.2 a term must keep 95 % of 1, not of 1.2."""
    assert judged(side(0.6, ratio=0.98), side(0.5, ratio=1.2))[1].gained


def test_less_absorption_without_more_parents_decides_nothing():
    gain = side(0.5, absorption=0.1, recall_child=0.7), side(0.5, absorption=0.3, recall_child=0.7)
    found = judged(*gain, ABSORPTION)[1]
    assert found.word == "materially better" and "recall next to a child" in found.doubt and not found.gained
    fewer = side(0.5, absorption=0.1, recall_child=0.6), side(0.5, absorption=0.3, recall_child=0.7)
    assert judged(*fewer, ABSORPTION)[1].word == "void"
    more = side(0.5, absorption=0.1, recall_child=0.8), side(0.5, absorption=0.3, recall_child=0.7)
    assert judged(*more, ABSORPTION)[1].gained


def test_parents_are_no_guard_of_other_scores():
    assert judged(side(0.6, recall_child=0.2), side(0.5, recall_child=0.7))[1].gained


def test_a_score_is_no_guard_of_itself():
    rare = quantity_of("recall_rarest")
    scores, found = judged(side(0.5, rare=0.7), side(0.5, rare=0.5), rare)
    assert found.gained
    checks = checked(scores, method(scores, "hsic"), method(scores, "batchtopk"), rare)
    names = {c.guard.metric for c in checks}
    assert "recall_by_frequency" not in names


def test_guards_that_were_not_measured_are_named_and_void_nothing():
    scores = arranged({
        "batchtopk": lambda s, at: {"f1": 0.5 + 0.01 * s}, "hsic": lambda s, at: {"f1": 0.6 + 0.01 * s},
    })  # fmt: skip
    assert set(unmeasured_guards(scores)) >= {guard.metric for guard in GUARDS}
    found = judge([contrast(scores, method(scores, "hsic"), method(scores, "batchtopk"), F1)], {F1: 0.01})
    assert guarded(scores, found, {m.name: m for m in scores.methods})[0].gained
    assert scores.widths == [D_SAE]


def test_two_seeds_show_nothing_of_a_guard():
    for rare in (0.3, 0.5):
        scores = arranged({"batchtopk": side(0.5), "hsic": side(0.6, rare)}, seeds=range(2))
        found = checked(scores, method(scores, "hsic"), method(scores, "batchtopk"), F1)
        assert {c.guard.metric: c.outcome for c in found}["recall_by_frequency"] == "not shown"


def test_a_band_of_one_drawn_world_is_no_guard_of_the_others():
    scores, _ = judged(side(0.6), side(0.5))
    band = lambda text: replace(quantity_of("recall_rarest"), params=f"band {text}")
    common, rare = band("1e-2 to 1e-1"), band("1e-3 to 1e-2")
    runs = [run.run for m in scores.methods for run in m.runs]
    values = {**scores.values, common: dict.fromkeys(runs, 0.5), rare: {runs[0]: 0.5}}
    del values[quantity_of("recall_rarest")]
    scores = replace(scores, quantities=tuple(values), values=values)
    assert guard_quantity(scores, GUARDS[1]) == common
    values[rare] = dict.fromkeys(runs, 0.5)
    assert guard_quantity(scores, GUARDS[1]) == rare
