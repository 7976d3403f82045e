"""Judgements, the gate and verdicts as rows of tables."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from unbraid.comparison.gate import GateResult
from unbraid.comparison.judgement import Judgement
from unbraid.comparison.scores import Method, Scores, arrange
from unbraid.comparison.smallest_effect import SmallestEffect
from unbraid.comparison.stored_scores import StoredScores
from unbraid.comparison.verdict import (
    Answer,
    Pair,
    Rules,
    answer,
    by_axis,
    exploratory,
    judge_pairs,
    paired_with_bases,
)
from unbraid.comparison.wording import listed
from unbraid.config.hints import nearest

Record = dict[str, Any]
ABOUT = ("source", "d_sae")
JUDGED = (
    "axis", "levels", "eval", "metric", "params", "method", "base", "word", "value", "base_value", "difference", "half",
    "p", "q", "smallest", "could_find", "seeds", "note",
)  # fmt: skip
GATED = (
    "eval", "metric", "params", "passed", "truth", "best", "best_method", "untrained", "untrained_method", "chance",
    "seeds", "reasons", "not_tested", "facts", "smallest", "smallest_from",
)  # fmt: skip
JUDGED_COLUMNS, GATED_COLUMNS = (*ABOUT, *JUDGED), (*ABOUT, *GATED)
VERDICT_COLUMNS = ("claim", "d_sae", "source", "tone", "headline", "status")
NOT_COUNTED = "not counted"


def judgement_rows(stored: StoredScores) -> list[Record]:
    """Every method against its own base, by every score; of scores that failed the gate the word is "not counted"."""
    rows = []
    for about, scores, found in answers(stored):
        pairs, _ = paired_with_bases(scores, found.d_sae)
        rows += [about | row for row in [*map(judgement_row, found.exploratory), *uncounted(scores, found, pairs)]]
    return rows


def pair_rows(stored: StoredScores, method: str, against: str) -> list[Record]:
    """One method against another, by every score, as `judgement_rows`. Raises ValueError when no width has both."""
    rows = []
    for about, scores, found in answers(stored):
        if (pair := named_pair(scores, found.d_sae, method, against)) is None:
            continue
        counted = exploratory(scores, [pair], {r.metric: r for r in found.gate}, found.smallest)
        rows += [about | row for row in [*map(judgement_row, counted), *uncounted(scores, found, [pair])]]
    if not rows:
        known = sorted({run.method for run in stored.runs})
        unknown = next((name for name in (method, against) if name not in known), None)
        alone = "they are one and the same" if method == against else "no width has both, with scores to compare"
        reason = f"no method is called {unknown!r}; {nearest(unknown, known)}" if unknown else alone
        raise ValueError(f"cannot compare {method!r} with {against!r}: {reason}")
    return rows


def gate_rows(stored: StoredScores) -> list[Record]:
    """Every score that has a direction, and whether it passed the gate."""
    return [
        about | gate_row(result, found.smallest.get(result.metric))
        for about, _, found in answers(stored)
        for result in found.gate
    ]


def verdict_rows(stored: StoredScores, rules: Rules | None = None) -> list[Record]:
    """The verdict on each claim."""
    return [
        about | {key: getattr(said, key) for key in ("claim", "tone", "headline", "status")}
        for about, _, found in answers(stored, rules)
        for said in found.verdicts
    ]


def answers(stored: StoredScores, rules: Rules | None = None) -> Iterator[tuple[Record, Scores, Answer]]:
    """The answer at every width of every source, with what tells it from the others."""
    for source in dict.fromkeys(run.source for run in stored.runs):
        scores = arrange(stored.of(source))
        for d_sae in scores.widths:
            yield {"source": source, "d_sae": d_sae}, scores, answer(scores, d_sae, rules)


def judgement_row(found: Judgement) -> Record:
    """An exploratory judgement as a row: its p-value as it is, next to its q-value."""
    c, metric = found.contrast, found.metric
    row = (
        c.axis, listed([f"{level:.3g}" for level in c.levels]), metric.eval, metric.metric, metric.params, c.method,
        c.other, found.word, c.value, c.other_value, c.difference, c.tested.half, c.tested.p, found.p, found.smallest,
        found.could_find, c.n, found.note,
    )  # fmt: skip
    return dict(zip(JUDGED, row, strict=True))


def uncounted(scores: Scores, found: Answer, pairs: Sequence[Pair]) -> list[Record]:
    """Every pair by the scores that failed the gate, as rows without a word."""
    failed = {r.metric: "; ".join(r.reasons) for r in found.gate if not r.passed}
    return [
        judgement_row(j) | {"word": NOT_COUNTED, "q": math.nan, "note": f"failed the gate: {failed[j.metric]}"}
        for axis, metrics in by_axis(scores, list(failed))
        for j in judge_pairs(scores, pairs, metrics, found.smallest, axis=axis)
    ]


def named_pair(scores: Scores, d_sae: int, method: str, against: str) -> Pair | None:
    """The methods of two names at a width; None unless both are there and differ."""
    by_name: dict[str, Method] = {}
    for methods in (scores.controls(d_sae), *(scores.with_role(role, d_sae) for role in ("compared", "standard"))):
        by_name |= {m.short: m for m in methods}
    own, other = by_name.get(method), by_name.get(against)
    return None if own is None or other is None or own is other else (own, other)


def gate_row(result: GateResult, smallest: SmallestEffect | None) -> Record:
    """The outcome of the gate for one score, as a row."""
    q = result.metric
    row = (
        q.eval, q.metric, q.params, result.passed, result.truth, result.best, result.best_method, result.untrained,
        result.untrained_method, result.chance, result.seeds, "; ".join(result.reasons), "; ".join(result.untested),
        "; ".join(result.facts), smallest.value if smallest else math.nan, smallest.source if smallest else "",
    )  # fmt: skip
    return dict(zip(GATED, row, strict=True))
