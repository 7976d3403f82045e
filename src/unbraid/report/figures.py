"""Figures in Plotly's JSON: scores against L0, and training curves. The browser sets colours of text and grid."""

import html
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unbraid.comparison.intervals import Interval, t_interval
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Method, Role, Scores
from unbraid.comparison.stored_scores import StoredRun
from unbraid.comparison.wording import number, plural

# Okabe and Ito's colours without yellow and black, which vanish on white or on dark.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREYS = ("#7a7f87", "#9aa0a8", "#63686f")
SYMBOLS = ("square", "circle", "diamond", "triangle-up", "triangle-down", "pentagon", "star")
CONTROL_SYMBOLS = ("x-thin-open", "cross-thin-open", "square-open", "diamond-open")
SYMBOL_PATHS = {
    "square": "M11 2h8v8h-8z",
    "circle": "M15 1.5a4.5 4.5 0 1 0 .01 0z",
    "diamond": "M15 0l6 6-6 6-6-6z",
    "triangle-up": "M15 0l6 11H9z",
    "triangle-down": "M15 12L9 1h12z",
    "pentagon": "M15 1l5 4-2 6h-6l-2-6z",
    "star": "M15 0l1.6 4h4.2l-3.3 2.6 1.2 4.4-3.7-2.6-3.7 2.6 1.2-4.4L9.2 4h4.2z",
    "x-thin-open": "M11 2l8 8M19 2l-8 8",
    "cross-thin-open": "M15 1v10M10 6h10",
    "square-open": "M11.5 2.5h7v7h-7z",
    "diamond-open": "M15 1l5 5-5 5-5-5z",
}
"""SVG paths of the same marks for the legend, around (15, 6)."""
LOG_POINTS = 120
"""Largest number of points of one training curve."""
FIGURE_POINTS = 24_000
"""Largest number of points of all training curves in one figure: with more a browser becomes slow."""
FEWEST_POINTS = 12

Figure = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """The colour, mark and line of a method in every figure and in the legend."""

    index: int
    name: str
    role: str
    colour: str
    symbol: str
    dash: str


@dataclass(frozen=True)
class Plot:
    """A figure with its title and caption."""

    title: str
    caption: str
    figure: Figure


def looks(methods: Sequence[Method]) -> dict[str, Look]:
    """Give every method its look."""
    return looks_of({method.name: method.role for method in methods})


def looks_of(roles: Mapping[str, Role]) -> dict[str, Look]:
    """Give every method, by name, its look: colours for methods, greys for controls."""
    found: dict[str, Look] = {}
    shown = controls = 0
    for index, (name, role) in enumerate(roles.items()):
        if role == "control":
            look = (GREYS[controls % len(GREYS)], CONTROL_SYMBOLS[controls % len(CONTROL_SYMBOLS)], "dash")
            controls += 1
        else:
            dash = "solid" if shown < len(COLOURS) else "dot"
            look = (COLOURS[shown % len(COLOURS)], SYMBOLS[shown % len(SYMBOLS)], dash)
            shown += 1
        found[name] = Look(index, name, role, *look)
    return found


def score_plot(scores: Scores, quantity: Quantity, definition: str) -> Plot | None:
    """Plot a score against L0: seeds as points, means with intervals as lines. None when nothing can be drawn."""
    if scores.l0 is None:
        return None
    traces, at = [], []
    for method, look in zip(scores.methods, looks(scores.methods).values(), strict=True):
        points = [(scores.value(run, scores.l0), scores.value(run, quantity), run) for run in method.runs]
        drawn = [p for p in points if p[0] > 0 and math.isfinite(p[0]) and math.isfinite(p[1])]
        if drawn:
            traces += [seed_points(drawn, look), mean_line(scores, method, quantity, look)]
            at += [x for x, _, _ in drawn]
    if not traces:
        return None
    chance = scores.chance(quantity)
    if math.isfinite(chance):
        traces.append(chance_line(min(at), max(at), chance))
    layout = frame("L0 (latents active a token)", quantity.label)
    layout["xaxis"] |= log_axis(min(at), max(at))
    return Plot(quantity.label, caption(quantity, definition), {"data": traces, "layout": layout})


def caption(quantity: Quantity, definition: str) -> str:
    """Return what stands under a score's figure: its better direction and its definition."""
    direction = {"higher": "higher is better ↑", "lower": "lower is better ↓"}.get(quantity.better, "")
    return " · ".join(filter(None, (direction, definition)))


def seed_points(points: Sequence[tuple[float, float, StoredRun]], look: Look) -> Figure:
    """A trace with one point per seed."""
    return {
        "type": "scatter", "mode": "markers", "meta": look.index, "showlegend": False,
        "x": [x for x, _, _ in points], "y": [y for _, y, _ in points],
        "text": [f"{escape(run.name)}, seed {run.seed}<br>{escape(run.run)}" for _, _, run in points],
        "hovertemplate": "%{text}<br>L0 %{x:.3~g}, %{y:.4~g}<extra></extra>",
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 5, "opacity": 0.5},
    }  # fmt: skip


def mean_line(scores: Scores, method: Method, quantity: Quantity, look: Look) -> Figure:
    """A trace of a method's means over seeds, with intervals."""
    assert scores.l0 is not None
    means = []
    for name, runs in method.settings.items():
        x = t_interval([scores.value(run, scores.l0) for run in runs]).mean
        y = t_interval([scores.value(run, quantity) for run in runs])
        if x > 0 and y.n:
            means.append((x, y, name))
    means.sort(key=lambda entry: entry[0])
    texts = [mean_text(name, y) for _, y, name in means]
    return line_of_means([x for x, _, _ in means], [y for _, y, _ in means], texts, look, "L0 %{x:.3~g}, %{y:.4~g}")


