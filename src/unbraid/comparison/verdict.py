"""Comparisons in, plain sentences out: one per headline metric, and a verdict that claims no more than they do."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unbraid.comparison.compare import (
    AXES,
    Comparison,
    Point,
    Quantity,
    Role,
    Scores,
    against,
    best_at,
    compare,
    points,
    primary,
)
from unbraid.comparison.convergence import caveat, falls
from unbraid.comparison.guards import guarded
from unbraid.comparison.intervals import FEWEST_SEEDS
from unbraid.comparison.trivial import tempered, undertrained
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
    metric: Quantity
    word: str
    sentence: str
    elsewhere: str
    """How the named method does at the other points."""
    control: str
    control_warns: bool
    chance: str
    """Empty when the best method is above chance, or nobody says what chance is."""
    comparisons: list[Comparison]
    """All methods at the primary L0."""


@dataclass(frozen=True)
class Matrix:
    """Every compared method by every headline metric, at one point."""

    point: Point
    metrics: list[Quantity]
    rows: list[tuple[str, list[Comparison]]]


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one claim."""

    claim: str
    """Empty where nothing is compared."""
    tone: str
    """yes, no, mixed, same or unknown."""
    headline: str
    evidence: list[str]
    """By how much, and how sure."""
    profiles: list[str]
    """One sentence per method that is better or worse anywhere, or whose win is void."""
    caveat: str
    """What weakens the answer; empty when nothing is known to."""


@dataclass(frozen=True)
class Answer:
    """The answer for one width."""

    d_sae: int
    verdicts: list[Verdict]
    """One for each claim that a compared method is about; one where nothing is compared."""
    metrics: list[MetricAnswer]
    matrices: list[Matrix]
    all: list[Comparison]
    baselines: list[str]
    compared: list[str]


