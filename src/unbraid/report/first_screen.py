"""The first screen: a claim a row, with a sentence, a picture testbed by testbed, and what was not tested."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unbraid.comparison.gate import GateResult
from unbraid.comparison.judgement import Judgement
from unbraid.comparison.names import capital, method_name
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.verdict import Answer, Tone, Verdict
from unbraid.comparison.wording import listed, number, plural
from unbraid.report.forest_plot import ForestPlot, forest_plot, reach_of
from unbraid.report.gate_figure import scale_of
from unbraid.report.limitations import Limitation
from unbraid.report.over_testbeds import Over, over_testbeds_of
from unbraid.report.places import Places

QUESTIONS = {
    "Claim 1": "Do objectives from the disentanglement literature give better latents?",
    "Claim 2": "Do objectives from MELBO and DCT, which treat latents as knobs, give better ones?",
}
TONES: Mapping[Tone, str] = {
    "yes": "Yes", "mixed": "It depends", "no": "No", "undecided": "Undecided", "unknown": "No answer",
}  # fmt: skip
MOST_GATES = 2
"""Largest number of scores whose gate is drawn where there is nothing else to draw."""


@dataclass(frozen=True)
class GateLane:
    """A score that decides nothing here, from what was not trained to the truth."""

    metric: Quantity
    passed: bool
    marks: list[tuple[str, float, str]]
    """Name, place in percent of the width, and value of each mark."""
    why: str


@dataclass(frozen=True)
class Part:
    """One testbed's say on a claim."""

    title: str
    identifier: str
    """The testbed as files have it."""
    href: str
    tone: Tone
    verdict: Verdict
    plots: list[ForestPlot]
    gates: list[GateLane]
    uncounted: str
    """Which primaries do not count here."""
    places: Places
    d_sae: int


@dataclass(frozen=True)
class ClaimRow:
    """A claim with what all testbeds say of it."""

    name: str
    question: str
    tone: Tone
    sentence: str
    status: str
    predicted: list[str]
    caveats: list[str]
    parts: list[Part]
    over: list[Over]


@dataclass(frozen=True)
class Judged:
    """The answer at one width of one testbed, with the testbed's names."""

    title: str
    identifier: str
    href: str
    answer: Answer
    places: Places


def claim_rows(judged: Sequence[Judged]) -> list[ClaimRow]:
    """Arrange the verdicts of all testbeds claim by claim."""
    by_claim: dict[str, list[tuple[Judged, Verdict]]] = {}
    for one in judged:
        for said in one.answer.verdicts:
            by_claim.setdefault(said.claim, []).append((one, said))
    return [claim_row(claim, found) for claim, found in sorted(by_claim.items(), key=lambda entry: entry[0])]


def claim_row(claim: str, found: Sequence[tuple[Judged, Verdict]]) -> ClaimRow:
    """Arrange one claim."""
    name = claim.partition(":")[0]
    every = [j for _, said in found for term in said.terms for j in term.primaries]
    reach = reach_of(every)
    parts = [part(one, said, reach) for one, said in found]
    unique = lambda texts: list(dict.fromkeys(filter(None, texts)))
    predicted = unique(line for _, said in found for line in said.evidence if line.startswith("Predicted"))
    status = listed(unique(said.status for _, said in found))
    return ClaimRow(
        name, QUESTIONS.get(name, ""), tone_of(parts), sentence(parts), status, predicted, caveats(parts), parts,
        over_testbeds_of([(one.title, said) for one, said in found]),
    )  # fmt: skip


def tone_of(parts: Sequence[Part]) -> Tone:
    """The tone of a claim: what all testbeds say, or that some say yes."""
    tones: list[Tone] = [p.tone for p in parts]
    if "yes" in tones:
        return "yes"
    return tones[0] if len(set(tones)) == 1 else "undecided"


def caveats(parts: Sequence[Part]) -> list[str]:
    """Say in short what weakens the answers."""
    moving = [the(p.title) for p in parts if p.verdict.caveat]
    if not moving:
        return []
    where = f" on {listed(moving)}" if len(moving) < len(parts) else ""
    return [f"Training had not converged{where}: losses still fell at its end, and more may change the answer."]


def the(title: str) -> str:
    """A testbed's title within a sentence."""
    return f"the {title}" if title.startswith(("world", "small language model")) else title


