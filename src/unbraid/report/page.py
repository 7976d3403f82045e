"""The report's page: one self-contained HTML file with the answer, then everything that it is based on."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from unbraid.comparison import verdict as answering
from unbraid.comparison import wording as text
from unbraid.comparison.mdl_selection import EVAL as DESCRIBED
from unbraid.comparison.quantities import Quantity
from unbraid.comparison.registration import rules_of
from unbraid.comparison.scores import Scores, arrange
from unbraid.comparison.stored_scores import Definition, StoredScores, class_name, read_scores
from unbraid.report.cards import AnswerView, view
from unbraid.report.description_length import Selection, selection
from unbraid.report.figures import SYMBOL_PATHS, Look, Plot, embedded, looks, score_plot, training_plots
from unbraid.report.forest_plot import band_text
from unbraid.report.limitations import Limitation, limitations
from unbraid.report.setup import Setup, flat, setup
from unbraid.report.table import Row, requested_text, table
from unbraid.report.width import width_plots
from unbraid.system.files import write_text

TITLE = "Disentanglement or sparsity?"
MOST_CURVES = 10_000
"""Number of curves (scores times methods) up to which all scores are drawn; browsers fail on more."""
MOST_JUDGEMENTS = 5_000
"""Largest number of judgements that are listed one by one."""
QUESTION = "Should we optimise sparse autoencoders for disentanglement instead of sparsity?"


@dataclass(frozen=True)
class PlotGroup:
    """A group of figures under one title."""

    title: str
    open: bool
    plots: list[Plot]


@dataclass(frozen=True)
class Section:
    """The part of the report on one source."""

    index: int
    title: str
    answers: list[AnswerView]
    setup: Setup
    looks: dict[str, Look]
    groups: list[PlotGroup]
    undrawn: int
    """Number of scores that are not drawn because there are too many methods."""
    selection: Selection | None
    """The shortest descriptions, if they were scored."""
    columns: list[Quantity]
    rows: list[Row]
    controls: list[Row]
    runs: list[dict[str, Any]]
    definitions: list[Definition]
    limitations: list[Limitation]
    warnings: list[str]


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str = TITLE,
    question: str = QUESTION,
    rules: answering.Rules | None = None,
    card: Path | None = None,
    notice: Callable[[str], None] | None = None,
    departed: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Write the report on `runs` to `out` and return the rows behind its numbers.

    `rules`: what was decided before the runs; by default every verdict is exploratory. `card`: a registered claim card
    to read them from. `notice` is called with a message for every run that cannot be read, and `departed` for
    everything in which the runs depart from their card; the page says so too.

    Raises ValueError when no folder is given, one is not a run, or none is finished and whole.
    """
    stored = read_scores(runs)
    rules = rules if card is None else rules_of(card, stored)
    sources = list(dict.fromkeys(run.source for run in stored.runs))
    titles = source_titles(stored, sources)
    sections = [section(i, titles[s], stored.of(s), out, rules) for i, s in enumerate(sources)]
    if notice is not None:
        for found in stored.damaged:
            notice(str(found))
    if departed is not None and rules is not None:
        for change in rules.departures:
            departed(change)
    environment = Environment(
        loader=PackageLoader("unbraid.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "text": text,
        "embedded": embedded,
        "band_text": band_text,
        "symbols": answering.SYMBOLS,
    }
    environment.globals |= {"requested_text": requested_text, "symbol_paths": SYMBOL_PATHS}
    environment.globals |= {"most_judgements": MOST_JUDGEMENTS, "registered": rules is not None and bool(rules.gate)}
    page = environment.get_template("report.html.j2").render(
        title=title,
        question=question,
        sections=sections,
        skipped=stored.skipped,
        plotly=get_plotlyjs(),
        runs=len(stored.runs),
    )
    write_text(out, page)
    return stored.rows


def section(index: int, title: str, stored: StoredScores, out: Path, rules: answering.Rules | None) -> Section:
    """Build the part of the report on one source."""
    scores = arrange(stored)
    answers = [answering.answer(scores, d_sae, rules) for d_sae in scores.widths]
    views = [view(scores, found, rules) for found in answers]
    columns = scores.headline
    rows, controls = table(scores, columns, stored.missing_results)
    about = setup(scores)
    return Section(
        index, title, views, about, looks(scores.methods), plot_groups(scores, stored.definitions),
        0 if others_drawn(scores) else len(other_scores(scores)),
        selection(stored, scores), columns, rows, controls, run_list(stored, out), list(stored.definitions),
        limitations(stored, scores, answers), mixed_versions(stored.definitions) + about.warnings,
    )  # fmt: skip


def source_titles(stored: StoredScores, sources: Sequence[str]) -> dict[str, str]:
    """Title each source by its class, and by the fields in which sources of one class differ."""
    nodes = {
        source: next(run.experiment["source"] for run in stored.runs if run.source == source) for source in sources
    }
    titles = {}
    for kind in dict.fromkeys(map(class_name, nodes.values())):
        fields = {source: dict(flat(node)) for source, node in nodes.items() if class_name(node) == kind}
        names = dict.fromkeys(name for found in fields.values() for name in found)
        differing = [n for n in names if len({found.get(n) for found in fields.values()}) > 1]
        for source, found in fields.items():
            titles[source] = ", ".join([kind, *(f"{n} {found[n]}" for n in differing if n in found)])
    return titles


def plot_groups(scores: Scores, definitions: Sequence[Definition]) -> list[PlotGroup]:
    """Group the figures: headline scores, scores against width, then other scores by eval, then training curves."""
    texts = definition_texts(definitions)
    headline, rest = scores.headline, other_scores(scores) if others_drawn(scores) else []

    def plots(quantities: Sequence[Quantity]) -> list[Plot]:
        drawn = (score_plot(scores, q, texts.get((q.eval, q.metric), "")) for q in quantities)
        return [plot for plot in drawn if plot is not None]

    groups = [PlotGroup("Headline scores", True, plots(headline))]
    groups.append(PlotGroup("Against width", True, width_plots(scores, texts)))
    groups += [
        PlotGroup(f"More from {name}", False, plots([q for q in rest if q.eval == name]))
        for name in dict.fromkeys(q.eval for q in rest)
    ]
    groups.append(PlotGroup("Training curves", False, training_plots(scores)))
    return [group for group in groups if group.plots]


def other_scores(scores: Scores) -> list[Quantity]:
    """The scores that can be drawn besides those of the headline."""
    rest = [q for q in scores.quantities if q not in scores.headline and q != scores.l0 and not q.reference]
    return [q for q in rest if q.eval != DESCRIBED or not q.params]  # shown in the section on description length


def others_drawn(scores: Scores) -> bool:
    """True if scores other than the headline are drawn."""
    return len(other_scores(scores)) * len(scores.methods) <= MOST_CURVES


def definition_texts(definitions: Sequence[Definition]) -> dict[tuple[str, str], str]:
    """Definitions by eval and metric."""
    return {(d.eval, d.metric): d.text for d in definitions}


def run_list(stored: StoredScores, out: Path) -> list[dict[str, Any]]:
    """The facts on each run that the page lists."""
    return [
        {
            "run": run.run, "href": link(run.folder, out), "name": run.name, "seed": run.seed, "control": run.control,
            "d_sae": run.d_sae, "architecture": run.architecture, "seconds": run.provenance.get("seconds"),
            "finished": run.provenance.get("finished", ""),
        }
        for run in stored.runs
    ]  # fmt: skip


def link(folder: Path, out: Path) -> str:
    """A link to a run folder, relative to the report, so that both can be moved together."""
    try:
        return quote(Path(os.path.relpath(folder, out.resolve().parent)).as_posix() + "/")
    except ValueError:  # another drive
        return folder.as_uri()


def mixed_versions(definitions: Sequence[Definition]) -> list[str]:
    """Warn of evals whose scores come from several versions."""
    versions: dict[str, set[str]] = {}
    for d in definitions:
        versions.setdefault(d.eval, set()).add(d.version)
    return [
        f"Scores of {name} come from versions {text.listed(sorted(found))}, which do not compare: score all runs again."
        for name, found in sorted(versions.items())
        if len(found) > 1
    ]
