"""The report's figures in a notebook: each by one call, as an interactive Plotly figure with names and a legend.

Every function takes runs: a folder, a pattern such as "runs/small/*", several of these, or one file of committed rows.
Where the runs are of several testbeds or widths, `testbed` says which: a part of its title, as `testbeds` lists them.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from unbraid.comparison.committed import is_rows
from unbraid.comparison.names import method_name
from unbraid.comparison.scores import Scores, arrange
from unbraid.comparison.stored_scores import StoredScores
from unbraid.comparison.verdict import Answer, answer
from unbraid.comparison.wording import listed
from unbraid.report.contrast_figure import contrast_plot
from unbraid.report.costs import cost_plot
from unbraid.report.dose_figure import dose_plot
from unbraid.report.figures import Plot, looks
from unbraid.report.gate_figure import gate_plot
from unbraid.report.page import read_stored, source_titles
from unbraid.report.testbed import described_by, plot_groups, primaries
from unbraid.runs.select import Runs, folders_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def testbeds(runs: Runs) -> list[str]:
    """List the testbeds of some runs by the titles that reports give them."""
    return list(by_title(runs))


def figures(runs: Runs, *, testbed: str | None = None) -> "dict[str, Figure]":
    """Draw every figure that a report on the runs has, by title."""
    stored, scores, answers = chosen(runs, testbed)
    groups = plot_groups(stored, scores, answers, described_by(stored, scores))
    return {plot.title: dressed(plot, scores) for group in groups for plot in (*group.plots, *group.more)}


def claims(runs: Runs, *, testbed: str | None = None) -> "Figure":
    """Draw each term's gain over its own base by the primaries of its claim, in smallest effects of interest.

    Raises ValueError when nothing can be judged, with the reason.
    """
    _, scores, answers = chosen(runs, testbed)
    judged = [j for found in answers for j in primaries(found)]
    why = "; ".join(said.headline for found in answers for said in found.verdicts)
    return drawn(contrast_plot("Terms against their own bases", judged), scores, why)


def gate(runs: Runs, *, testbed: str | None = None) -> "Figure":
    """Draw which scores tell good dictionaries from bad ones: truth, best method, best untrained control, chance."""
    return of_answer(runs, testbed, lambda scores, a: gate_plot(a.gate, a.smallest), "no score has a direction")


def standards(runs: Runs, *, testbed: str | None = None) -> "Figure":
    """Draw what the procedure says of standard SAEs, whose differences are known, against BatchTopK."""
    draw = lambda scores, a: contrast_plot("Standard SAEs against BatchTopK", a.standards)
    return of_answer(runs, testbed, draw, "BatchTopK and another standard SAE are needed")


def dose(runs: Runs, *, testbed: str | None = None) -> "Figure":
    """Draw how far each term got to what it asks for, next to its gain by each primary."""
    draw = lambda scores, a: dose_plot(scores, a.d_sae, primaries(a))
    return of_answer(runs, testbed, draw, "score the runs by the eval dose, or try terms at several strengths")


def costs(runs: Runs, *, testbed: str | None = None) -> "Figure":
    """Draw how long each method took to train."""
    _, scores, _ = chosen(runs, testbed)
    return drawn(cost_plot(scores), scores, "no run stored its seconds")


# ---- one of several


def of_answer(runs: Runs, testbed: str | None, draw: Callable[[Scores, Answer], Plot | None], why: str) -> "Figure":
    """Draw one answer. Raises ValueError where the testbed has several widths, or nothing to draw."""
    _, scores, answers = chosen(runs, testbed)
    if len(answers) != 1:
        raise ValueError(
            f"the runs have {len(answers)} widths; name runs of one width, or use figures(), which has all"
        )
    return drawn(draw(scores, answers[0]), scores, why)


def chosen(runs: Runs, testbed: str | None) -> tuple[StoredScores, Scores, list[Answer]]:
    """Return the testbed that is wanted, arranged and judged. Raises ValueError unless there is exactly one."""
    every = by_title(runs)
    fitting = [title for title in every if testbed is None or testbed.lower() in title.lower()]
    if len(fitting) != 1:
        raise ValueError(f"{len(fitting)} testbeds fit; name one by testbed=, of: {listed(list(every))}")
    stored = every[fitting[0]]
    scores = arrange(stored)
    return stored, scores, [answer(scores, d_sae) for d_sae in scores.widths]


def by_title(runs: Runs) -> dict[str, StoredScores]:
    """Read runs, testbed by testbed."""
    rows = [Path(runs)] if isinstance(runs, str | Path) and is_rows(Path(runs)) else []
    stored = read_stored(rows or folders_of(runs))
    sources = list(dict.fromkeys(run.source for run in stored.runs))
    titles = source_titles(stored, sources)
    return {titles[source]: stored.of(source) for source in sources}


def drawn(plot: Plot | None, scores: Scores, why: str) -> "Figure":
    """Return a figure. Raises ValueError with the reason where there is none."""
    if plot is None:
        raise ValueError(f"nothing to draw: {why}")
    return dressed(plot, scores)


def dressed(plot: Plot, scores: Scores) -> "Figure":
    """Give a figure what the page gives it: names, a legend, its title and its sentence."""
    import plotly.graph_objects as go

    names = {look.index: method_name(look.name) for look in looks(scores.methods).values()}
    copied = deepcopy(plot.figure)
    named: set[str] = set()
    for trace in copied["data"]:
        if "meta" not in trace:
            continue
        name = names[trace["meta"]]
        large = "lines" in trace["mode"] or trace.get("marker", {}).get("size", 0) >= 8
        trace |= {"name": name, "legendgroup": name, "showlegend": large and name not in named}
        named |= {name} if large else set()
    shown = bool(named) or plot.figure["layout"].get("showlegend", False)
    margin = plot.figure["layout"].get("margin", {}) | {"t": 90 if shown else 60}
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0} if shown else {}
    height = plot.figure["layout"]["height"] + (90 if shown else 50)
    title = {"text": plot.title, "subtitle": {"text": plot.reading}} if plot.reading else {"text": plot.title}
    figure = go.Figure(copied)
    figure.update_layout(
        template="plotly_white", title=title, showlegend=shown, legend=legend, margin=margin, height=height
    )
    return figure
