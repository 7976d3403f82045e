"""Verdicts: comparisons become one sentence per headline metric, and an answer that claims no more than they do."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unbraid.comparison.compare import (
    Comparison,
    Point,
    Role,
    Scores,
    best_method,
    compare,
    compare_pair,
    points,
    primary_point,
)
from unbraid.comparison.convergence import caveat, falls
from unbraid.comparison.guards import apply_guards
from unbraid.comparison.intervals import FEWEST_SEEDS
from unbraid.comparison.quantities import AXES, Quantity
from unbraid.comparison.trivial import undertrained, withhold_verdicts
from unbraid.comparison.wording import change, listed, number, plural, seeds
from unbraid.dictionary.initialisation import Claim

CLAIMS: dict[Claim, str] = {
    1: "Claim 1: objectives from the disentanglement literature",
    2: "Claim 2: MELBO and DCT objectives, latents as knobs",
}
SYMBOLS = {
    "better": "▲",
    "void": "⊘",
    "worse": "▼",
    "no difference shown": "≈",
    "no verdict": "∅",
    "no interval": "?",
    "not comparable": "–",
}


@dataclass(frozen=True)
class MetricAnswer:
    """The answer for one headline metric."""

    metric: Quantity
    outcome: str
    sentence: str
    elsewhere: str
    """The named method's outcomes at the other points."""
    control: str
    control_warns: bool
    chance: str
    """A warning that chance does as well; empty when the best method is above chance, or chance is unknown."""
    comparisons: list[Comparison]
    """All methods at the primary L0."""


@dataclass(frozen=True)
class Matrix:
    """The comparisons of every method by every headline metric, at one point."""

    point: Point
    metrics: list[Quantity]
    rows: list[tuple[str, list[Comparison]]]


@dataclass(frozen=True)
class Verdict:
    """The answer to one claim."""

    claim: str
    """Empty where nothing is compared."""
    tone: str
    """yes, no, mixed, same or unknown."""
    headline: str
    evidence: list[str]
    """Sentences on the size and certainty of differences."""
    profiles: list[str]
    """One sentence per method that is better or worse anywhere, or whose win is void."""
    caveat: str
    """A sentence on what weakens the answer; empty when nothing does."""


@dataclass(frozen=True)
class Answer:
    """The answer for one width."""

    d_sae: int
    verdicts: list[Verdict]
    """One verdict per claim that a compared method is evidence for; a single one where nothing is compared."""
    metrics: list[MetricAnswer]
    matrices: list[Matrix]
    all: list[Comparison]
    baselines: list[str]
    compared: list[str]


def answer(scores: Scores, d_sae: int) -> Answer:
    """Compare all methods of a width and draw the verdicts."""
    candidates = {axis: points(scores, axis, d_sae) for axis, _ in AXES}
    chosen = {
        axis: point for axis, found in candidates.items() if (point := primary_point(scores, found, d_sae)) is not None
    }
    metrics = [q for q in scores.headline if q.sign]
    everything = [
        comparison
        for found in candidates.values()
        for point in found
        for metric in metrics
        if metric != point.quantity
        for comparison in withhold_verdicts(scores, apply_guards(scores, compare(scores, point, metric, d_sae)))
    ]
    matrices = [matrix(everything, point, metrics) for point in chosen.values()]
    start = chosen.get("L0")
    baselines, compared = ([m.name for m in scores.with_role(role, d_sae)] for role in ("standard", "compared"))
    answers = []
    if start is not None and compared:
        answers = [metric_answer(scores, metric, everything, start, d_sae) for metric in metrics]
    # Metrics that a penalty can set by itself, and those at which chance does as well, are shown but not counted.
    not_counted = {m for m in metrics if m.diagnostic or below_chance(scores, m, everything)}
    shown = [c for m in matrices for _, row in m.rows for c in row if c.metric not in not_counted]
    counted = [c for c in everything if c.metric not in not_counted]
    about = {
        title: [m.name for m in scores.with_role("compared", d_sae) if m.claim == claim]
        for claim, title in CLAIMS.items()
    }
    present = {title: methods for title, methods in about.items() if methods} or {"": []}
    obstacle, fell = undertrained(scores, d_sae) or all_missed(scores, d_sae), falls(scores)
    verdicts = [
        verdict(claim, baselines, methods, shown, counted, start, obstacle, caveat(fell, [*baselines, *methods]))
        for claim, methods in present.items()
    ]
    return Answer(d_sae, verdicts, answers, matrices, everything, baselines, compared)


