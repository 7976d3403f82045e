"""Training curves: loss terms, explained variance, L0 and dead latents against tokens, one line a run."""

import math
from typing import Any

from unbraid.comparison.intervals import t_interval
from unbraid.comparison.names import capital
from unbraid.comparison.scores import Scores
from unbraid.report.figures import NumbersTable, Plot, RunsOf, escape, frame, looks, rounded

LOG_POINTS = 50
"""Largest number of points of one curve."""
FIGURE_POINTS = 1_500
"""Largest number of points of all curves in one figure: with more a report becomes large, and a browser slow."""
FEWEST_POINTS = 6
MOST_KEYS = 6
"""Largest number of quantities that are drawn; metrics.jsonl has all."""
NAMES = {
    "metrics/l0": "Active latents a token (L0)", "sparsity/dead": "Share of dead latents",
    "metrics/fvu": "Fraction of variance unexplained", "metrics/reconstruction/fvu": "Fraction of variance unexplained",
}  # fmt: skip


def training_plots(scores: Scores) -> list[Plot]:
    """Plot loss terms, FVU, L0 and dead latents against tokens, one line per run."""
    logs = {run.run: run.log() for method in scores.methods for run in method.runs}
    known = dict.fromkeys(key for rows in logs.values() for row in rows[:1] + rows[-1:] for key in row)
    wanted = [key for key in known if key.startswith("losses/") or key in ("metrics/l0", "sparsity/dead")]
    wanted += [key for key in known if key in ("metrics/fvu", "metrics/reconstruction/fvu")]
    wanted.sort(key=lambda key: (not key.endswith("fvu"), key != "metrics/l0", key != "sparsity/dead", key))
    return [plot for key in wanted[:MOST_KEYS] if (plot := training_plot(scores, key, logs)) is not None]


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
                        "x": [row["tokens"] for row in rows], "y": [rounded(row[key], 4) for row in rows],
                        "line": {"color": look.colour, "width": 1, "dash": look.dash}, "opacity": 0.7,
                        "name": f"{escape(method.title)}, seed {run.seed}",
                        "hovertemplate": "%{fullData.name}<br>%{x:.3s} tokens, %{y:.4~g}<extra></extra>",
                    }
                )  # fmt: skip
    if not traces:
        return None
    name = NAMES.get(key, capital(key.removeprefix("losses/").replace("_", " ").replace("/", " ")))
    figure = {"data": traces, "layout": frame("tokens", name)}
    return Plot(f"{name} in training", "", figure, table=last_values(scores, key, logs), identifier=key)


def last_values(scores: Scores, key: str, logs: dict[str, list[dict[str, Any]]]) -> NumbersTable:
    """The value that each setting ended with, averaged over seeds."""
    rows, of = [], []
    for method in scores.methods:
        for name, runs in method.settings.items():
            ends = [logs[run.run][-1].get(key, math.nan) for run in runs if logs[run.run]]
            if (mean := t_interval([float(end) for end in ends])).n:
                rows.append(
                    (method.title, rounded(runs[0].requested_l0), rounded(mean.mean), rounded(mean.half), mean.n)
                )
                of.append((RunsOf(name, method.d_sae),))
    return NumbersTable(("method", "L0 requested", "last value", "± (95 %)", "seeds"), tuple(rows), tuple(of))


def thin(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Keep at most `most` rows, evenly spaced, with the first and the last."""
    if len(rows) <= most:
        return rows
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]