def sentence(parts: Sequence[Part]) -> str:
    """Say in one sentence what all testbeds say of a claim."""
    if len(parts) == 1:
        return short(parts[0].verdict)
    groups: dict[str, list[str]] = {}
    for p in parts:
        what = p.verdict.headline.removesuffix(".") if p.tone in ("yes", "mixed") else TONES[p.tone]
        groups.setdefault(what, []).append(the(p.title))
    if len(groups) == 1:
        (what,) = groups
        where = "both testbeds" if len(parts) == 2 else f"all {len(parts)} testbeds"
        return f"{what} on {where}." if what in TONES.values() else f"{what}, on {where}."
    ordered = sorted(groups.items(), key=lambda entry: entry[0] in TONES.values())
    said = [f"{what} on {listed(titles)}" for what, titles in ordered]
    return "; ".join([said[0], *(text[:1].lower() + text[1:] for text in said[1:])]) + "."


def short(said: Verdict) -> str:
    """The headline; of an undecided claim without the numbers, which the picture has."""
    if said.tone != "undecided":
        return said.headline
    if len(said.terms) == 1:
        return "Undecided: the one term is not shown to be better, worse or equivalent."
    terms = plural(len(said.terms), "term")
    return f"Undecided: of {terms} none is shown to be better, and not all to be equivalent or worse."


def part(one: Judged, said: Verdict, reach: float) -> Part:
    """Arrange what one testbed says."""
    primaries = [j for term in said.terms for j in term.primaries]
    by_metric: dict[Quantity, list[Judgement]] = {}
    for j in primaries:
        by_metric.setdefault(j.metric, []).append(j)
    plots = [forest_plot(js, reach) for js in by_metric.values()]
    gates = [] if plots else gate_lanes(one.answer, said)
    left = listed([f"{name} ({why})" for name, why in said.uncounted.items()])
    return Part(
        one.title, one.identifier, one.href, said.tone, said, plots, gates, left, one.places, one.answer.d_sae
    )  # fmt: skip


def gate_lanes(found: Answer, said: Verdict) -> list[GateLane]:
    """The gate of the scores that would have decided, or where none is named of those that come first."""
    named = [g for g in found.gate if any(line.startswith(f"{g.metric.name}:") for line in said.evidence)]
    return [lane for g in (named or found.gate) if (lane := gate_lane(g)).marks][:MOST_GATES]


def gate_lane(result: GateResult) -> GateLane:
    """Lay out what the gate found of one score."""
    scale = scale_of(result)
    names = (("truth", "truth", result.truth), ("best", method_name(result.best_method) or "best", result.best),
             ("untrained", method_name(result.untrained_method) or "untrained", result.untrained),
             ("chance", "chance", result.chance))  # fmt: skip
    marks = [
        (kind, name, round(20 + 60 * min(1.3, max(-0.3, at)), 2), number(value))
        for kind, name, value in names
        if math.isfinite(at := scale.place(value))
    ]
    shown = [(kind, at, f"{name} {value}") for kind, name, at, value in marks]
    return GateLane(result.metric, result.passed, shown, "; ".join(result.reasons))


# ---- what was not tested


def untested(by_testbed: Sequence[tuple[str, Sequence[Limitation]]]) -> list[str]:
    """List what was not tested, failed or is missing, a line each; testbeds are named where not all lack it."""
    lines: dict[str, list[str]] = {}
    for title, found in by_testbed:
        for line in lines_of(found):
            lines.setdefault(line, []).append(title)
    every = len(by_testbed)
    return [line if len(titles) == every else f"{line} ({listed(titles)})" for line, titles in lines.items()]


def lines_of(found: Sequence[Limitation]) -> list[str]:
    """The lines of one testbed."""
    absent = [each.what for each in found if each.kind == "not tested"]
    lines = [f"Not tested: {what}." for what in absent]
    counts = (
        ("not compared", "comparison that could not be made", "comparisons that could not be made"),
        ("missed L0", "setting that missed its target L0", "settings that missed their target L0"),
        ("few seeds", "group of settings with too few seeds", "groups of settings with too few seeds"),
        ("error", "eval that failed", "evals that failed"), ("NaN", "score that is NaN", "scores that are NaN"),
        ("damaged", "damaged result", "damaged results"),
        ("not applicable", "eval that does not apply", "evals that do not apply"),
        ("not scored", "eval that was not run on all", "evals that were not run on all"),
        ("left out", "eval that left runs out", "evals that left runs out"),
    )  # fmt: skip
    said = []
    for kind, one, many in counts:
        if count := sum(each.kind == kind for each in found):
            said.append(f"{count} {one if count == 1 else many}")
    return [*lines, *([f"{capital(listed(said))}."] if said else [])]