def verdict(
    claim: str,
    baselines: Sequence[str],
    methods: Sequence[str],
    shown: Sequence[Comparison],
    counted: Sequence[Comparison],
    start: Point | None,
    obstacle: str,
    doubt: str,
) -> Verdict:
    """Answer one claim by the methods that are evidence for it.

    `obstacle`: why no claim can be answered, or empty; `doubt`: the caveat of an answer, or empty.
    """
    theirs = set(methods)
    own, everywhere = ([c for c in among if c.method in theirs] for among in (shown, counted))
    if obstacle:
        return Verdict(claim, "unknown", f"No answer: {obstacle}.", [], [], "")
    tone, headline = verdict_sentence(baselines, methods, own, everywhere, start)
    return Verdict(claim, tone, headline, evidence(own), profiles(own, methods), doubt)


def all_missed(scores: Scores, d_sae: int) -> str:
    """Say that one side of the comparison has no run that reached its L0; empty when both have one."""
    sides: tuple[tuple[Role, str], ...] = (("standard", "standard SAE"), ("compared", "compared method"))
    for role, name in sides:
        if any(m.role == role and m.d_sae == d_sae for m in scores.methods) and not scores.with_role(role, d_sae):
            return f"every {name} missed its target L0, so there is nothing to match; train longer"
    return ""


def evidence(found: Sequence[Comparison]) -> list[str]:
    """Count the outcomes, and describe the clearest: the largest differences in units of their intervals."""
    outcomes = ("better", "worse", "no difference shown", "void")
    sure = [c for c in found if c.outcome in outcomes]
    if not sure:
        return []
    counts = {outcome: sum(c.outcome == outcome for c in sure) for outcome in outcomes}
    said = [f"{count} {outcome}" for outcome, count in counts.items() if count or outcome in ("better", "worse")]
    lines = [f"Of {plural(len(sure), 'comparison')} at these points: {listed(said)}."]
    clear = lambda c: c.gain / max(c.difference.half, 1e-12)
    won, lost = ([c for c in sure if c.outcome == outcome] for outcome in ("better", "worse"))
    lines.append(f"{'Clearest gain' if won else 'Nearest to a gain'}: {in_full(max(won or sure, key=clear))}.")
    if lost:
        lines.append(f"Clearest loss: {in_full(min(lost, key=clear))}.")
    return lines


def in_full(c: Comparison) -> str:
    """Describe a comparison with all its numbers."""
    return (
        f"{c.method}, {c.metric.label} {number(c.value)} against {number(c.baseline_value)} of {c.baseline} at "
        f"{c.point.axis} {number(c.point.at)}, difference {change(c.difference)}, {seeds(c.difference)}"
        f"{'' if c.outcome in ('better', 'worse') else f' ({c.note or c.outcome})'}"
    )


def matrix(everything: Sequence[Comparison], point: Point, metrics: Sequence[Quantity]) -> Matrix:
    """Arrange the comparisons at one point by method and metric."""
    here = {(c.method, c.metric): c for c in everything if c.point == point}
    columns = [m for m in metrics if m != point.quantity]
    names = sorted({name for name, _ in here})
    rows = [(name, [here[name, m] for m in columns if (name, m) in here]) for name in names]
    return Matrix(point, columns, rows)


def metric_answer(
    scores: Scores, metric: Quantity, everything: Sequence[Comparison], point: Point, d_sae: int
) -> MetricAnswer:
    """Answer for one metric at the headline point, by the best of the compared methods."""
    here = [c for c in everything if c.metric == metric and c.point == point]
    order = ("not comparable", "no verdict", "no interval", "worse", "no difference shown", "void", "better")
    best = max(here, key=lambda c: (order.index(c.outcome), c.gain if math.isfinite(c.gain) else -math.inf))
    control, warns = control_check(scores, metric, point, d_sae)
    said = sentence(best, here), elsewhere(best, everything), control, warns, below_chance(scores, metric, everything)
    return MetricAnswer(metric, best.outcome, *said, here)


