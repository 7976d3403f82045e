"""Dose and response: how far each term got to what it asks for, next to what it gained by each primary.

dose: the share of its own target that a term reached (eval `dose`); where that was not scored, the strength that it
was given.
"""

import math
from collections.abc import Sequence

from unbraid.comparison.judgement import Judgement
from unbraid.comparison.names import method_name
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Method, Scores, dose
from unbraid.comparison.verdict import LITTLE
from unbraid.comparison.wording import listed
from unbraid.report.figures import (
    COLOURS,
    GREYS,
    SYMBOLS,
    Figure,
    NumbersTable,
    Plot,
    band,
    dotted_line,
    escape,
    frame,
    rounded,
)
from unbraid.report.places import sides

Dosed = tuple[Judgement, float]


def dose_plot(scores: Scores, d_sae: int, judged: Sequence[Judgement]) -> Plot | None:
    """Draw gains against dose, or against strength where terms were given several; None where neither is known.

    judged: the primaries' judgements.
    """
    by_name = {m.short: m for m in scores.with_role("compared", d_sae)}
    own = [(j, by_name[j.contrast.method]) for j in judged if j.contrast.method in by_name and j.contrast.n]
    doses = [(j, value) for j, m in own if math.isfinite(value := dose(scores, m))]
    if doses:
        idle = list(dict.fromkeys(method_name(j.contrast.method) for j, value in doses if abs(value) < LITTLE))
        reads = f"Below a dose of {LITTLE:.0%} a term was hardly tried: {listed(idle) or 'none here'}."
        return drawn(doses, "dose: share of its own target that a term reached", reads, d_sae)
    strengths = [(j, value) for j, m in own if math.isfinite(value := strength_of(m))]
    if len({value for _, value in strengths}) < 2:
        return None
    reads = "Dose was not scored (unbraid eval … --evals dose); drawn is the strength that each term was given."
    return drawn(strengths, "strength: the term's gradient, as a share of the reconstruction's", reads, d_sae)


def strength_of(method: Method) -> float:
    """The strength of a method's term; NaN where it has none."""
    strength = method.runs[0].summary.strength
    return math.nan if strength is None else float(strength)


def drawn(dosed: Sequence[Dosed], axis: str, reads: str, d_sae: int) -> Plot:
    """Draw gains in smallest effects of interest, a mark a score."""
    metrics = list(dict.fromkeys(j.metric for j, _ in dosed))
    in_units = all(j.smallest > 0 for j, _ in dosed)
    layout = frame(axis, "gain in smallest effects" if in_units else "gain")
    layout |= {"showlegend": True, "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}}
    layout["margin"] |= {"t": 40}
    layout["shapes"] = [flat(dotted_line(0.0, ""))] + ([flat(band(-1.0, 1.0))] if in_units else [])
    traces = [marks([d for d in dosed if d[0].metric == q], q, at, in_units) for at, q in enumerate(metrics)]
    figure = {"data": traces, "layout": layout}
    return Plot("Dose and response", "", figure, reads, table_of(dosed, d_sae), "dose")


def flat(shape: Figure) -> Figure:
    """Turn a vertical shape into a horizontal one."""
    turned = {"xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": shape["x0"], "y1": shape["x1"]}
    return {key: value for key, value in shape.items() if key != "label"} | turned


def marks(dosed: Sequence[Dosed], metric: Quantity, at: int, in_units: bool) -> Figure:
    """The gains of all terms by one score."""
    unit = [j.smallest if in_units else 1.0 for j, _ in dosed]
    gains = [rounded(j.contrast.gain / u) for (j, _), u in zip(dosed, unit, strict=True)]
    half = [rounded(j.contrast.tested.half / u) or 0.0 for (j, _), u in zip(dosed, unit, strict=True)]
    colour = COLOURS[at % len(COLOURS)]
    return {
        "type": "scatter", "mode": "markers", "name": escape(metric.name), "x": [rounded(value) for _, value in dosed],
        "y": gains, "text": [escape(method_name(j.contrast.method)) for j, _ in dosed],
        "hovertemplate": "<b>%{text}</b><br>%{x:.3~g}: %{y:.3~g}<extra></extra>",
        "error_y": {"type": "data", "array": half, "thickness": 1, "width": 2, "color": GREYS[0]},
        "marker": {"color": colour, "symbol": SYMBOLS[at % len(SYMBOLS)], "size": 9},
    }  # fmt: skip


def table_of(dosed: Sequence[Dosed], d_sae: int) -> NumbersTable:
    """The numbers of the figure."""
    rows = [
        (method_name(j.contrast.method), j.metric.name, rounded(value), rounded(j.contrast.gain),
         rounded(j.contrast.tested.half), rounded(j.smallest), j.word, j.contrast.n)
        for j, value in dosed
    ]  # fmt: skip
    head = ("method", "score", "dose or strength", "gain", "± (95 %)", "smallest effect", "word", "seeds")
    return NumbersTable(head, tuple(rows), tuple(sides(j, d_sae) for j, _ in dosed))
