"""Costs in the report: how long each method took to train, as its runs stored it.

Runs that were trained together on one stream share their time, and store a share each.
"""

import math
from collections.abc import Sequence

from unbraid.comparison.intervals import t_interval
from unbraid.comparison.scores import Scores
from unbraid.comparison.stored_scores import StoredRun
from unbraid.comparison.wording import number
from unbraid.report.figures import NumbersTable, Plot, RunsOf, looks, mean_text, rounded, rows_layout


def seconds_of(run: StoredRun) -> float:
    """The seconds that training took; NaN where none are stored."""
    seconds = run.provenance.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else math.nan


def cost_plot(scores: Scores) -> Plot | None:
    """Draw the seconds of training by method, most expensive first; None when no run stored any."""
    found = []
    for method, look in zip(scores.methods, looks(scores.methods).values(), strict=True):
        for name, runs in method.settings.items():
            if (mean := t_interval([seconds_of(run) for run in runs])).n and method.role != "control":
                found.append((mean, method, name, look, runs))
    if not found:
        return None
    found.sort(key=lambda entry: -entry[0].mean)
    several = len({method.name for _, method, *_ in found}) < len(found)
    labels = [f"{m.title}, L0 {runs[0].requested_l0:g}" if several else m.title for _, m, _, _, runs in found]
    trace = {
        "type": "bar", "orientation": "h", "showlegend": False, "x": [rounded(mean.mean) for mean, *_ in found],
        "y": list(range(len(found))), "text": [mean_text(label, e[0]) for label, e in zip(labels, found, strict=True)],
        "textposition": "none", "hovertemplate": "%{x:.3~g} s: %{text}<extra></extra>",
        "marker": {"color": [look.colour for _, _, _, look, _ in found]}, "width": 0.6,
    }  # fmt: skip
    rows = [(m.title, rounded(runs[0].requested_l0), rounded(mean.mean), rounded(mean.half), mean.n, tokens_of(runs))
            for mean, m, _, _, runs in found]  # fmt: skip
    first, last = found[0], found[-1]
    reads = f"{labels[0]} took longest, {number(first[0].mean)} s a run; {labels[-1]} {number(last[0].mean)} s."
    table = NumbersTable(("method", "L0 requested", "seconds a run", "± (95 %)", "seeds", "tokens"), tuple(rows),
                  tuple((RunsOf(name, m.d_sae),) for _, m, name, *_ in found))  # fmt: skip
    figure = {"data": [trace], "layout": rows_layout("seconds of training", labels)}
    return Plot("Time of training", "", figure, reads, table, "seconds")


def tokens_of(runs: Sequence[StoredRun]) -> float | None:
    """The mean number of tokens that runs were trained on; None where none stored it."""
    return rounded(t_interval([float(run.provenance.get("tokens", math.nan)) for run in runs]).mean)
