"""Figures in Plotly's JSON, and what all share: looks, axes, lines. The browser sets colours of text and grid."""

import html
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unbraid.comparison.intervals import Interval
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Method, Role
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
Figure = dict[str, Any]
Cell = str | float | int | None


@dataclass(frozen=True)
class Look:
    """The colour, mark and line of a method in every figure and in the legend."""

    index: int
    name: str
    role: str
    colour: str
    symbol: str
    dash: str


class RunsOf(NamedTuple):
    """The runs behind a number: those of a setting at one width, or of all settings of a method."""

    name: str
    """The setting's, or the method's short one."""
    d_sae: int
    whole: bool = False
    """True for all settings of a method."""


@dataclass(frozen=True)
class NumbersTable:
    """The numbers of a figure, to read and to copy."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    runs: tuple[tuple[RunsOf, ...], ...] = ()
    """For each row the runs that it is from."""


@dataclass(frozen=True)
class Plot:
    """A figure with its title, a sentence that reads it, and its numbers."""

    title: str
    caption: str
    figure: Figure
    reading: str = ""
    """What it shows, in a sentence."""
    table: NumbersTable | None = None
    identifier: str = ""
    """The name by which files and code know what is drawn, and its definition."""


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


def caption(quantity: Quantity) -> str:
    """Say which direction of a score is better; empty when neither is."""
    return {"higher": "higher is better ↑", "lower": "lower is better ↓"}.get(quantity.better, "")


def defined(quantity: Quantity, definition: str) -> str:
    """A score's identifier, with its definition where its eval stored one."""
    return ": ".join(filter(None, (f"{quantity.eval}.{quantity.label}", definition)))


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


def rounded(value: Any, digits: int = 6) -> float | None:
    """Round a number to significant digits; None for what is no finite number."""
    return float(f"{value:.{digits}g}") if isinstance(value, int | float) and math.isfinite(value) else None


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


def embedded(data: Any) -> str:
    """Write a figure, or other data, as JSON that is safe inside a script element."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")


def dotted_line(x: float, name: str) -> Figure:
    """A dotted vertical line over the whole height, with its name on top."""
    return {
        "type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1,
        "line": {"color": GREYS[0], "width": 1, "dash": "dot"},
        "label": {"text": name, "textposition": "end", "textangle": 0, "font": {"size": 10, "color": GREYS[0]}},
    }  # fmt: skip


def band(low: float, high: float) -> Figure:
    """A grey band over the whole height, visible on white and on dark."""
    return {
        "type": "rect", "xref": "x", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1, "layer": "below",
        "fillcolor": "rgba(128,128,128,0.16)", "line": {"width": 0},
    }  # fmt: skip


def rows_layout(x: str, labels: Sequence[str]) -> Figure:
    """The layout of a dot plot: a row a label, the first on top, and numbers along x."""
    layout = frame(x, "")
    layout["height"] = 84 + 21 * len(labels)
    layout["yaxis"] |= {
        "tickvals": list(range(len(labels))), "ticktext": [escape(label) for label in labels],
        "range": [len(labels) - 0.4, -0.6], "fixedrange": True,
    }  # fmt: skip
    return layout
