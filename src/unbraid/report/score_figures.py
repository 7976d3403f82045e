"""Figures of one score: dots where methods have one sparsity, curves against L0 where they have several.

Seeds are small marks; large ones are means over seeds with 95 % t-intervals. Grey: what is too small to matter around
the reference SAE, its mean ± the smallest effect of interest.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from unbraid.comparison.gate import truth_of
from unbraid.comparison.intervals import Interval, t_interval
from unbraid.comparison.names import capital
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.scores import Method, Scores, mean_value, standard_named
from unbraid.comparison.smallest_effect import REFERENCE, SmallestEffect
from unbraid.comparison.stored_scores import StoredRun
from unbraid.comparison.wording import listed, mean_half, number
from unbraid.report.figures import (
    GREYS,
    Figure,
    Look,
    NumbersTable,
    Plot,
    RunsOf,
    band,
    caption,
    chance_line,
    defined,
    dotted_line,
    escape,
    frame,
    line_of_means,
    log_axis,
    looks,
    mean_text,
    rounded,
    rows_layout,
)
from unbraid.report.table import Reasons, cell


@dataclass(frozen=True)
class ScoredSetting:
    """A method at one sparsity setting by one score."""

    method: Method
    look: Look
    name: str
    """The experiment's name."""
    runs: tuple[StoredRun, ...]
    l0: Interval
    value: Interval
    missed: bool
    """True if all its runs missed their target L0: it is drawn, and compared with nothing."""

    @property
    def label(self) -> str:
        """Its name for readers, with the requested L0 where the method has several."""
        several = len(self.method.settings) > 1
        name = f"{self.method.title}, L0 {self.runs[0].requested_l0:g}" if several else self.method.title
        return f"{name} (missed its L0)" if self.missed else name


def measured(scores: Scores, quantity: Quantity) -> list[ScoredSetting]:
    """Return every setting of every method that has the score, methods in their order."""
    return list(_measured(scores, quantity))


def _measured(scores: Scores, quantity: Quantity) -> Iterator[ScoredSetting]:
    for method, look in zip(scores.methods, looks(scores.methods).values(), strict=True):
        for name, runs in method.settings.items():
            value = t_interval([scores.value(run, quantity) for run in runs])
            if value.n:
                l0 = Interval(math.nan, math.nan, 0)
                if scores.l0 is not None:
                    l0 = t_interval([scores.value(run, scores.l0) for run in runs])
                yield ScoredSetting(
                    method, look, name, tuple(runs), l0, value, all(run in scores.missed for run in runs)
                )


def one_sparsity(points: Sequence[ScoredSetting]) -> bool:
    """True if no method but controls is drawn at several sparsities, or no L0 is known."""
    trained = [p for p in points if p.look.role != "control"] or points
    names = [p.method.name for p in trained]
    return len(set(names)) == len(names) or all(math.isnan(p.l0.mean) for p in points)


def score_plot(
    scores: Scores, quantity: Quantity, definition: str, smallest: Mapping[Quantity, SmallestEffect] | None = None,
    reasons: Reasons | None = None,
) -> Plot | None:  # fmt: skip
    """Plot a score: dots, or curves against L0. None when nothing can be drawn.

    definition: the score's, as its eval stores it. smallest: by score, from an answer. reasons: why runs have none.
    """
    points = measured(scores, quantity)
    if not points:
        return None
    dots = one_sparsity(points)
    figure = dot_plot(scores, quantity, points, smallest) if dots else curves(scores, quantity, points)
    if not figure["data"]:
        return None
    title = capital(quantity.name if quantity in scores.headline else quantity.title)
    reads = reading(scores, quantity, points)
    table = table_of(scores, quantity, reasons or {})
    return Plot(title, caption(quantity), figure, reads, table, defined(quantity, definition))