def line_of_means(x: Sequence[float], means: Sequence[Interval], texts: Sequence[str], look: Look, at: str) -> Figure:
    """A trace of means over seeds, with intervals. at: what its tooltip says of a point after the point's text."""
    outline = {"width": 1.5 if look.role == "control" else 0}  # the thin marks of controls are nothing but outline
    half = [0.0 if math.isnan(y.half) else y.half for y in means]
    return {
        "type": "scatter", "mode": "lines+markers", "meta": look.index, "showlegend": False,
        "x": list(x), "y": [y.mean for y in means], "text": list(texts),
        "hovertemplate": f"<b>%{{text}}</b><br>{at}<extra></extra>",
        "line": {"color": look.colour, "width": 1.5 if look.role == "control" else 2, "dash": look.dash},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 8, "line": outline},
        "error_y": {"type": "data", "array": half, "thickness": 1.2, "width": 3, "color": look.colour},
    }  # fmt: skip


def mean_text(name: str, mean: Interval) -> str:
    """Return what a tooltip says of a mean over seeds."""
    return f"{escape(name)}, mean of {plural(mean.n, 'seed')}{hover_half(mean.half)}"


def hover_half(half: float) -> str:
    """Format the half-width of an interval for a tooltip."""
    return ", no interval" if math.isnan(half) else f" ± {number(half)} (95 %)"


def chance_line(low: float, high: float, chance: float) -> Figure:
    """A dotted horizontal line at the chance level."""
    return {
        "type": "scatter", "mode": "lines", "x": [low, high], "y": [chance, chance], "showlegend": False,
        "line": {"color": GREYS[0], "width": 1, "dash": "dot"}, "hovertemplate": "chance %{y:.3~g}<extra></extra>",
    }  # fmt: skip


def training_plots(scores: Scores) -> list[Plot]:
    """Plot loss terms, FVU, L0 and dead latents against tokens, one line per run."""
    logs = {run.run: run.log() for method in scores.methods for run in method.runs}
    known = dict.fromkeys(key for rows in logs.values() for row in rows[:1] + rows[-1:] for key in row)
    wanted = [key for key in known if key.startswith("losses/") or key in ("metrics/l0", "sparsity/dead")]
    wanted += [key for key in known if key in ("metrics/fvu", "metrics/reconstruction/fvu")]
    wanted.sort(key=lambda key: (not key.endswith("fvu"), key != "metrics/l0", key != "sparsity/dead", key))
    return [plot for key in wanted if (plot := training_plot(scores, key, logs)) is not None]


def training_plot(scores: Scores, key: str, logs: dict[str, list[dict[str, Any]]]) -> Plot | None:
    """Plot one logged quantity against tokens; None when no run logged it."""
    traces = []
    points = max(FEWEST_POINTS, min(LOG_POINTS, FIGURE_POINTS // max(1, len(logs))))
    for method, look in zip(scores.methods, looks(scores.methods).values(), strict=True):
        for run in method.runs:
            rows = thin([row for row in logs[run.run] if key in row and "tokens" in row], points)
            if rows:
                traces.append(
                    {
                        "type": "scatter", "mode": "lines", "meta": look.index, "showlegend": False,
                        "x": [row["tokens"] for row in rows], "y": [rounded(row[key]) for row in rows],
                        "line": {"color": look.colour, "width": 1, "dash": look.dash}, "opacity": 0.7,
                        "hovertemplate": f"{escape(run.run)}<br>%{{x:.3s}} tokens, %{{y:.4~g}}<extra></extra>",
                    }
                )  # fmt: skip
    return Plot(key, "", {"data": traces, "layout": frame("tokens", key)}) if traces else None


def thin(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Keep at most `most` rows, evenly spaced, with the first and the last."""
    if len(rows) <= most:
        return rows
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def rounded(value: Any) -> float | None:
    """Round a logged number to five digits; None for what is no finite number."""
    return float(f"{value:.5g}") if isinstance(value, int | float) and math.isfinite(value) else None


def frame(x: str, y: str) -> Figure:
    """The layout that all figures share, with the titles of the axes."""
    return {
        "height": 290, "margin": {"l": 56, "r": 10, "t": 8, "b": 42}, "hovermode": "closest", "showlegend": False,
        "xaxis": {"title": {"text": escape(x), "font": {"size": 12}}, "automargin": True},
        "yaxis": {"title": {"text": escape(y), "font": {"size": 12}}, "automargin": True, "zeroline": False},
    }  # fmt: skip


def log_axis(low: float, high: float) -> Figure:
    """A log axis with ticks at powers of two, padded so that a single L0 does not fill it."""
    pad = max(0.06, 0.06 * math.log10(high / low)) if high > low else 0.3
    ends = [math.log10(low) - pad, math.log10(high) + pad]
    ticks = [float(2**i) for i in range(-4, 24) if ends[0] <= math.log10(2.0**i) <= ends[1]]
    axis: Figure = {"type": "log", "range": ends}
    return axis | {"tickvals": ticks, "ticktext": [f"{t:g}" for t in ticks]} if ticks else axis


def width_axis(widths: Collection[int]) -> Figure:
    """A log axis of numbers of latents, with a tick at each."""
    ticks = sorted(widths)
    return log_axis(float(ticks[0]), float(ticks[-1])) | {
        "tickvals": ticks,
        "ticktext": [f"{width:,}" for width in ticks],
    }


def escape(text: str) -> str:
    """Escape a label, which Plotly reads as HTML."""
    return html.escape(text)


def embedded(figure: Figure) -> str:
    """Write a figure as JSON that is safe inside a script element."""
    return json.dumps(figure, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")