def sentence(best: Comparison, here: Sequence[Comparison]) -> str:
    """State the outcome of the best compared method in one sentence. `here`: all methods at that point."""
    if best.outcome == "not comparable":
        reasons = dict.fromkeys(c.note for c in here)
        return f"Not comparable: {best.method}: {best.note}." if len(reasons) == 1 else (
            f"Not comparable, for any of {plural(len(here), 'method')}; {best.method}, for one: {best.note}."
        )  # fmt: skip
    where = f"at {best.point.axis} {number(best.point.at)}"
    values = f"{number(best.value)} against {number(best.baseline_value)}"
    tail = f" ({best.note})" if best.note and best.outcome != "no interval" else ""
    evidence = f"{values}, difference {change(best.difference)}, {seeds(best.difference)}{tail}"
    baseline = f"{best.baseline}, the best standard SAE"
    count = sum(c.outcome != "not comparable" for c in here)
    among = f"{best.method}, the best of {count} compared methods" if count > 1 else best.method
    if best.outcome == "better":
        return f"{best.method} is better than {baseline}, {where}: {evidence}."
    if best.outcome == "worse":
        return f"Worse: even {among}, is behind {baseline}, {where}: {evidence}."
    if best.outcome == "no verdict":
        return f"No verdict {where}: {best.note}. {among} has {values}."
    if best.outcome == "void":
        return f"Void: {best.method} is ahead of {baseline}, {where}: {evidence}."
    if best.outcome == "no interval":
        values = f"has {number(best.value)} {where}, and {baseline}, {number(best.baseline_value)}"
        return f"{best.note}, so no claim: {among}, {values}."
    return f"No difference shown between {among}, and {baseline}, {where}: {evidence}."


def elsewhere(best: Comparison, everything: Sequence[Comparison]) -> str:
    """State the outcomes of the same method at the other points; empty when there are none."""
    others = [c for c in everything if c.metric == best.metric and c.method == best.method and c.point != best.point]
    order = ("better", "void", "no difference shown", "worse", "no verdict", "no interval", "not comparable")
    parts = []
    for outcome in order:
        said = [at_points(outcome, axis, [c for c in others if c.point.axis == axis]) for axis, _ in AXES]
        if any(said):
            parts.append(f"{outcome} at {listed([s for s in said if s])}")
    return f"Same method elsewhere: {'; '.join(parts)}." if parts else ""


def at_points(outcome: str, axis: str, among: Sequence[Comparison]) -> str:
    """List the points with an outcome, as in "L0 16 and 64", or of many "5 of 6 matched L0"; empty when none has."""
    found = [number(c.point.at) for c in among if c.outcome == outcome]
    if len(found) > 3:
        return f"{len(found)} of {len(among)} matched {axis}"
    return f"{axis} {listed(found)}" if found else ""


def control_check(scores: Scores, metric: Quantity, point: Point, d_sae: int) -> tuple[str, bool]:
    """Say what the best control reaches; the second value is True when the best method is not better."""
    control = best_method(scores, scores.with_role("control"), point, metric)
    methods = [*scores.with_role("standard", d_sae), *scores.with_role("compared", d_sae)]
    best = best_method(scores, methods, point, metric)
    if control is None or best is None:
        return f"No control was measured at this {point.axis}.", False
    found = compare_pair(scores, best, control, point, metric)
    if found.outcome == "better" or (found.outcome == "no interval" and found.gain > 0):
        return f"Best control: {control.name}, {number(found.baseline_value)}.", False
    if not math.isfinite(found.gain):
        return f"Best control: {control.name}; {found.note}.", False
    if found.outcome == "no interval":
        ahead = f"{number(found.baseline_value)}, ahead of every method ({found.note})"
        return f"Best control: {control.name}, {ahead}.", True
    better = "is better than" if found.outcome == "worse" else "is not shown to be worse than"
    return (
        f"The control {control.name} ({number(found.baseline_value)}) {better} the best method here, {best.name} "
        f"({number(found.value)}): this score says little about the methods at this {point.axis}."
    ), True


def below_chance(scores: Scores, metric: Quantity, everything: Sequence[Comparison]) -> str:
    """Say that chance is as good as the best method of either side at every matched point; else empty."""
    chance = scores.chance(metric)
    of_both = [value for c in everything if c.metric == metric for value in (c.value, c.baseline_value)]
    values = [value for value in of_both if math.isfinite(value)]
    if not math.isfinite(chance) or not values:
        return ""
    best = max(values, key=lambda value: metric.sign * value)
    if metric.sign * (best - chance) > 0:
        return ""
    return f"Chance ({number(chance)}) is as good as the best method ({number(best)}): this score shows nothing here."


