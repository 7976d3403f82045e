"""The gate as a figure: every score from what was not trained to the truth, and where the best method lies between.

place = (value - low) / (high - low)     low: the best untrained control, or chance; high: the truth
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unbraid.comparison.gate import GateResult
from unbraid.comparison.names import capital, method_name
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.smallest_effect import SmallestEffect
from unbraid.comparison.wording import listed, number, plural
from unbraid.report.figures import (
    COLOURS,
    GREYS,
    Figure,
    NumbersTable,
    Plot,
    RunsOf,
    dotted_line,
    escape,
    rounded,
    rows_layout,
)

MARKS = (
    ("truth", "truth", "diamond", COLOURS[2]),
    ("best", "best trained method", "circle", COLOURS[0]),
    ("untrained", "best untrained control", "x-thin-open", GREYS[2]),
    ("chance", "chance", "line-ns-open", GREYS[1]),
)
"""Attribute of a result, what it is called, mark and colour."""
LABELLED = ("best", "untrained")
"""Marks with their values next to them."""
FURTHEST = 1.6
"""Places beyond this are drawn there: how far below the untrained a score lies is no matter."""


@dataclass(frozen=True)
class Scale:
    """The ends of one score's row."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a value lies between the ends; NaN where an end is unknown."""
        if not all(map(math.isfinite, (self.low, self.high, value))) or self.low == self.high:
            return math.nan
        return max(1 - FURTHEST, min(FURTHEST, (value - self.low) / (self.high - self.low)))


def scale_of(result: GateResult) -> Scale:
    """The ends of a score: the truth, or where none was scored the best method; the untrained, or else chance."""
    low = result.untrained if math.isfinite(result.untrained) else result.chance
    return Scale(low, result.truth if math.isfinite(result.truth) else result.best)


def gate_plot(
    gate: Sequence[GateResult], smallest: Mapping[Quantity, SmallestEffect] | None = None, d_sae: int | None = None
) -> Plot | None:
    """Draw what the gate found, scores that count first; None when no score could be tried.

    smallest: the smallest effect of interest by score, for the table. d_sae: the width whose runs the numbers are of,
    where the table leads to them.
    """
    ordered = sorted(gate, key=lambda g: not g.passed)
    drawn = [g for g in ordered if math.isfinite(scale_of(g).place(g.best))]
    if not gate:
        return None
    labels = [f"{'✓' if g.passed else '✗'} {g.metric.name}" for g in drawn]
    layout = rows_layout("0: untrained or chance · 1: truth or best", labels)
    layout["shapes"] = [dotted_line(0.0, ""), dotted_line(1.0, "")]
    layout["xaxis"] |= {"range": [-0.85, FURTHEST + 0.35], "zeroline": False}
    layout |= {"showlegend": True, "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}}
    layout["height"] += 40
    layout["margin"] |= {"t": 48}
    figure = {"data": [marks(drawn, *mark) for mark in MARKS], "layout": layout}
    return Plot("Which scores count here", "", figure, reading(gate), table_of(ordered, smallest or {}, d_sae), "gate")


def marks(gate: Sequence[GateResult], key: str, name: str, symbol: str, colour: str) -> Figure:
    """One kind of mark over all scores."""
    places = [scale_of(g).place(getattr(g, key)) for g in gate]
    known = [(place, at, getattr(g, key)) for at, (place, g) in enumerate(zip(places, gate, strict=True))]
    known = [entry for entry in known if math.isfinite(entry[0]) and math.isfinite(entry[2])]
    return {
        "type": "scatter", "mode": "markers+text", "name": escape(name), "x": [rounded(place) for place, *_ in known],
        "y": [at for _, at, _ in known], "customdata": [rounded(value) for *_, value in known],
        "text": [number(value) if key in LABELLED else "" for *_, value in known], "textfont": {"size": 10},
        "textposition": "middle left" if key == "untrained" else "middle right",
        "hovertemplate": f"{escape(name)}: %{{customdata:.4~g}}<extra></extra>",
        "marker": {"symbol": symbol, "color": colour, "size": 10, "line": {"width": 2, "color": colour}},
    }  # fmt: skip


def reading(gate: Sequence[GateResult]) -> str:
    """Say which scores count."""
    passed, failed = ([g.metric.name for g in gate if g.passed is kept] for kept in (True, False))
    if not passed:
        return f"None of {plural(len(gate), 'score')} passed, so none decides anything here."
    rest = f"; {plural(len(failed), 'score')} did not pass, and {'decides' if len(failed) == 1 else 'decide'} nothing"
    return f"{capital(listed(passed))} {'counts' if len(passed) == 1 else 'count'}{rest if failed else ''}."


def table_of(
    gate: Sequence[GateResult], smallest: Mapping[Quantity, SmallestEffect], d_sae: int | None
) -> NumbersTable:
    """The numbers of the gate, with the reasons."""
    effect = lambda g: smallest.get(g.metric) or SmallestEffect(g.metric, math.nan, "")
    rows = [
        (g.metric.name, "✓ yes" if g.passed else "✗ no", rounded(g.truth), rounded(g.best), method_name(g.best_method),
         rounded(g.untrained), method_name(g.untrained_method), rounded(g.chance), g.seeds,
         rounded(effect(g).value), effect(g).source, "; ".join(g.reasons), "; ".join(g.facts), "; ".join(g.untested))
        for g in gate
    ]  # fmt: skip
    head = ("score", "counts", "truth", "best", "best method", "untrained", "control", "chance", "seeds",
            "smallest effect of interest", "which is", "why not", "known facts", "not tested")  # fmt: skip
    if d_sae is None:
        return NumbersTable(head, tuple(rows))
    names = [filter(None, (g.best_method, g.untrained_method, g.truth_method)) for g in gate]
    return NumbersTable(head, tuple(rows), tuple(tuple(RunsOf(name, d_sae, True) for name in some) for some in names))
