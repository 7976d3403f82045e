"""Scores against width: what becomes of a method as its dictionary grows, in studies that have it at several widths.

    change_k = y[widest, k] - y[narrowest, k] of seed k,   mean over seeds with its interval

A line is a method at one sparsity setting. Runs that missed the requested L0 are left out, as everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from unbraid.comparison.intervals import Interval, t_interval
from unbraid.comparison.names import capital, method_name
from unbraid.comparison.quantities import Quantity, ScoreSelector
from unbraid.comparison.scores import Role, Scores
from unbraid.comparison.stored_scores import StoredRun
from unbraid.comparison.wording import change, plural
from unbraid.report.description_length import look_of
from unbraid.report.figures import (
    Figure,
    Look,
    NumbersTable,
    Plot,
    RunsOf,
    caption,
    defined,
    frame,
    line_of_means,
    mean_text,
    rounded,
    width_axis,
)

MORE = (
    ScoreSelector("memorisation", "product_latents"),
    ScoreSelector("memorisation", "product_share"),
    ScoreSelector("splitting", "represented"),
)
"""Scores that are about width and no headline scores."""


@dataclass(frozen=True)
class Grown:
    """A method at one sparsity setting, at two widths or more."""

    name: str
    """The experiment's name."""
    method: str
    role: Role
    by_width: Mapping[int, tuple[StoredRun, ...]]
    """Its runs, narrowest first."""

    def value(self, scores: Scores, quantity: Quantity, d_sae: int) -> Interval:
        """The mean over seeds at a width, with its interval."""
        return t_interval([scores.value(run, quantity) for run in self.by_width[d_sae]])

    def change(self, scores: Scores, quantity: Quantity) -> Interval:
        """The change from the narrowest to the widest, seed by seed: its mean with its interval."""
        narrow, *_, wide = (
            {run.seed: scores.value(run, quantity) for run in runs} for runs in self.by_width.values()
        )  # fmt: skip
        return t_interval([wide[seed] - narrow[seed] for seed in sorted(wide.keys() & narrow.keys())])


def grown(scores: Scores) -> list[Grown]:
    """Return what there is at two widths or more, methods first."""
    missed = {run.run for run in scores.missed}
    found: dict[tuple[str, str, Role], dict[int, tuple[StoredRun, ...]]] = {}
    for method in scores.methods:
        for name, runs in method.settings.items():
            if kept := tuple(run for run in runs if run.run not in missed):
                found.setdefault((name, kept[0].method, method.role), {})[method.d_sae] = kept
    return [
        Grown(name, method, role, dict(sorted(by_width.items())))
        for (name, method, role), by_width in found.items()
        if len(by_width) > 1
    ]


def shown(scores: Scores) -> list[Quantity]:
    """Return the scores that are drawn against width: the headline's, and those that are about width."""
    return [*scores.headline, *(q for one in MORE if (q := scores.find(one)) is not None)]


def width_plots(scores: Scores, texts: Mapping[tuple[str, str], str]) -> list[Plot]:
    """Plot every score against width, means over seeds with intervals; nothing where there is one width.

    texts: definitions by eval and metric.
    """
    lines = grown(scores)
    plots = [width_plot(scores, q, lines, texts.get((q.eval, q.metric), "")) for q in shown(scores)]
    return [plot for plot in plots if plot.figure["data"]]


def width_plot(scores: Scores, quantity: Quantity, lines: list[Grown], definition: str) -> Plot:
    """Plot one score against width."""
    traces = [line(scores, quantity, one, look_of(one.method, scores)) for one in lines]
    drawn = [trace for trace in traces if trace["x"]]
    layout = frame("latents", quantity.name)
    if widths := {int(width) for trace in drawn for width in trace["x"]}:
        layout["xaxis"] |= width_axis(widths)
    title = f"{capital(quantity.title)} against width"
    figure = {"data": drawn, "layout": layout}
    table = table_of(scores, quantity, lines)
    return Plot(
        title, caption(quantity), figure, reading(scores, quantity, lines), table, defined(quantity, definition)
    )


def reading(scores: Scores, quantity: Quantity, lines: list[Grown]) -> str:
    """Say what changes most from the narrowest to the widest."""
    changes = [(one, one.change(scores, quantity)) for one in lines if one.role != "control"]
    known = [(one, found) for one, found in changes if found.n]
    if not known:
        return ""
    one, most = max(known, key=lambda entry: abs(entry[1].mean))
    narrow, *_, wide = one.by_width
    said = (
        f"From {narrow:,} to {wide:,} latents {method_name(one.name)} changes most, by {change(most.mean, most.half)}"
    )
    flat = sum(abs(found.mean) <= found.half for _, found in known)
    return f"{said}; of {plural(len(known), 'line')} {flat} {'is' if flat == 1 else 'are'} not shown to change."


def table_of(scores: Scores, quantity: Quantity, lines: list[Grown]) -> NumbersTable:
    """The means by width, with their intervals."""
    rows, of = [], []
    for one in lines:
        for width in one.by_width:
            if (value := one.value(scores, quantity, width)).n:
                rows.append((method_name(one.name), width, rounded(value.mean), rounded(value.half), value.n))
                of.append((RunsOf(one.name, width),))
    return NumbersTable(("method", "latents", "mean", "± (95 %)", "seeds"), tuple(rows), tuple(of))


def line(scores: Scores, quantity: Quantity, one: Grown, look: Look) -> Figure:
    """A trace of means over seeds by width, with intervals."""
    values = {width: one.value(scores, quantity, width) for width in one.by_width}
    known = {width: value for width, value in values.items() if value.n}
    texts = [mean_text(one.name, value) for value in known.values()]
    return line_of_means(
        [float(width) for width in known], list(known.values()), texts, look, "%{x:,} latents, %{y:.4~g}"
    )