def table_of(scores: Scores, quantity: Quantity, reasons: Reasons) -> NumbersTable:
    """The means of every setting of every method, with intervals, and what is missing with its reason."""
    rows, of = [], []
    for method in scores.methods:
        for name, runs in method.settings.items():
            value = t_interval([scores.value(run, quantity) for run in runs])
            l0 = t_interval([scores.value(run, scores.l0) for run in runs]).mean if scores.l0 else math.nan
            lost = [f"seed {run.seed} missed its L0 of {run.target_l0:g}" for run in runs if run in scores.missed]
            note = "; ".join(filter(None, (cell(scores, runs, quantity, reasons).note, *lost)))
            rows.append((method.title, rounded(runs[0].requested_l0), rounded(l0), rounded(value.mean),
                         rounded(value.half), value.n, note))  # fmt: skip
            of.append((RunsOf(name, method.d_sae),))
    head = ("method", "L0 requested", "L0", "mean", "± (95 %)", "seeds", "missing")
    if any(row[-1] for row in rows):
        return NumbersTable(head, tuple(rows), tuple(of))
    return NumbersTable(head[:-1], tuple(row[:-1] for row in rows), tuple(of))


# ---- dots


def dot_plot(
    scores: Scores, quantity: Quantity, points: Sequence[ScoredSetting],
    smallest: Mapping[Quantity, SmallestEffect] | None,
) -> Figure:  # fmt: skip
    """A row a method, best first, and controls last."""
    sign = -1 if quantity.sign >= 0 else 1
    ordered = sorted(points, key=lambda p: (p.look.role == "control", sign * p.value.mean))
    seeds = [
        (value, at, run.seed, p.look)
        for at, p in enumerate(ordered)
        for run in p.runs
        if math.isfinite(value := scores.value(run, quantity))
    ]
    layout = rows_layout(quantity.name, [p.label for p in ordered])
    layout["shapes"] = levels(scores, quantity, smallest)
    layout["margin"] |= {"t": 18}
    return {"data": [seed_dots(seeds), mean_dots(ordered)], "layout": layout}


def seed_dots(seeds: Sequence[tuple[float, int, int, Look]]) -> Figure:
    """The small marks of all seeds: value, row, seed and look."""
    return {
        "type": "scatter", "mode": "markers", "showlegend": False, "x": [rounded(value) for value, *_ in seeds],
        "y": [at for _, at, *_ in seeds], "customdata": [seed for *_, seed, _ in seeds],
        "hovertemplate": "seed %{customdata}: %{x:.4~g}<extra></extra>",
        "marker": {"color": [look.colour for *_, look in seeds], "size": 5, "opacity": 0.45},
    }  # fmt: skip


def mean_dots(points: Sequence[ScoredSetting]) -> Figure:
    """The means of all rows, with intervals."""
    return {
        "type": "scatter", "mode": "markers", "showlegend": False, "x": [rounded(p.value.mean) for p in points],
        "y": list(range(len(points))), "text": [mean_text(p.label, p.value) for p in points],
        "hovertemplate": "%{x:.4~g}: %{text}<extra></extra>",
        "marker": {"color": [p.look.colour for p in points], "symbol": [p.look.symbol for p in points], "size": 9,
                   "line": {"width": 1.5, "color": [p.look.colour for p in points]}},
        "error_x": {"type": "data", "array": [finite_half(p.value) for p in points], "thickness": 1.2, "width": 3,
                    "color": GREYS[0]},
    }  # fmt: skip


def finite_half(value: Interval) -> float:
    """The half-width of an interval; 0 without one."""
    return rounded(value.half) or 0.0


def levels(scores: Scores, quantity: Quantity, smallest: Mapping[Quantity, SmallestEffect] | None) -> list[Figure]:
    """The lines that a value is compared with: chance, and what is too small to matter around the reference SAE."""
    found = []
    if math.isfinite(chance := scores.chance(quantity)):
        found.append(dotted_line(chance, "chance"))
    effect = (smallest or {}).get(quantity)
    if effect is not None and math.isfinite(effect.value) and len(scores.widths) == 1:
        around = mean_value(scores, standard_named(scores, scores.widths[0], REFERENCE), quantity)
        if math.isfinite(around):
            found.append(band(around - effect.value, around + effect.value))
    return found


# ---- curves