def answer(scores: Scores, d_sae: int) -> Answer:
    candidates = {axis: points(scores, axis, d_sae) for axis, _ in AXES}
    chosen = {axis: point for axis, found in candidates.items() if (point := primary(scores, found, d_sae)) is not None}
    metrics = [q for q in scores.headline if q.sign]
    everything = [
        comparison
        for found in candidates.values()
        for point in found
        for metric in metrics
        if metric != point.quantity
        for comparison in tempered(scores, guarded(scores, compare(scores, point, metric, d_sae)))
    ]
    matrices = [matrix(everything, point, metrics) for point in chosen.values()]
    start = chosen.get("L0")
    baselines, compared = ([m.name for m in scores.having(role, d_sae)] for role in ("standard", "compared"))
    answers = []
    if start is not None and compared:
        answers = [metric_answer(scores, metric, everything, start, d_sae) for metric in metrics]
    # What a penalty can move by itself, and what chance does as well, is shown, but is no evidence for an answer.
    mute = {m for m in metrics if m.diagnostic or below_chance(scores, m, everything)}
    shown = [c for m in matrices for _, row in m.rows for c in row if c.metric not in mute]
    counted = [c for c in everything if c.metric not in mute]
    about = {
        title: [m.name for m in scores.having("compared", d_sae) if m.claim == claim] for claim, title in CLAIMS.items()
    }
    asked = {title: methods for title, methods in about.items() if methods} or {"": []}
    obstacle, fell = undertrained(scores, d_sae) or all_missed(scores, d_sae), falls(scores)
    verdicts = [
        verdict(claim, baselines, methods, shown, counted, start, obstacle, caveat(fell, [*baselines, *methods]))
        for claim, methods in asked.items()
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
    """On one claim, by the methods that are about it. `obstacle`: why nothing can be said of any; `doubt`: what to
    know of an answer."""
    theirs = set(methods)
    own, everywhere = ([c for c in among if c.method in theirs] for among in (shown, counted))
    if obstacle:
        return Verdict(claim, "unknown", f"No answer: {obstacle}.", [], [], "")
    tone, headline = conclude(baselines, methods, own, everywhere, start)
    return Verdict(claim, tone, headline, evidence(own), profiles(own, methods), doubt)


def all_missed(scores: Scores, d_sae: int) -> str:
    """Says so when one side of the comparison has no run that reached its L0; else empty."""
    sides: tuple[tuple[Role, str], ...] = (("standard", "standard SAE"), ("compared", "compared method"))
    for role, name in sides:
        if any(m.role == role and m.d_sae == d_sae for m in scores.methods) and not scores.having(role, d_sae):
            return f"every {name} missed the L0 it was to be trained to, so there is nothing to match; train longer"
    return ""


def evidence(found: Sequence[Comparison]) -> list[str]:
    """How many comparisons went which way, and the clearest: the largest differences in units of their intervals."""
    words = ("better", "worse", "no difference shown", "void")
    sure = [c for c in found if c.word in words]
    if not sure:
        return []
    counts = {word: sum(c.word == word for c in sure) for word in words}
    said = [f"{count} {word}" for word, count in counts.items() if count or word in ("better", "worse")]
    lines = [f"Of {plural(len(sure), 'comparison')} at these points: {listed(said)}."]
    clear = lambda c: c.gain / max(c.difference.half, 1e-12)
    won, lost = ([c for c in sure if c.word == word] for word in ("better", "worse"))
    lines.append(f"{'Clearest gain' if won else 'Nearest to a gain'}: {in_full(max(won or sure, key=clear))}.")
    if lost:
        lines.append(f"Clearest loss: {in_full(min(lost, key=clear))}.")
    return lines


def in_full(c: Comparison) -> str:
    return (
        f"{c.method}, {c.metric.label} {number(c.value)} against {number(c.baseline_value)} of {c.baseline} at "
        f"{c.point.axis} {number(c.point.at)}, difference {change(c.difference)}, {seeds(c.difference)}"
        f"{'' if c.word in ('better', 'worse') else f' ({c.note or c.word})'}"
    )


def matrix(everything: Sequence[Comparison], point: Point, metrics: Sequence[Quantity]) -> Matrix:
    here = {(c.method, c.metric): c for c in everything if c.point == point}
    columns = [m for m in metrics if m != point.quantity]
    names = sorted({name for name, _ in here})
    rows = [(name, [here[name, m] for m in columns if (name, m) in here]) for name in names]
    return Matrix(point, columns, rows)


def metric_answer(
    scores: Scores, metric: Quantity, everything: Sequence[Comparison], point: Point, d_sae: int
) -> MetricAnswer:
    here = [c for c in everything if c.metric == metric and c.point == point]
    order = ("not comparable", "no verdict", "no interval", "worse", "no difference shown", "void", "better")
    best = max(here, key=lambda c: (order.index(c.word), c.gain if math.isfinite(c.gain) else -math.inf))
    control, warns = control_check(scores, metric, point, d_sae)
    said = sentence(best, here), elsewhere(best, everything), control, warns, below_chance(scores, metric, everything)
    return MetricAnswer(metric, best.word, *said, here)


def sentence(best: Comparison, here: Sequence[Comparison]) -> str:
    if best.word == "not comparable":
        reasons = dict.fromkeys(c.note for c in here)
        return f"Not comparable: {best.method}: {best.note}." if len(reasons) == 1 else (
            f"Not comparable, for any of {plural(len(here), 'method')}; {best.method}, for one: {best.note}."
        )  # fmt: skip
    where = f"at {best.point.axis} {number(best.point.at)}"
    values = f"{number(best.value)} against {number(best.baseline_value)}"
    tail = f" ({best.note})" if best.note and best.word != "no interval" else ""
    evidence = f"{values}, difference {change(best.difference)}, {seeds(best.difference)}{tail}"
    baseline = f"{best.baseline}, the best standard SAE"
    count = sum(c.word != "not comparable" for c in here)
    among = f"{best.method}, the best of {count} compared methods" if count > 1 else best.method
    if best.word == "better":
        return f"{best.method} is better than {baseline}, {where}: {evidence}."
    if best.word == "worse":
        return f"Worse: even {among}, is behind {baseline}, {where}: {evidence}."
    if best.word == "no verdict":
        return f"No verdict {where}: {best.note}. {among} has {values}."
    if best.word == "void":
        return f"Void: {best.method} is ahead of {baseline}, {where}: {evidence}."
    if best.word == "no interval":
        values = f"has {number(best.value)} {where}, and {baseline}, {number(best.baseline_value)}"
        return f"{best.note}, so no claim: {among}, {values}."
    return f"No difference shown between {among}, and {baseline}, {where}: {evidence}."


def elsewhere(best: Comparison, everything: Sequence[Comparison]) -> str:
    others = [c for c in everything if c.metric == best.metric and c.method == best.method and c.point != best.point]
    order = ("better", "void", "no difference shown", "worse", "no verdict", "no interval", "not comparable")
    parts = []
    for word in order:
        said = [at_points(word, axis, [c for c in others if c.point.axis == axis]) for axis, _ in AXES]
        if any(said):
            parts.append(f"{word} at {listed([s for s in said if s])}")
    return f"Same method elsewhere: {'; '.join(parts)}." if parts else ""


def at_points(word: str, axis: str, among: Sequence[Comparison]) -> str:
    """L0 16 and 64; where there are many, 5 of 6 matched L0."""
    found = [number(c.point.at) for c in among if c.word == word]
    if len(found) > 3:
        return f"{len(found)} of {len(among)} matched {axis}"
    return f"{axis} {listed(found)}" if found else ""


def control_check(scores: Scores, metric: Quantity, point: Point, d_sae: int) -> tuple[str, bool]:
    """What the best control reaches, and whether the best method fails to beat it."""
    control = best_at(scores, scores.having("control"), point, metric)
    methods = [*scores.having("standard", d_sae), *scores.having("compared", d_sae)]
    best = best_at(scores, methods, point, metric)
    if control is None or best is None:
        return f"No control was measured at this {point.axis}.", False
    found = against(scores, best, control, point, metric)
    if found.word == "better" or (found.word == "no interval" and found.gain > 0):
        return f"Best control: {control.name}, {number(found.baseline_value)}.", False
    if not math.isfinite(found.gain):
        return f"Best control: {control.name}; {found.note}.", False
    if found.word == "no interval":
        ahead = f"{number(found.baseline_value)}, ahead of every method ({found.note})"
        return f"Best control: {control.name}, {ahead}.", True
    better = "is better than" if found.word == "worse" else "is not shown to be worse than"
    return (
        f"The control {control.name} ({number(found.baseline_value)}) {better} the best method here, {best.name} "
        f"({number(found.value)}): this score says little about the methods at this {point.axis}."
    ), True


def below_chance(scores: Scores, metric: Quantity, everything: Sequence[Comparison]) -> str:
    """Says so when chance is as good as the best method of either side at any matched point."""
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
    lines = []
    rows: dict[tuple[str, Point], list[Comparison]] = {}
    for c in found:
        rows.setdefault((c.method, c.point), []).append(c)
    points_of = dict.fromkeys(c.point for c in found)
    for name in names:
        parts = []
        for point in points_of:
            row = rows.get((name, point), [])
            on = {word: [c.metric.label for c in row if c.word == word] for word in ("better", "void", "worse")}
            said = [f"{word} on {listed(labels)}" for word, labels in on.items() if labels]
            if said:
                parts.append(f"at {point.axis} {number(point.at)} {', '.join(said)}")
        if parts:
            lines.append(f"{name}: {'; '.join(parts)}.")
    return lines


def conclude(
    baselines: Sequence[str],
    compared: Sequence[str],
    found: Sequence[Comparison],
    everything: Sequence[Comparison],
    start: Point | None,
) -> tuple[str, str]:
    """Tone and sentence. Only methods that are better at the headline points (`found`) and worse at no matched point at
    all (`everything`) make a yes: else the choice of a point would choose the answer."""
    if why := nothing_to_say(baselines, compared, found, start):
        return "unknown", f"No answer yet: {why}."
    where = listed([f"{axis} {number(at)}" for axis, at in dict.fromkeys((c.point.axis, c.point.at) for c in found)])
    words: dict[str, set[str]] = {name: set() for name in compared}
    for c in found:
        if c.method in words:
            words[c.method].add(c.word)
    for c in everything:
        if c.word == "worse" and "better" in words.get(c.method, ()):
            words[c.method].add("worse")
    winners = [name for name, said in words.items() if "better" in said and "worse" not in said]
    mixed = [name for name, said in words.items() if {"better", "worse"} <= said]
    losers = [name for name, said in words.items() if "worse" in said and "better" not in said]
    voided = [name for name, said in words.items() if "void" in said]
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


def nothing_to_say(
    baselines: Sequence[str], compared: Sequence[str], found: Sequence[Comparison], start: Point | None
) -> str:
    """Why there is no answer; empty when there is one."""
    if not baselines:
        return "no standard SAE was run, so there is nothing to compare with"
    if not compared:
        return "only standard SAEs were run, so there is nothing to compare with them"
    if start is None:
        return "no standard SAE has an L0 score, so nothing can be matched"
    if not found:
        return "no headline score was measured"
    if all(c.word == "not comparable" for c in found):
        return "no compared method could be matched with a baseline"
    unsaid = ("not comparable", "no verdict", "no interval")
    if all(c.word in unsaid for c in found) and any(c.word == "no verdict" for c in found):
        return "on no score that counts are standard SAEs shown to be better than controls that were not trained"
    if all(c.word in unsaid for c in found):
        most = max(c.difference.n for c in found)
        return f"too little data: {plural(most, 'seed')}, and fewer than {FEWEST_SEEDS} give no interval"
    return ""
