"""Description length in the report: rate-distortion curves, bits against width, and what selection picks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unbraid.comparison.compare import Scores
from unbraid.comparison.intervals import t_interval
from unbraid.comparison.mdl_selection import (
    WAYS,
    Distortion,
    Pick,
    Setting,
    Way,
    described,
    distortions,
    pick,
    settings,
)
from unbraid.comparison.stored_scores import Study
from unbraid.report.figures import Figure, Look, Plot, chance_line, escape, frame, log_axis, looks

AXIS = {"fvu": "FVU after rounding", "nats": "cross-entropy added, nats a token"}

Table = Mapping[tuple[Way, Distortion], Sequence[Setting]]


@dataclass(frozen=True)
class Selection:
    """The section on description length."""

    ways: tuple[Way, ...]
    picks: list[tuple[Distortion, list[Pick | None]]]
    """By distortion, a pick for each way."""
    plots: list[Plot]


def selection(study: Study, scores: Scores) -> Selection | None:
    """None when no run was scored by `description_length`."""
    wanted = distortions(study)
    if not wanted:
        return None
    table = {(way, at): settings(study, way, at) for way in WAYS for at in wanted}
    picks = [(at, [pick(table[way, at]) for way in WAYS]) for at in wanted]
    plots = [
        rate_distortion(study, table, way, [at for at in wanted if at.axis == axis], scores)
        for axis in AXIS
        for way in WAYS
        if any(at.axis == axis for at in wanted)
    ]
    if len({s.d_sae for found in table.values() for s in found if not s.control}) > 1:
        plots += [against_width(table, way, common(table, wanted), scores) for way in WAYS]
    return Selection(WAYS, [p for p in picks if any(p[1])], plots)


def common(table: Table, wanted: Sequence[Distortion]) -> Distortion:
    """The smallest distortion that at least half the settings reach; else the largest."""
    share = lambda at: [s.reached for s in table[WAYS[0], at] if not s.control]
    reached = [at for at in wanted if at.axis == "fvu" and 2 * sum(share(at)) >= len(share(at))]
    return reached[0] if reached else [at for at in wanted if at.axis == "fvu"][-1]


def rate_distortion(study: Study, table: Table, way: Way, wanted: Sequence[Distortion], scores: Scores) -> Plot:
    """For each method, the fewest bits over its settings at each distortion."""
    traces = []
    for method, look in zip(scores.methods, looks(scores.methods).values(), strict=True):
        best = {at: shortest(table[way, at], set(method.settings), method.d_sae) for at in wanted}
        points = [(at.at, found) for at, found in best.items() if found is not None]
        traces += [line(points, look, "distortion")] if points else []
    linear = principal(study, wanted) if way.decoder == "without" else []
    if linear:
        traces.append(dotted(linear))
    layout = frame(AXIS[wanted[0].axis], "bits a token")
    layout["xaxis"] |= log_axis(wanted[0].at, wanted[-1].at) | {"tickvals": [at.at for at in wanted]}
    layout["xaxis"] |= {"ticktext": [f"{at.at:g}" for at in wanted]}
    layout["yaxis"]["rangemode"] = "tozero"
    caption = "fewest bits of each method's settings at each distortion; all seeds reach it"
    caption += " · dotted: principal components" if linear else ""
    return Plot(f"Rate and distortion: {way.label}", caption, {"data": traces, "layout": layout})


def against_width(table: Table, way: Way, at: Distortion, scores: Scores) -> Plot:
    """For each name, the fewest bits over its settings at each width."""
    found = table[way, at]
    traces = []
    for name in dict.fromkeys(s.method for s in found if not s.control):
        widths = sorted({s.d_sae for s in found if s.method == name})
        best = [(width, shortest(found, {s.name for s in found if s.method == name}, width)) for width in widths]
        points = [(float(width), setting) for width, setting in best if setting is not None]
        traces += [line(points, look_of(name, scores), "latents")] if points else []
    widths = sorted({s.d_sae for s in found if not s.control})
    layout = frame("latents", "bits a token")
    layout["xaxis"] |= log_axis(float(widths[0]), float(widths[-1])) | {
        "tickvals": widths,
        "ticktext": [f"{w:,}" for w in widths],
    }
    title = f"Bits and width at {at.label}: {way.label}"
    return Plot(title, "fewest bits of each method's settings at each width", {"data": traces, "layout": layout})


def look_of(name: str, scores: Scores) -> Look:
    """That of the first method of this name."""
    return next(
        look
        for method, look in zip(scores.methods, looks(scores.methods).values(), strict=True)
        if any(run.method == name for run in method.runs)
    )


def shortest(among: Sequence[Setting], names: set[str], d_sae: int) -> Setting | None:
    found = [s for s in among if s.name in names and s.d_sae == d_sae and s.reached]
    return min(found, key=lambda s: s.mean.mean, default=None)


def line(points: Sequence[tuple[float, Setting]], look: Look, x: str) -> Figure:
    means = [setting.mean for _, setting in points]
    return {
        "type": "scatter", "mode": "lines+markers", "meta": look.index, "showlegend": False,
        "x": [at for at, _ in points], "y": [mean.mean for mean in means],
        "text": [f"{escape(setting.label)}, mean of {setting.mean.n}" for _, setting in points],
        "hovertemplate": f"<b>%{{text}}</b><br>{x} %{{x:.3~g}}, %{{y:.4~g}} bits<extra></extra>",
        "line": {"color": look.colour, "width": 2, "dash": look.dash},
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 7},
        "error_y": {
            "type": "data", "array": [0.0 if math.isnan(m.half) else m.half for m in means], "thickness": 1.2,
            "width": 3, "color": look.colour,
        },
    }  # fmt: skip


def principal(study: Study, wanted: Sequence[Distortion]) -> list[tuple[float, float]]:
    """Bits of principal components, the same for all runs."""
    found: dict[float, list[float]] = {}
    for row in described(study):
        if row["kind"] == "reference":
            found.setdefault(float(row["params"]["fvu"]), []).append(row["value"])
    shown = {at.at for at in wanted if at.axis == "fvu"}
    return [(at, t_interval(bits).mean) for at, bits in sorted(found.items()) if at in shown]


def dotted(points: Sequence[tuple[float, float]]) -> Figure:
    return chance_line(0.0, 1.0, 0.0) | {
        "x": [at for at, _ in points], "y": [bits for _, bits in points],
        "hovertemplate": "principal components<br>FVU %{x:.3~g}, %{y:.4~g} bits<extra></extra>",
    }  # fmt: skip