def curves(scores: Scores, quantity: Quantity, points: Sequence[ScoredSetting]) -> Figure:
    """A line a method against L0."""
    traces, at = [], []
    by_method: dict[str, list[ScoredSetting]] = {}
    for p in points:
        if p.l0.mean > 0:
            by_method.setdefault(p.method.name, []).append(p)
    for own in by_method.values():
        traces += [seeds_of(scores, quantity, own), mean_line(own)]
        at += [p.l0.mean for p in own]
    if not traces:
        return {"data": [], "layout": {}}
    if math.isfinite(chance := scores.chance(quantity)):
        traces.append(chance_line(min(at), max(at), chance))
    layout = frame("active latents a token (L0)", quantity.name)
    layout["xaxis"] |= log_axis(min(at), max(at))
    return {"data": traces, "layout": layout}


def seeds_of(scores: Scores, quantity: Quantity, points: Sequence[ScoredSetting]) -> Figure:
    """A method's seeds as small marks."""
    assert scores.l0 is not None
    look, title = points[0].look, points[0].method.title
    known = [(scores.value(run, scores.l0), scores.value(run, quantity), run.seed) for p in points for run in p.runs]
    known = [(x, y, seed) for x, y, seed in known if x > 0 and math.isfinite(x) and math.isfinite(y)]
    return {
        "type": "scatter", "mode": "markers", "meta": look.index, "showlegend": False,
        "x": [rounded(x, 4) for x, _, _ in known], "y": [rounded(y) for _, y, _ in known],
        "customdata": [seed for *_, seed in known],
        "hovertemplate": f"{escape(title)}, seed %{{customdata}}<br>L0 %{{x:.3~g}}, %{{y:.4~g}}<extra></extra>",
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 5, "opacity": 0.45},
    }  # fmt: skip


def mean_line(points: Sequence[ScoredSetting]) -> Figure:
    """A method's means over seeds, with intervals, joined by a line."""
    ordered = sorted(points, key=lambda p: p.l0.mean)
    texts = [mean_text(p.label, p.value) for p in ordered]
    at = [rounded(p.l0.mean) or 0.0 for p in ordered]
    look = points[0].look
    return line_of_means(at, [p.value for p in ordered], texts, look, "L0 %{x:.3~g}, %{y:.4~g}")


# ---- the sentence


def reading(scores: Scores, quantity: Quantity, points: Sequence[ScoredSetting]) -> str:
    """Read a figure of a score in a sentence: the best method, the reference, the ends of the scale."""
    trained = [p for p in points if p.look.role != "control"]
    if not trained:
        return f"Controls alone were scored: {listed([f'{p.label} {mean_half(p.value)}' for p in points[:4]])}."
    if not quantity.sign:
        low, high = (pick(trained, key=lambda p: p.value.mean) for pick in (min, max))
        if low is high:
            return f"{low.label} has {mean_half(low.value)}."
        return f"From {mean_half(low.value)} ({low.label}) to {mean_half(high.value)} ({high.label})."
    best = max(trained, key=lambda p: quantity.sign * p.value.mean)
    parts = [f"{best.label} has the {'highest' if quantity.sign > 0 else 'lowest'} mean, {mean_half(best.value)}"]
    reference = [p for p in trained if p.method.short == REFERENCE and p.method.d_sae == best.method.d_sae]
    same = [p for p in reference if p.runs[0].requested_l0 == best.runs[0].requested_l0] or reference
    if same and same[0] is not best:
        parts.append(f"{same[0].label} has {mean_half(same[0].value)}")
    return "; ".join([*parts, *ends(scores, quantity, points, best.method.d_sae)]) + "."


def ends(scores: Scores, quantity: Quantity, points: Sequence[ScoredSetting], d_sae: int) -> list[str]:
    """The ends of a score's scale: the truth, the best of what was not trained, and chance."""
    found = []
    if math.isfinite(truth := truth_of(scores, d_sae, quantity).value):
        found.append(f"the truth {number(truth)}")
    trivial = [p for p in points if p.method.role == "control" and p.method.trivial]
    if trivial:
        best = max(trivial, key=lambda p: quantity.sign * p.value.mean)
        found.append(f"{best.label}, not trained, {number(best.value.mean)}")
    if math.isfinite(chance := scores.chance(quantity, d_sae)):
        found.append(f"chance {number(chance)}")
    return found
