"""Draws scores of runs, and the figures of their report, as interactive Plotly figures, each by one call."""

import math
from typing import TYPE_CHECKING, Literal

import pandas as pd

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

from unbraid.report.figures import Look, looks_of
from unbraid.report.notebook import claims, costs, dose, figures, gate, standards, testbeds

__all__ = ["claims", "costs", "dose", "figures", "gate", "score", "standards", "testbeds"]

COLUMNS = ("d_sae", "l0_requested", "seed")
"""What can be on the horizontal axis besides a metric."""


def score(
    scores: pd.DataFrame, metric: str, *, against: str = "l0", params: str | None = None,
    kind: Literal["measured", "chance", "ceiling", "reference"] = "measured",
) -> "Figure":  # fmt: skip
    """Draw a metric against another, or against d_sae: a point a run, and a line through each method's means.

    Args:
        scores: rows of `unbraid.scores`.
        metric: the vertical axis, such as "f1".
        against: the horizontal axis: a metric ("l0", "fvu"), "d_sae" or "l0_requested".
        params: which rows of the metric, where it has several, as in the column `params`.
        kind: measured, or a level to compare with.

    Raises:
        ValueError: for a metric that has no rows, and for one that has several rows a run: `params` then tells them
            apart.
    """
    import plotly.graph_objects as go

    y = values(scores, metric, params, kind)
    x = scores.groupby("run")[against].first() if against in COLUMNS else values(scores, against, None, "measured")
    about = scores.groupby("run")[["method", "name", "seed", "control", "better"]].first()
    rows = about.assign(x=x, y=y).dropna(subset=["x", "y"])
    if rows.empty:
        raise ValueError(f"no run has both {metric!r} and {against!r}; score the runs by the evals that give them")
    figure = go.Figure()
    groups = {str(method): group for method, group in rows.groupby("method", sort=True)}
    for look in looks_of(
        {m: "control" if bool(g["control"].all()) else "compared" for m, g in groups.items()}
    ).values():
        draw(figure, look, groups[look.name])
    better = scores.loc[scores["metric"] == metric, "better"].iloc[0]
    arrow = {"higher": " (higher is better)", "lower": " (lower is better)"}.get(str(better), "")
    figure.update_layout(
        template="plotly_white", xaxis_title=against, yaxis_title=f"{metric}{arrow}", legend_title="method",
        hovermode="closest", margin={"l": 60, "r": 20, "t": 30, "b": 50},
    )  # fmt: skip
    if against in ("l0", "d_sae", "l0_requested"):
        figure.update_xaxes(type="log", dtick=math.log10(2))  # ticks at powers of two
    return figure


def draw(figure: "Figure", look: Look, rows: pd.DataFrame) -> None:
    """Add one method: its runs as small points, its means by experiment as a line."""
    text = [f"{name}, seed {seed}" for name, seed in zip(rows["name"], rows["seed"], strict=True)]
    figure.add_scatter(
        x=rows["x"], y=rows["y"], mode="markers", text=text, legendgroup=look.name, showlegend=False, name=look.name,
        marker={"color": look.colour, "symbol": look.symbol, "size": 6, "opacity": 0.45},
        hovertemplate="%{text}<br>%{x:.4~g}, %{y:.4~g}<extra></extra>",
    )  # fmt: skip
    means = rows.groupby("name")[["x", "y"]].agg(["mean", "std", "count"])
    means = means.iloc[means["x", "mean"].argsort()]
    figure.add_scatter(
        x=means["x", "mean"], y=means["y", "mean"], mode="lines+markers", name=look.name, legendgroup=look.name,
        text=[f"{name}: mean of {count}" for name, count in means["y", "count"].items()],
        error_y={"type": "data", "array": means["y", "std"].fillna(0.0), "thickness": 1},
        line={"color": look.colour, "dash": look.dash}, marker={"symbol": look.symbol, "size": 9},
        hovertemplate="<b>%{text}</b> (bar: standard deviation over seeds)<br>%{x:.4~g}, %{y:.4~g}<extra></extra>",
    )  # fmt: skip


def values(scores: pd.DataFrame, metric: str, params: str | None, kind: str) -> pd.Series:
    """Return one metric's value of each run. Raises ValueError unless there is one row a run."""
    rows = scores.query("metric == @metric and kind == @kind")
    if rows.empty:
        there = ", ".join(sorted(set(scores.query("kind == @kind")["metric"])))
        raise ValueError(f"no {kind} score is called {metric!r}; there are: {there}")
    several = sorted(set(rows["params"]))
    if params is not None and params not in several:
        raise ValueError(f"{metric} has no rows with params {params!r}; there are: {several}")
    if params is not None:
        rows = rows.query("params == @params")
    if rows.duplicated("run").any():
        raise ValueError(f"{metric} has several rows a run; choose with params=, one of: {several}")
    return pd.Series(rows["value"].to_numpy(), index=rows["run"].to_numpy(), name=metric)
