"""Judgements as a figure: gains with their intervals, in units of the smallest effect of interest of each score.

Between -1 and 1 a gain is too small to matter. A score of which no smallest effect is known has no such units, and is
in the table alone.
"""

import math
from collections.abc import Sequence

from unbraid.comparison.judgement import DIFFERENT, Judgement
from unbraid.comparison.names import method_name
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.wording import listed, plural
from unbraid.report.figures import (
    COLOURS,
    SYMBOLS,
    Figure,
    NumbersTable,
    Plot,
    band,
    dotted_line,
    escape,
    rounded,
    rows_layout,
)
from unbraid.report.places import sides

FURTHEST = 12.0
"""Gains beyond this many smallest effects are drawn there."""


def contrast_plot(
    title: str, judged: Sequence[Judgement], *, identifier: str = "", d_sae: int | None = None
) -> Plot | None:
    """Draw judgements, a row a score and a mark a method; None when there is none.

    d_sae: the width whose runs they are of, where the table leads to them.
    """
    if not judged:
        return None
    drawn = [j for j in judged if units(j) is not None]
    metrics = list(dict.fromkeys(j.metric for j in drawn))
    names = list(dict.fromkeys((j.contrast.method, j.contrast.other) for j in drawn))
    traces = [marks([j for j in drawn if (j.contrast.method, j.contrast.other) == pair], metrics, at, len(names))
              for at, pair in enumerate(names)]  # fmt: skip
    layout = rows_layout("gain in smallest effects of interest", [q.name for q in metrics])
    ends = [abs(found[0]) + found[1] for j in drawn if (found := units(j)) is not None]
    furthest = min(FURTHEST, max([2.0, *ends])) * 1.06
    layout["xaxis"] |= {"range": [-furthest, furthest], "zeroline": False}
    layout["shapes"] = [band(-1.0, 1.0), dotted_line(0.0, "")]
    layout["height"] += 12 * len(metrics) * max(0, min(4, len(names)) - 1) + 40
    layout |= {"showlegend": True, "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}}
    layout["margin"] |= {"t": 48}
    figure = {"data": traces, "layout": layout}
    return Plot(title, "", figure, reading(judged), table_of(judged, d_sae), identifier)


def units(found: Judgement) -> tuple[float, float] | None:
    """A gain and its half-width in smallest effects; None where there is no gain or no smallest effect."""
    c = found.contrast
    if not (math.isfinite(c.gain) and found.smallest > 0):
        return None
    half = c.tested.half if math.isfinite(c.tested.half) else 0.0
    return max(-FURTHEST, min(FURTHEST, c.gain / found.smallest)), min(2 * FURTHEST, half / found.smallest)


def marks(judged: Sequence[Judgement], metrics: Sequence[Quantity], at: int, count: int) -> Figure:
    """The gains of one method over one other, by score."""
    known = [(found, j) for j in judged if (found := units(j)) is not None]
    shift = 0.6 * ((at + 0.5) / count - 0.5)
    c = judged[0].contrast
    name = f"{method_name(c.method)} against {method_name(c.other)}"
    colour = COLOURS[at % len(COLOURS)]
    return {
        "type": "scatter", "mode": "markers", "name": escape(name), "x": [rounded(gain) for (gain, _), _ in known],
        "y": [round(metrics.index(j.metric) + shift, 3) for _, j in known],
        "customdata": [[j.word, rounded(j.contrast.difference)] for _, j in known],
        "hovertemplate": f"{escape(name)}: %{{customdata[0]}}, difference %{{customdata[1]:.3~g}}<extra></extra>",
        "error_x": {"type": "data", "array": [rounded(half) for (_, half), _ in known], "thickness": 1.2, "width": 3,
                    "color": colour},
        "marker": {"color": colour, "symbol": SYMBOLS[at % len(SYMBOLS)], "size": 8},
    }  # fmt: skip


def reading(judged: Sequence[Judgement]) -> str:
    """Say how many of the comparisons came out, and the largest gains and losses by word."""
    told = [j for j in judged if j.word in DIFFERENT]
    if not told:
        return f"Of {plural(len(judged), 'comparison')} none is shown to differ."
    said = []
    for words, name in ((("materially better", "better"), "better"), (("materially worse", "worse"), "worse")):
        own = list(
            dict.fromkeys(f"{method_name(j.contrast.method)} by {j.metric.name}" for j in told if j.word in words)
        )
        if own:
            more = f" and {len(own) - 4} more" if len(own) > 4 else ""
            said.append(f"{name}: {listed(own[:4]) if not more else ', '.join(own[:4]) + more}")
    return f"{len(told)} of {plural(len(judged), 'comparison')} differ; {'; '.join(said)}."


def table_of(judged: Sequence[Judgement], d_sae: int | None) -> NumbersTable:
    """The numbers of judgements."""
    rows = [
        (j.metric.name, method_name(j.contrast.method), method_name(j.contrast.other), j.word,
         rounded(j.contrast.difference), rounded(j.contrast.tested.half), rounded(j.smallest), rounded(j.could_find),
         rounded(j.p), j.contrast.n, j.note)
        for j in judged
    ]  # fmt: skip
    correction = "q" if judged[0].correction == "q" else "p (Holm)"
    head = ("score", "method", "against", "word", "difference", "± (95 %)", "smallest effect", "could find", correction,
            "seeds", "note")  # fmt: skip
    return NumbersTable(head, tuple(rows), () if d_sae is None else tuple(sides(j, d_sae) for j in judged))
