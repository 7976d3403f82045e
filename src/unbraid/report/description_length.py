"""Description length in the report: rate-distortion curves, bits against width, and the selected settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unbraid.comparison.intervals import t_interval
from unbraid.comparison.mdl_selection import (
    CODING_SCHEMES,
    CodingScheme,
    Distortion,
    Pick,
    Setting,
    description_length_rows,
    distortions,
    pick,
    settings,
)
from unbraid.comparison.names import method_name
from unbraid.comparison.scores import Scores
from unbraid.comparison.stored_scores import StoredScores
from unbraid.report.figures import (
    Cell,
    Figure,
    Look,
    NumbersTable,
    Plot,
    RunsOf,
    chance_line,
    frame,
    line_of_means,
    log_axis,
    looks,
    mean_text,
    rounded,
    width_axis,
)

AXIS = {"fvu": "FVU after rounding", "nats": "cross-entropy added, nats a token"}

Settings = Mapping[tuple[CodingScheme, Distortion], Sequence[Setting]]


@dataclass(frozen=True)
class Selection:
    """The section on description length."""

    schemes: tuple[CodingScheme, ...]
    picks: list[tuple[Distortion, list[Pick | None]]]
    """For each distortion, a pick per scheme."""
    plots: list[Plot]


def selection(stored: StoredScores, scores: Scores) -> Selection | None:
    """Build the section on description length; None when no run was scored by `description_length`."""
    wanted = distortions(stored)
    if not wanted:
        return None
    table = {(scheme, at): settings(stored, scheme, at) for scheme in CODING_SCHEMES for at in wanted}
    picks = [(at, [pick(table[scheme, at]) for scheme in CODING_SCHEMES]) for at in wanted]
    plots = [
        rate_distortion(stored, table, scheme, [at for at in wanted if at.axis == axis], scores)
        for axis in AXIS
        for scheme in CODING_SCHEMES
        if any(at.axis == axis for at in wanted)
    ]
    if len({s.d_sae for found in table.values() for s in found if not s.control}) > 1:
        plots += [against_width(table, scheme, common(table, wanted), scores) for scheme in CODING_SCHEMES]
    return Selection(CODING_SCHEMES, [p for p in picks if any(p[1])], plots)


def common(table: Settings, wanted: Sequence[Distortion]) -> Distortion:
    """The smallest FVU that at least half of the settings reach; else the largest."""
    share = lambda at: [s.reached for s in table[CODING_SCHEMES[0], at] if not s.control]
    reached = [at for at in wanted if at.axis == "fvu" and 2 * sum(share(at)) >= len(share(at))]
    return reached[0] if reached else [at for at in wanted if at.axis == "fvu"][-1]


def rate_distortion(
    stored: StoredScores, table_of: Settings, scheme: CodingScheme, wanted: Sequence[Distortion], scores: Scores
) -> Plot:
    """Plot the fewest bits over each method's settings against distortion."""
    traces, rows, runs = [], [], []
    for method, look in zip(scores.methods, looks(scores.methods).values(), strict=True):
        best = {at: shortest(table_of[scheme, at], set(method.settings), method.d_sae) for at in wanted}
        points = [(at.at, found) for at, found in best.items() if found is not None]
        traces += [line(points, look, "distortion")] if points else []
        rows += [(method.title, at, *numbers(found)) for at, found in points]
        runs += [(RunsOf(found.name, found.d_sae),) for _, found in points]
    linear = principal(stored, wanted) if scheme.decoder == "without" else []
    if linear:
        traces.append(dotted(linear))
    layout = frame(AXIS[wanted[0].axis], "bits a token")
    layout["xaxis"] |= log_axis(wanted[0].at, wanted[-1].at) | {"tickvals": [at.at for at in wanted]}
    layout["xaxis"] |= {"ticktext": [f"{at.at:g}" for at in wanted]}
    layout["yaxis"]["rangemode"] = "tozero"
    caption = "fewest bits of each method's settings at each distortion; all seeds reach it"
    caption += " · dotted: principal components" if linear else ""
    table = NumbersTable(("method", "distortion", *NUMBERS), tuple(rows), tuple(runs))
    reads = picked([pick(table_of[scheme, at]) for at in wanted], wanted)
    figure = {"data": traces, "layout": layout}
    return Plot(f"Rate and distortion: {scheme.label}", caption, figure, reads, table, "bits_per_token")


