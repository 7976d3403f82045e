"""The validity gate: which scores tell good dictionaries from bad ones on a testbed, before any verdict.

A score counts on a testbed only if
    truth (or supervised probes, or the ceiling that its eval stores) > the best trained method
    a standard SAE > each control that was not trained (untrained, random, PCA), and > chance
each by a 95 % interval over seeds, and if the field's known facts about it come out: Matryoshka absorbs less than
BatchTopK (Bussmann et al. 2025), and explains less. Scores of reconstruction have their own ceiling (nothing left
unexplained) and need not be best for the truth, which sees no noise. What fails is listed and counts nowhere;
what could not be tested (a language model has no true directions) is said next to a pass.

It is enough that one standard SAE is shown to be better than a control; the level is corrected for their number (of
eight methods as bad as an untrained one, the best one's own interval is above it in one study of eight).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from unbraid.comparison.contrast import Contrast, against_constant, contrast
from unbraid.comparison.intervals import LEVEL, p_above
from unbraid.comparison.names import method_name
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Method, Scores, mean_value, standard_named, values_by_seed
from unbraid.comparison.wording import number, plural

RECONSTRUCTION = ("fvu", "loss_recovered", "ce_loss_score")
"""Scores that a dictionary made from the truth need not win."""


class Fact(NamedTuple):
    """A published fact about two standard SAEs, by one score."""

    better: str
    worse: str
    metric: str
    source: str


FACTS = (
    Fact("matryoshka", "batchtopk", "absorption_full", "arXiv 2503.17547"),
    Fact("batchtopk", "matryoshka", "fvu", "arXiv 2503.17547"),
)
"""First-letter absorption (SAEBench) is not among them: of the published dictionaries of 4,096 latents on pythia-160m
Matryoshka absorbs less at three sparsities of six; its loss recovered is the lower one at all of them."""


@dataclass(frozen=True)
class GateResult:
    """The outcome of the gate for one score."""

    metric: Quantity
    passed: bool
    reasons: tuple[str, ...]
    """Why it failed; empty when it passed."""
    untested: tuple[str, ...] = ()
    """What could not be tested because nothing was scored that would tell: such a pass shows less."""
    truth: float = math.nan
    best: float = math.nan
    best_method: str = ""
    untrained: float = math.nan
    """The best of the controls that were not trained."""
    untrained_method: str = ""
    chance: float = math.nan
    seeds: int = 0
    facts: tuple[str, ...] = ()
    """Known facts, and whether they came out."""
    truth_method: str = ""
    """What the value of the truth is of."""

    @property
    def sentence(self) -> str:
        """The outcome in one line."""
        said = "; ".join(self.reasons) or "; ".join(f"not tested: {what}" for what in self.untested)
        return f"{self.metric.name}: {'passed' if self.passed else 'failed'}" + (f" ({said})" if said else "")


class TruthLevel(NamedTuple):
    """The value that nothing trained without the truth should reach, and what reached it."""

    name: str = ""
    by_seed: Mapping[int, float] = {}
    value: float = math.nan


@dataclass(frozen=True)
class Check:
    """One inequality of the gate."""

    shown: bool | None
    """None when nothing was scored that would tell."""
    said: str
    """What was not shown, or not tested."""


def gate(scores: Scores, d_sae: int, metrics: Sequence[Quantity] | None = None) -> dict[Quantity, GateResult]:
    """Pass each score that has a direction through the gate, at one width."""
    wanted = [q for q in (scores.headline if metrics is None else metrics) if q.sign]
    return scores.cached(("gate", d_sae, tuple(wanted)), lambda: {q: gate_result(scores, d_sae, q) for q in wanted})


def gate_result(scores: Scores, d_sae: int, metric: Quantity) -> GateResult:
    """Pass one score through the gate."""
    trained = ranked(scores, [*scores.with_role("standard", d_sae), *scores.with_role("compared", d_sae)], metric)
    controls = scores.controls(d_sae)
    if not trained:
        return GateResult(metric, False, ("no trained method was scored",))
    best = trained[0]
    truth = truth_of(scores, d_sae, metric)
    trivial = [m for m in controls if m.trivial and values_by_seed(scores, m, metric)]
    untrained = best_of(scores, trivial, metric)
    known = as_given([m for m in trained if m.role == "standard"]) or trained
    checks = [
        against_truth(scores, best, truth, metric),
        *(against_trivial(scores, known, control, metric) for control in trivial),
        *([] if trivial else [Check(None, "no control that was not trained was scored")]),
        against_chance(scores, known, d_sae, metric),
    ]
    facts = [fact_check(scores, d_sae, fact, metric) for fact in FACTS if fact.metric == metric.metric]
    every = [*checks, *(check for check, _ in facts)]
    failed, untested = (tuple(check.said for check in every if check.shown is shown) for shown in (False, None))
    value = lambda m: mean_value(scores, m, metric)
    name = untrained.short if untrained else ""
    return GateResult(
        metric, not failed, failed, untested, truth.value, value(best), best.short, value(untrained), name,
        scores.chance(metric, d_sae), len(values_by_seed(scores, best, metric)), tuple(said for _, said in facts),
        truth.name,
    )  # fmt: skip


def truth_of(scores: Scores, d_sae: int, metric: Quantity) -> TruthLevel:
    """Return the better of two: the best control made from the truth, and the ceiling that the eval itself stores.

    A ceiling is needed where one latent a factor is not the best there can be: of a variable with many values a
    supervised subspace swaps more than any one probe.
    """
    control = best_of(scores, [m for m in scores.controls(d_sae) if m.sees_truth], metric)
    found = []
    if control is not None:
        by_seed = values_by_seed(scores, control, metric)
        found.append(TruthLevel(control.short, by_seed, mean_value(scores, control, metric)))
    if math.isfinite(ceiling := scores.ceiling(metric, d_sae)):
        seeds = {run.seed for method in scores.methods for run in method.runs}
        found.append(TruthLevel("the eval's ceiling", dict.fromkeys(seeds, ceiling), ceiling))
    return max(found, key=lambda level: metric.sign * level.value, default=TruthLevel())


def best_of(scores: Scores, methods: Sequence[Method], metric: Quantity) -> Method | None:
    """The method with the best mean over settings and seeds; None when none has the score."""
    return next(iter(ranked(scores, methods, metric)), None)


def ranked(scores: Scores, methods: Sequence[Method], metric: Quantity) -> list[Method]:
    """The methods that have the score, by their means over settings and seeds, best first."""
    known = [m for m in methods if values_by_seed(scores, m, metric)]
    return sorted(known, key=lambda m: -metric.sign * mean_value(scores, m, metric))


def as_given(methods: Sequence[Method]) -> list[Method]:
    """The standard SAEs as their study gives them: of one tried at several settings, the one whose name says none."""
    found: dict[tuple[str, str], Method] = {}
    for method in methods:
        key = (method.runs[0].summary.base or method.short, method.geometry)
        if key not in found or len(method.short) < len(found[key].short):
            found[key] = method
    return [m for m in methods if m in found.values()]


def against_truth(scores: Scores, best: Method, truth: TruthLevel, metric: Quantity) -> Check:
    """Check that the truth is better than the best method: else nothing is left to gain."""
    if metric.metric in RECONSTRUCTION:
        return Check(True, "")
    if not truth.by_seed:
        return Check(None, "no truth or supervised probes were scored")
    found = against_constant(scores, best, truth.by_seed, truth.name, metric)
    return Check(found.enough and found.tested.mean + found.tested.half < 0, unshown(found, "not shown to be below"))


def against_trivial(scores: Scores, trained: Sequence[Method], control: Method, metric: Quantity) -> Check:
    """Check that one of the trained methods, best first, is better than a control that was not trained."""
    return any_ahead([lambda m=m: against_control(scores, m, control, metric) for m in trained])


def against_control(scores: Scores, method: Method, control: Method, metric: Quantity) -> Contrast:
    """Compare a method with a control at the levels of L0 that both have, or else over all settings of each."""
    found = contrast(scores, method, control, metric)
    if found.n:
        return found
    return against_constant(scores, method, values_by_seed(scores, control, metric), control.short, metric)


def against_chance(scores: Scores, trained: Sequence[Method], d_sae: int, metric: Quantity) -> Check:
    """Check that one of the trained methods, best first, is better than chance, where an eval measures it."""
    chance = scores.chance(metric, d_sae)
    if not math.isfinite(chance):
        return Check(True, "")
    levels = lambda m: dict.fromkeys(values_by_seed(scores, m, metric), chance)
    return any_ahead([lambda m=m: against_constant(scores, m, levels(m), "chance", metric) for m in trained])


def any_ahead(contrasts: Sequence[Callable[[], Contrast]]) -> Check:
    """Check that one of these is ahead, at a level corrected for their number; the first is what a failure tells."""
    shown = any(is_ahead(compared(), len(contrasts)) for compared in contrasts)
    return Check(shown, "" if shown else unshown(contrasts[0](), "not shown to be better than"))


def is_ahead(found: Contrast, among: int = 1) -> bool:
    """True if the interval of the gain lies above 0, at a level corrected for being one of so many."""
    return found.enough and p_above(found.gains, 0.0) <= (1 - LEVEL) / 2 / among


def unshown(found: Contrast, relation: str) -> str:
    """Say what an inequality's interval did not show."""
    few = "" if found.enough else f" (no interval from {plural(found.n, 'seed')})"
    own, other = method_name(found.method), method_name(found.other)
    return f"{own} {number(found.value)} {relation} {other} {number(found.other_value)}{few}"


def fact_check(scores: Scores, d_sae: int, fact: Fact, metric: Quantity) -> tuple[Check, str]:
    """Check one known fact: whether it holds by an interval, with a sentence on what came out."""
    better, worse = (standard_named(scores, d_sae, name) for name in (fact.better, fact.worse))
    title = f"{method_name(fact.better)} better than {method_name(fact.worse)} ({fact.source})"
    if better is None or worse is None:
        return Check(None, f"the known fact that {title}"), f"{title}: not tried"
    found = contrast(scores, better, worse, metric)
    ends = f"{number(found.value)} against {number(found.other_value)}"
    if is_ahead(found):
        return Check(True, ""), f"{title}: came out, {ends}"
    turned = found.enough and found.tested.mean + found.tested.half < 0
    word = "came out the other way" if turned else "is not shown"
    return Check(False, f"a known fact {word}: {title}, {ends}"), f"{title}: {word}, {ends}"
