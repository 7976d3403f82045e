"""Verdicts: what a claim's primaries say of its terms, each against its own base, and no more than they say.

    yes         some term is better by a primary, and worse by none
    mixed       terms that are better by one primary are worse by another
    no          every term is equivalent to its base, or worse, by every primary
    undecided   everything else, with the effect that could have been found
    no answer   nothing could be compared, or no primary passed the gate

Primaries are those of a registered claim card; without one, PRIMARIES, and the verdict is exploratory.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from unbraid.comparison.contrast import contrast
from unbraid.comparison.convergence import caveat, falls
from unbraid.comparison.gate import GateResult, gate
from unbraid.comparison.guards import guarded
from unbraid.comparison.judgement import Correction, Judgement, judge
from unbraid.comparison.names import method_name, score_name
from unbraid.comparison.opponents import AgainstAll, against_all
from unbraid.comparison.quantities import AXES, PRIMARIES, Quantity, ScoreSelector
from unbraid.comparison.scores import Method, Role, Scores, dose, own_base, standard_named
from unbraid.comparison.smallest_effect import REFERENCE, SmallestEffect, smallest_effects
from unbraid.comparison.wording import listed, number, plural
from unbraid.dictionary.initialisation import Claim

CLAIMS: dict[Claim, str] = {
    1: "Claim 1: objectives from the disentanglement literature",
    2: "Claim 2: MELBO and DCT objectives, latents as knobs",
}
SYMBOLS = {
    "materially better": "▲▲",
    "better": "▲",
    "equivalent": "≈",
    "undecided": "?",
    "worse": "▼",
    "materially worse": "▼▼",
    "void": "⊘",
    "not compared": "–",
}
Tone = Literal["yes", "mixed", "no", "undecided", "unknown"]
LITTLE = 0.1
"""Dose below which a null says little of the term."""
MOST_NAMED = 3
"""Largest number of methods that a headline names."""


@dataclass(frozen=True)
class Rules:
    """Rules that are set before a verdict is drawn: by a registered card, or by default."""

    primaries: Mapping[Claim, Sequence[Sequence[ScoreSelector]]] = field(default_factory=lambda: PRIMARIES)
    """By claim, each primary as the selectors of which the first that was measured counts."""
    smallest: Mapping[Quantity, SmallestEffect] | None = None
    """Smallest effects of interest; None: from the scores themselves."""
    gate: Mapping[Quantity, GateResult] | None = None
    """What passed on calibration seeds; None: the gate is passed by the scores themselves."""
    registered: str = ""
    """When, and as what, the claim was registered; empty when it was not."""
    prediction: str = ""
    """What the card expected."""
    only: Claim | None = None
    """The only claim to answer."""
    methods: Sequence[str] = ("*",)
    """Patterns of the methods that claims are judged by."""
    departures: Sequence[str] = ()
    """What departs from the registration: any makes the verdict exploratory."""
    notes: Sequence[str] = ()
    """What else to know of the registration."""


@dataclass(frozen=True)
class TermVerdict:
    """The say of the primaries on one method against its own base."""

    method: Method
    base: Method
    primaries: Sequence[Judgement]
    against_all: Sequence[AgainstAll]
    dose: float
    """The share of its own target that the term reached; NaN where it was not scored."""

    @cached_property
    def outcome(self) -> Literal["better", "mixed", "worse", "equivalent", "undecided", "no gain"]:
        """The outcome over the primaries."""
        won, lost = ([j for j in self.primaries if test(j)] for test in (lambda j: j.gained, lambda j: j.lost))
        same = [j for j in self.primaries if j.word == "equivalent"]
        if won:
            return "mixed" if lost else "better"
        if len(same) == len(self.primaries):
            return "equivalent"
        if len(lost) + len(same) == len(self.primaries):
            return "no gain" if same else "worse"
        return "undecided"


@dataclass(frozen=True)
class Verdict:
    """The answer to one claim at one width."""

    claim: str
    tone: Tone
    headline: str
    status: str
    """registered or exploratory, with what departs from it."""
    terms: Sequence[TermVerdict] = ()
    evidence: Sequence[str] = ()
    """Sentences on single terms, on every standard SAE, and on power."""
    caveat: str = ""
    """What weakens the answer; empty when nothing does."""
    uncounted: Mapping[str, str] = field(default_factory=dict)
    """Primaries that decide nothing here, by name, each with the reason in a word or two."""


@dataclass(frozen=True)
class Answer:
    """Everything that was judged at one width of one testbed."""

    d_sae: int
    verdicts: Sequence[Verdict]
    gate: Sequence[GateResult]
    smallest: Mapping[Quantity, SmallestEffect]
    exploratory: Sequence[Judgement]
    """Every method against its own base by every score that passed, at equal L0, FVU and bits: with q-values."""
    standards: Sequence[Judgement]
    """The standard SAEs against BatchTopK: what the judge says of architectures whose differences are known."""
    baselines: Sequence[str]
    compared: Sequence[str]
    orphans: Sequence[str]
    """Methods without a base: compared with standard SAEs alone."""


def answer(scores: Scores, d_sae: int, rules: Rules | None = None) -> Answer:
    """Judge all methods of a width, and draw the verdict on each claim that they are evidence for."""
    rules = rules or Rules()
    passed = dict(rules.gate) if rules.gate is not None else gate(scores, d_sae)
    smallest = dict(rules.smallest) if rules.smallest is not None else smallest_effects(scores, d_sae)
    every, orphans = paired_with_bases(scores, d_sae)
    pairs = [pair for pair in every if pair[0].named(rules.methods)]
    standard, compared = ([m.short for m in scores.with_role(role, d_sae)] for role in ("standard", "compared"))
    claims: list[Claim] = [
        claim for claim in CLAIMS if rules.only in (None, claim) and any(m.claim == claim for m, _ in pairs)
    ]
    obstacle = reason_for_no_answer(scores, d_sae, pairs, passed)
    drawn = [verdict(scores, claim, [p for p in pairs if p[0].claim == claim], rules, passed, smallest, obstacle)
             for claim in claims]  # fmt: skip
    if not drawn:
        why = obstacle or f"no method here is evidence for claim {rules.only}"
        drawn = [Verdict("", "unknown", f"No answer yet: {why}.", status_of(rules) if rules.registered else "")]
    return Answer(
        d_sae, drawn, list(passed.values()), smallest, exploratory(scores, every, passed, smallest),
        standards(scores, d_sae, smallest), standard, compared, [m.short for m in orphans],
    )  # fmt: skip


Pair = tuple[Method, Method]


def paired_with_bases(scores: Scores, d_sae: int) -> tuple[list[Pair], list[Method]]:
    """Each compared method with its own base, and the methods that have none."""
    pairs, orphans = [], []
    for method in scores.with_role("compared", d_sae):
        base = own_base(scores, method)
        if base is None:
            orphans.append(method)
        else:
            pairs.append((method, base))
    return pairs, orphans


def reason_for_no_answer(
    scores: Scores, d_sae: int, pairs: Sequence[Pair], passed: Mapping[Quantity, GateResult]
) -> str:
    """Why no claim can be answered; empty when one can be."""
    sides: tuple[tuple[Role, str], ...] = (("standard", "standard SAE"), ("compared", "compared method"))
    for role, name in sides:
        if any(m.role == role and m.d_sae == d_sae for m in scores.methods) and not scores.with_role(role, d_sae):
            return f"every {name} missed its target L0, so there is nothing to match; train longer"
    if not scores.with_role("standard", d_sae):
        return "no standard SAE was run, so there is nothing to compare with"
    if not scores.with_role("compared", d_sae):
        return "only standard SAEs were run, so there is nothing to compare with them"
    if not pairs:
        return "no compared method is a standard SAE of this study with a term added"
    fvu = next((r for q, r in passed.items() if q.metric == "fvu"), None)
    if fvu is not None and fvu.untrained_method and not fvu.best < fvu.untrained:
        return (
            f"undertrained: {fvu.untrained_method}, which was not trained, explains more (FVU {number(fvu.untrained)}) "
            f"than every SAE (best: {fvu.best_method}, {number(fvu.best)}); train longer"
        )
    return ""


def primaries_of(scores: Scores, claim: Claim, rules: Rules) -> list[Quantity]:
    """The primaries of a claim that were measured."""
    found = [scores.find(*line) for line in rules.primaries.get(claim, ())]
    return list(dict.fromkeys(q for q in found if q is not None and q.sign))


def unmeasured(rules: Rules, claim: Claim, primaries: Sequence[Quantity], passed: Mapping[Quantity, GateResult]) -> str:
    """Why a registered claim cannot be answered by all its primaries; empty when it can, or none was registered."""
    if not rules.registered:
        return ""
    wanted = [line[0] for line in rules.primaries.get(claim, ())]
    if len(primaries) < len(wanted):
        missing = [f"{s.eval}.{s.metric}" for s in wanted if not any(q.metric == s.metric for q in primaries)]
        return f"the runs lack the registered primary {listed(missing)}; score them by it"
    if strange := [q.label for q in primaries if q not in passed]:
        return f"{listed(strange)} is not the score that was registered (of other params); score the runs again"
    return ""


def verdict(
    scores: Scores, claim: Claim, pairs: Sequence[Pair], rules: Rules, passed: Mapping[Quantity, GateResult],
    smallest: Mapping[Quantity, SmallestEffect], obstacle: str,
) -> Verdict:  # fmt: skip
    """Answer one claim by its methods and primaries."""
    title, status = CLAIMS[claim], status_of(rules)
    primaries = primaries_of(scores, claim, rules)
    counted = [q for q in primaries if q in passed and passed[q].passed]
    obstacle = obstacle or unmeasured(rules, claim, primaries, passed)
    failed: list[str] = []
    if not counted and not obstacle:
        failed = [f"{passed[q].sentence}." for q in primaries if q in passed]
        obstacle = "no primary passed its controls here" if failed else "none of its primaries was measured"
    if obstacle:
        return Verdict(title, "unknown", f"No answer: {obstacle}.", status, evidence=failed)
    judged = judge_primaries(scores, pairs, counted, smallest)
    terms = [
        TermVerdict(own, base, js, [against_all(scores, own, q) for q in counted], dose(scores, own))
        for (own, base), js in zip(pairs, judged, strict=True)
    ]
    names = [m.short for pair in pairs for m in pair]
    uncounted = {q.name: "did not pass the gate" for q in primaries if q not in counted and q in passed}
    absent = [line for line in rules.primaries.get(claim, ()) if scores.find(*line) is None]
    uncounted |= {score_name(line[0].metric): "not measured" for line in absent}
    left = [passed[q].sentence for q in primaries if q.name in uncounted and q in passed]
    left += [f"{score_name(line[0].metric)}: not measured" for line in absent]
    tone, headline = headline_of(terms, counted)
    predicted = [f"Predicted by the claim card: {rules.prediction}"] if rules.prediction else []
    lines = [*predicted, *evidence(terms), *([f"Not counted: {'; '.join(left)}."] if left else [])]
    return Verdict(
        title, tone, headline, status, terms, lines, caveat(falls(scores), list(dict.fromkeys(names))), uncounted
    )


def judge_primaries(
    scores: Scores, pairs: Sequence[Pair], primaries: Sequence[Quantity], smallest: Mapping[Quantity, SmallestEffect]
) -> list[list[Judgement]]:
    """Judge terms x primaries as one family; one list per term."""
    found = judge_pairs(scores, pairs, primaries, smallest, correction="holm")
    width = len(primaries)
    return [found[i : i + width] for i in range(0, len(found), width)]


def judge_pairs(
    scores: Scores, pairs: Sequence[Pair], metrics: Sequence[Quantity], smallest: Mapping[Quantity, SmallestEffect], *,
    axis: str = "L0", correction: Correction = "q",
) -> list[Judgement]:  # fmt: skip
    """Judge every pair by every score as one family, with guards."""
    contrasts = [contrast(scores, own, other, q, axis) for own, other in pairs for q in metrics]
    found = judge(contrasts, {q: effect.value for q, effect in smallest.items()}, correction=correction)
    return guarded(scores, found, {m.short: m for pair in pairs for m in pair})


def status_of(rules: Rules) -> str:
    """Say whether a verdict was registered."""
    if not rules.registered:
        return "exploratory: no claim card was registered before the runs"
    kept = "registered" if not rules.departures else "exploratory, though registered"
    return "; ".join([f"{kept} {rules.registered}", *rules.departures, *rules.notes])


def headline_of(terms: Sequence[TermVerdict], primaries: Sequence[Quantity]) -> tuple[Tone, str]:
    """The tone and the sentence of a verdict."""
    winners, mixed, undecided = ([t for t in terms if t.outcome == o] for o in ("better", "mixed", "undecided"))
    if winners:
        others = len(terms) - len(winners)
        rest = f"; the other {plural(others, 'term')} {'is' if others == 1 else 'are'} not" if others else ""
        if mixed:
            rest = (
                f"; of the other {plural(others, 'term')} {len(mixed)} {'is' if len(mixed) == 1 else 'are'} better by "
            )
            rest += "one primary and worse by another"
        return "yes", f"Yes: {'; '.join(gains_by(winners, q) for q in primaries if gained(winners, q))}{rest}."
    if mixed:
        verb = "is" if len(mixed) == 1 else "are each"
        names = listed([t.method.title for t in mixed])
        return "mixed", f"It depends: {names} {verb} better than the base by one primary and worse by another."
    if undecided:
        return "undecided", f"Undecided: {could_find(terms)}"
    within = listed(list(dict.fromkeys(smallest_text(j) for t in terms for j in t.primaries)))
    which = "the one term" if len(terms) == 1 else f"each of {len(terms)} terms"
    return "no", f"No: {which} is equivalent to its base, or worse, by {within}."


def gained(terms: Sequence[TermVerdict], metric: Quantity) -> list[TermVerdict]:
    """The terms that are better by a score."""
    return [t for t in terms if any(j.gained and j.metric == metric for j in t.primaries)]


def gains_by(terms: Sequence[TermVerdict], metric: Quantity) -> str:
    """Say which terms are better than their bases by a score: by name, or of many the number."""
    found = gained(terms, metric)
    words = {j.word for t in found for j in t.primaries if j.metric == metric}
    size = "materially better" if words == {"materially better"} else "better"
    if "better" in words:
        size += ", not all materially," if "materially better" in words else ", not shown to be materially so,"
    who = listed([t.method.title for t in found]) if len(found) <= MOST_NAMED else plural(len(found), "term")
    one = len(found) == 1
    return f"{who} {'is' if one else 'are'} {size} than {'its base' if one else 'their bases'} by {metric.name}"


def smallest_text(found: Judgement) -> str:
    """A score with its smallest effect of interest where one is known, as in "F1 (±0.02)"."""
    return found.metric.name + (f" (±{number(found.smallest)})" if math.isfinite(found.smallest) else "")


def could_find(terms: Sequence[TermVerdict]) -> str:
    """Say what effect an undecided claim could have seen, from the least to the most noisy term, score by score, next
    to the one of interest."""
    parts = []
    for metric in dict.fromkeys(j.metric for t in terms for j in t.primaries):
        here = [j for t in terms for j in t.primaries if j.metric == metric]
        found = sorted(j.could_find for j in here if math.isfinite(j.could_find))
        if not found:
            parts.append(f"none in {metric.name} (too few seeds for an interval)")
            continue
        wanted = here[0].smallest
        known = math.isfinite(wanted)
        beside = f"the smallest of interest is {number(wanted)}" if known else "no smallest of interest is known"
        least, most = number(found[0]), number(found[-1])
        size = least if least == most else f"{least} to {most}, by term,"
        parts.append(f"{size} in {metric.name} ({beside})")
    return f"these seeds could have found a difference of {listed(parts)}."


def evidence(terms: Sequence[TermVerdict]) -> list[str]:
    """Say what was found of every term, and which beat every standard SAE."""
    outcomes = ("better", "mixed", "equivalent", "no gain", "undecided", "worse")
    counts = {o: [t.method.title for t in terms if t.outcome == o] for o in outcomes}
    lines = [f"{plural(len(terms), 'term')}: " + "; ".join(
        f"{len(names)} {outcome}{f' ({listed(names)})' if len(names) <= 4 else ''}"
        for outcome, names in counts.items() if names) + "."]  # fmt: skip
    known = [t for t in terms if math.isfinite(t.dose)]
    if known:
        said = ", ".join(f"{t.method.title} {t.dose:.0%}".replace(" -", " −") for t in known[:8])
        more = f" and {len(known) - 8} more" if len(known) > 8 else ""
        lines.append(f"Dose, the share of its own target that a term reached: {said}{more}.")
        if idle := [t.method.title for t in known if abs(t.dose) < LITTLE and t.outcome != "better"]:
            more = f" and {len(idle) - MOST_NAMED} more" if len(idle) > MOST_NAMED else ""
            lines.append(
                f"Of {listed(idle[:MOST_NAMED])}{more} this says little: the dose is below {LITTLE:.0%}, so what the "
                "term asks for was hardly tried."
            )
    winners: dict[tuple[str, str], list[str]] = {}
    for found in (a for t in terms for a in t.against_all if a.beats_all):
        winners.setdefault((found.metric.name, listed([*map(method_name, found.opponents)])), []).append(
            method_name(found.method)
        )
    said = [f"{listed(names)}, by {metric}, each of {opponents}" for (metric, opponents), names in winners.items()]
    lines.append(f"Shown to beat every standard SAE: {'; '.join(said) or 'none'}.")
    return lines


def exploratory(
    scores: Scores, pairs: Sequence[Pair], passed: Mapping[Quantity, GateResult],
    smallest: Mapping[Quantity, SmallestEffect],
) -> list[Judgement]:  # fmt: skip
    """Judge every pair by every score that passed, one family an axis."""
    metrics = [q for q, result in passed.items() if result.passed]
    return [
        j
        for axis, compared in by_axis(scores, metrics)
        for j in judge_pairs(scores, pairs, compared, smallest, axis=axis)
    ]


def by_axis(scores: Scores, metrics: Sequence[Quantity]) -> Iterator[tuple[str, list[Quantity]]]:
    """Each axis that was measured, with the scores that can be compared along it."""
    for axis, selector in AXES:
        if (x := scores.find(selector)) is not None:
            yield axis, [q for q in metrics if q != x]


def standards(scores: Scores, d_sae: int, smallest: Mapping[Quantity, SmallestEffect]) -> list[Judgement]:
    """Judge each standard SAE against BatchTopK: a judge that cannot tell these apart could tell nothing apart."""
    base = standard_named(scores, d_sae, REFERENCE)
    if base is None:
        return []
    pairs = [(m, base) for m in scores.with_role("standard", d_sae) if m.short != base.short]
    return judge_pairs(scores, pairs, [q for q in scores.headline if q.sign], smallest)
