"""Answers as the page shows them: what each verdict rests on, tables of judgements, methods without a base."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unbraid.comparison.judgement import Judgement
from unbraid.comparison.names import method_name
from unbraid.comparison.opponents import AgainstAll, against_all
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Method, Scores
from unbraid.comparison.verdict import Answer, Rules, Verdict, primaries_of
from unbraid.comparison.wording import number
from unbraid.report.figures import Cell, NumbersTable, rounded
from unbraid.report.places import sides


@dataclass(frozen=True)
class Card:
    """A verdict and what it rests on."""

    verdict: Verdict
    against_all: list[AgainstAll]
    """Each term of the claim against every standard SAE."""


@dataclass(frozen=True)
class Grid:
    """Judgements at equal L0 as a table: a row a method, a column a score."""

    metrics: list[Quantity]
    rows: list[tuple[str, str, list[Judgement | None]]]
    """Method, base and judgements."""


@dataclass(frozen=True)
class AnswerView:
    """The answer at one width, arranged for the page."""

    answer: Answer
    cards: list[Card]
    passed: frozenset[Quantity]
    exploratory: Grid
    judged: list[Judgement]
    """All judgements, primaries first."""
    orphans: list[AgainstAll]
    """Methods without a base against every standard SAE, by the primaries of their claim."""


def view(scores: Scores, found: Answer, rules: Rules | None = None) -> AnswerView:
    """Arrange an answer for the page."""
    cards = [card(said) for said in found.verdicts]
    primaries = [j for said in found.verdicts for term in said.terms for j in term.primaries]
    passed = frozenset(result.metric for result in found.gate if result.passed)
    return AnswerView(
        found, cards, passed, grid([j for j in found.exploratory if j.contrast.axis == "L0"]),
        [*primaries, *found.exploratory], orphans_of(scores, found, rules or Rules(), passed),
    )  # fmt: skip


def card(said: Verdict) -> Card:
    """The card of one verdict."""
    return Card(said, [each for term in said.terms for each in term.against_all])


def grid(judgements: Sequence[Judgement]) -> Grid:
    """Arrange judgements as a table."""
    found: dict[tuple[str, str], dict[Quantity, Judgement]] = {}
    for j in judgements:
        found.setdefault((j.contrast.method, j.contrast.other), {})[j.metric] = j
    metrics = list(dict.fromkeys(j.metric for j in judgements))
    return Grid(metrics, [(*names, [by_metric.get(q) for q in metrics]) for names, by_metric in found.items()])


def orphans_of(scores: Scores, found: Answer, rules: Rules, passed: frozenset[Quantity]) -> list[AgainstAll]:
    """Compare each method without a base with every standard SAE, by the primaries of its claim that passed."""
    by_name: Mapping[str, Method] = {m.short: m for m in scores.with_role("compared", found.d_sae)}
    return [
        against_all(scores, by_name[name], metric)
        for name in found.orphans
        for metric in primaries_of(scores, by_name[name].claim, rules)
        if metric in passed
    ]


def judged_table(judged: Sequence[Judgement], d_sae: int) -> NumbersTable:
    """All judgements at a width as a table: what was held equal, both values, the difference, and what may be said."""
    return NumbersTable(JUDGED, tuple(map(judged_row, judged)), tuple(sides(j, d_sae) for j in judged))


JUDGED = (
    "method", "base", "score", "held equal", "levels", "value", "base's value", "difference", "± (95 %)", "word",
    "smallest effect of interest", "could find", "p (Holm)", "q", "permutation p", "seeds", "note",
)  # fmt: skip


def judged_row(j: Judgement) -> tuple[Cell, ...]:
    """One judgement; of primaries the corrected p-value, of the others the q-value."""
    c, primary = j.contrast, j.correction == "holm"
    return (
        method_name(c.method), method_name(c.other), c.metric.name, c.axis, ", ".join(map(number, c.levels)),
        rounded(c.value), rounded(c.other_value), rounded(c.difference), rounded(c.tested.half), j.word,
        rounded(j.smallest), rounded(j.could_find), rounded(j.p) if primary else None,
        None if primary else rounded(j.p), rounded(c.p_flipped()) if primary else None, c.n, j.note,
    )  # fmt: skip
