"""Scores against FVU and bits: what a gain by a score costs, and which methods are on the front.

A trained method is on the front when no other has both a better score and a better cost, each by its mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from unbraid.comparison.intervals import Interval, t_interval
from unbraid.comparison.names import capital
from unbraid.comparison.quantities import AXES, Quantity
from unbraid.comparison.scores import Scores
from unbraid.comparison.wording import listed
from unbraid.report.figures import GREYS, Figure, NumbersTable, Plot, RunsOf, caption, escape, frame, mean_text, rounded
from unbraid.report.score_figures import ScoredSetting, finite_half, measured

COSTS = AXES[1:]
"""What scores are drawn against besides L0: FVU and bits."""


@dataclass(frozen=True)
class Point:
    """A setting of a method by its cost and its score."""

    at: ScoredSetting
    cost: Interval
    front: bool


def tradeoff_plots(scores: Scores, wanted: Sequence[Quantity]) -> list[Plot]:
    """Plot each score against each cost that was measured; what cannot be drawn is left out."""
    costs = [cost for _, selector in COSTS if (cost := scores.find(selector)) is not None]
    plots = [tradeoff_plot(scores, q, cost) for q in wanted for cost in costs if q != cost]
    return [plot for plot in plots if plot is not None]


def tradeoff_plot(scores: Scores, quantity: Quantity, cost: Quantity) -> Plot | None:
    """Plot a score against a cost, less of which is better; None when no method has both."""
    points = with_cost(scores, quantity, cost)
    if not points:
        return None
    layout = frame(cost.name, quantity.name)
    trained = [p for p in points if p.at.look.role != "control"] or points
    layout["xaxis"] |= {"range": around([p.cost for p in trained])}
    layout["yaxis"] |= {"range": around([p.at.value for p in trained])}
    traces = [mark(p) for p in points]
    front = sorted((p for p in points if p.front), key=lambda p: p.cost.mean)
    if len(front) > 1:
        traces.append(front_line(front))
    names = listed(list(dict.fromkeys(p.at.label for p in front)))
    verb = "is" if len(front) == 1 else "are"
    better = "higher" if quantity.sign > 0 else "lower"
    reads = (
        f"{names} {verb} on the front: no trained method has both a {better} {quantity.name} and a lower {cost.name}."
    )
    title = f"{capital(quantity.name)} against {cost.name}"
    said = f"{quantity.label} against {cost.label}"
    return Plot(title, caption(quantity), {"data": traces, "layout": layout}, reads, table_of(points, cost), said)


def around(values: Sequence[Interval]) -> list[float | None]:
    """The ends of an axis that shows these intervals; controls may lie beyond it."""
    ends = [v.mean + side * finite_half(v) for v in values for side in (-1, 1)]
    room = 0.08 * (max(ends) - min(ends)) or 0.1 * abs(max(ends)) or 1.0
    return [rounded(min(ends) - room), rounded(max(ends) + room)]


def with_cost(scores: Scores, quantity: Quantity, cost: Quantity) -> list[Point]:
    """Every setting that has both, and whether it is on the front."""
    both = [
        (p, found)
        for p in measured(scores, quantity)
        if (found := t_interval([scores.value(run, cost) for run in p.runs])).n
    ]
    trained = [(p, c) for p, c in both if p.look.role != "control" and not p.missed]
    return [Point(p, c, (p, c) in trained and not any(beats(other, (p, c), quantity) for other in trained))
            for p, c in both]  # fmt: skip


def beats(one: tuple[ScoredSetting, Interval], other: tuple[ScoredSetting, Interval], quantity: Quantity) -> bool:
    """True if one setting is no worse than another by score and cost, and better by one of them."""
    gain = quantity.sign * (one[0].value.mean - other[0].value.mean)
    saved = other[1].mean - one[1].mean
    return gain >= 0 and saved >= 0 and max(gain, saved) > 0


def mark(p: Point) -> Figure:
    """One setting's mean by cost and score, with both intervals."""
    look = p.at.look
    bars = lambda half: {"type": "data", "array": [half], "thickness": 1, "width": 2, "color": look.colour}
    return {
        "type": "scatter", "mode": "markers", "meta": look.index, "showlegend": False, "x": [rounded(p.cost.mean)],
        "y": [rounded(p.at.value.mean)], "text": [mean_text(p.at.label, p.at.value)],
        "hovertemplate": "<b>%{text}</b><br>%{x:.4~g}, %{y:.4~g}<extra></extra>",
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 9,
                   "line": {"width": 1.5, "color": look.colour}},
        "error_x": bars(finite_half(p.cost)), "error_y": bars(finite_half(p.at.value)),
    }  # fmt: skip


def front_line(points: Sequence[Point]) -> Figure:
    """The front as a grey staircase, from the cheapest to the best."""
    return {
        "type": "scatter", "mode": "lines", "showlegend": False, "hoverinfo": "skip",
        "x": [rounded(p.cost.mean) for p in points], "y": [rounded(p.at.value.mean) for p in points],
        "line": {"color": GREYS[0], "width": 1, "dash": "dot", "shape": "hv"},
    }  # fmt: skip


def table_of(points: Sequence[Point], cost: Quantity) -> NumbersTable:
    """The numbers of a trade-off."""
    rows = [
        (p.at.method.title, rounded(p.at.runs[0].requested_l0), rounded(p.cost.mean), rounded(p.at.value.mean),
         rounded(p.at.value.half), p.at.value.n, "yes" if p.front else "")
        for p in points
    ]  # fmt: skip
    head = ("method", "L0 requested", escape(cost.name), "mean", "± (95 %)", "seeds", "on the front")
    return NumbersTable(head, tuple(rows), tuple((RunsOf(p.at.name, p.at.method.d_sae),) for p in points))