def profiles(found: Sequence[Comparison], names: Sequence[str]) -> list[str]:
    """Describe each method that is better, void or worse anywhere, in one sentence."""
    lines = []
    rows: dict[tuple[str, Point], list[Comparison]] = {}
    for c in found:
        rows.setdefault((c.method, c.point), []).append(c)
    points_of = dict.fromkeys(c.point for c in found)
    for name in names:
        parts = []
        for point in points_of:
            row = rows.get((name, point), [])
            on = {
                outcome: [c.metric.label for c in row if c.outcome == outcome]
                for outcome in ("better", "void", "worse")
            }
            said = [f"{outcome} on {listed(labels)}" for outcome, labels in on.items() if labels]
            if said:
                parts.append(f"at {point.axis} {number(point.at)} {', '.join(said)}")
        if parts:
            lines.append(f"{name}: {'; '.join(parts)}.")
    return lines


def verdict_sentence(
    baselines: Sequence[str],
    compared: Sequence[str],
    found: Sequence[Comparison],
    everything: Sequence[Comparison],
    start: Point | None,
) -> tuple[str, str]:
    """Return the tone and the sentence of the verdict.

    Only methods that are better at the headline points (`found`) and worse at no matched point (`everything`) give a
    yes: otherwise the choice of the point would decide the answer.
    """
    if why := reason_for_no_verdict(baselines, compared, found, start):
        return "unknown", f"No answer yet: {why}."
    where = listed([f"{axis} {number(at)}" for axis, at in dict.fromkeys((c.point.axis, c.point.at) for c in found)])
    outcomes: dict[str, set[str]] = {name: set() for name in compared}
    for c in found:
        if c.method in outcomes:
            outcomes[c.method].add(c.outcome)
    for c in everything:
        if c.outcome == "worse" and "better" in outcomes.get(c.method, ()):
            outcomes[c.method].add("worse")
    winners = [name for name, said in outcomes.items() if "better" in said and "worse" not in said]
    mixed = [name for name, said in outcomes.items() if {"better", "worse"} <= said]
    losers = [name for name, said in outcomes.items() if "worse" in said and "better" not in said]
    voided = [name for name, said in outcomes.items() if "void" in said]
    matched = f"at matched {where}"
    is_better = "has a win that counts" if voided else "is better"
    over = "over" if voided else "than"
    void = f" Wins of {listed(voided)} are void; the cards say why." if voided else ""
    if winners:
        verb = "is" if len(winners) == 1 else "are each"
        return "yes", (
            f"Yes, on what was measured here: {matched}, {listed(winners)} {verb} better than the best standard "
            f"SAE on some headline score, and worse on none at any matched point.{void}"
        )
    if mixed:
        verb = "is" if len(mixed) == 1 else "are"
        said = f"{matched}, {listed(mixed)} {verb} better than the best standard SAE on some headline score, and worse"
        return "mixed", f"It depends: {said} on another, or at another matched point.{void}"
    if losers:
        verb = "is" if len(losers) == 1 else "are"
        return "no", (
            f"No: {matched}, no compared method {is_better} {over} the best standard SAE on any headline score, "
            f"and {listed(losers)} {verb} worse on some.{void}"
        )
    if voided:
        return "same", (
            f"No win that counts: {matched}, no compared method has one over the best standard SAE, and none is worse "
            f"on any headline score.{void}"
        )
    return "same", (
        f"No difference shown: {matched}, no compared method is better or worse than the best standard SAE "
        "on any headline score. That is no proof of equality; the intervals say what is still possible."
    )


def reason_for_no_verdict(
    baselines: Sequence[str], compared: Sequence[str], found: Sequence[Comparison], start: Point | None
) -> str:
    """The reason why there is no answer; empty when there is one."""
    if not baselines:
        return "no standard SAE was run, so there is nothing to compare with"
    if not compared:
        return "only standard SAEs were run, so there is nothing to compare with them"
    if start is None:
        return "no standard SAE has an L0 score, so nothing can be matched"
    if not found:
        return "no headline score was measured"
    if all(c.outcome == "not comparable" for c in found):
        return "no compared method could be matched with a baseline"
    undecided = ("not comparable", "no verdict", "no interval")
    if all(c.outcome in undecided for c in found) and any(c.outcome == "no verdict" for c in found):
        return "on no score that counts are standard SAEs shown to be better than controls that were not trained"
    if all(c.outcome in undecided for c in found):
        most = max(c.difference.n for c in found)
        return f"too little data: {plural(most, 'seed')}, and fewer than {FEWEST_SEEDS} give no interval"
    return ""