NUMBERS = ("setting", "bits a token", "± (95 %)", "seeds")


def numbers(found: Setting) -> tuple[Cell, ...]:
    """A setting's name and bits, as tables have them."""
    return method_name(found.label), rounded(found.mean.mean), rounded(found.mean.half), found.mean.n


def picked(picks: Sequence[Pick | None], wanted: Sequence[Distortion]) -> str:
    """Say which settings describe shortest."""
    known = [(at, one) for at, one in zip(wanted, picks, strict=True) if one is not None]
    if not known:
        return "No setting reaches any of these distortions with all its seeds."
    names = list(dict.fromkeys(method_name(one.best.label) for _, one in known))
    if len(names) == 1:
        return f"{names[0]} describes shortest at every distortion that is reached."
    return "Shortest: " + ", ".join(f"{method_name(one.best.label)} at {at.at:g}" for at, one in known) + "."


def against_width(table_of: Settings, scheme: CodingScheme, at: Distortion, scores: Scores) -> Plot:
    """Plot the fewest bits over each method's settings against width."""
    found = table_of[scheme, at]
    traces, rows, runs = [], [], []
    for name in dict.fromkeys(s.method for s in found if not s.control):
        widths = sorted({s.d_sae for s in found if s.method == name})
        best = [(width, shortest(found, {s.name for s in found if s.method == name}, width)) for width in widths]
        points = [(float(width), setting) for width, setting in best if setting is not None]
        traces += [line(points, look_of(name, scores), "latents")] if points else []
        rows += [(method_name(name), width, *numbers(setting)) for width, setting in points]
        runs += [(RunsOf(setting.name, setting.d_sae),) for _, setting in points]
    layout = frame("latents", "bits a token")
    layout["xaxis"] |= width_axis({s.d_sae for s in found if not s.control})
    title = f"Bits and width at {at.label}: {scheme.label}"
    shortest_of = min(rows, key=lambda row: row[3], default=None)
    reads = (
        f"{shortest_of[0]} at {shortest_of[1]:g} latents has the fewest, {shortest_of[3]:.4g}." if shortest_of else ""
    )
    figure, numbers_ = (
        {"data": traces, "layout": layout},
        NumbersTable(("method", "latents", *NUMBERS), tuple(rows), tuple(runs)),
    )
    return Plot(title, "fewest bits of each method's settings at each width", figure, reads, numbers_, "bits_per_token")


def look_of(name: str, scores: Scores) -> Look:
    """The look of the first method of this name."""
    return next(
        look
        for method, look in zip(scores.methods, looks(scores.methods).values(), strict=True)
        if any(run.method == name for run in method.runs)
    )


def shortest(among: Sequence[Setting], names: set[str], d_sae: int) -> Setting | None:
    """The setting with the fewest bits among those of these names and width; None when none reaches the distortion."""
    found = [s for s in among if s.name in names and s.d_sae == d_sae and s.reached]
    return min(found, key=lambda s: s.mean.mean, default=None)


def line(points: Sequence[tuple[float, Setting]], look: Look, x: str) -> Figure:
    """A trace of mean bits with intervals, in Plotly's JSON."""
    texts = [mean_text(setting.label, setting.mean) for _, setting in points]
    means = [setting.mean for _, setting in points]
    return line_of_means([at for at, _ in points], means, texts, look, f"{x} %{{x:.3~g}}, %{{y:.4~g}} bits")


def principal(stored: StoredScores, wanted: Sequence[Distortion]) -> list[tuple[float, float]]:
    """The bits of principal components by FVU, the same for all runs."""
    found: dict[float, list[float]] = {}
    for row in description_length_rows(stored):
        if row["kind"] == "reference":
            found.setdefault(float(row["params"]["fvu"]), []).append(row["value"])
    shown = {at.at for at in wanted if at.axis == "fvu"}
    return [(at, t_interval(bits).mean) for at, bits in sorted(found.items()) if at in shown]


def dotted(points: Sequence[tuple[float, float]]) -> Figure:
    """The dotted line of principal components, in Plotly's JSON."""
    return chance_line(0.0, 1.0, 0.0) | {
        "x": [at for at, _ in points], "y": [bits for _, bits in points],
        "hovertemplate": "principal components<br>FVU %{x:.3~g}, %{y:.4~g} bits<extra></extra>",
    }  # fmt: skip
