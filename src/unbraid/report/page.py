"""One self-contained HTML file: the answer, then everything it rests on."""

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
from unbraid.comparison.compare import Quantity, Scores, arrange
from unbraid.comparison.mdl_selection import EVAL as DESCRIBED
from unbraid.comparison.stored_scores import Definition, Study, class_name, read_study
from unbraid.report.description_length import Selection, selection
from unbraid.report.figures import SYMBOL_PATHS, Look, Plot, embedded, looks, score_plot, training_plots
from unbraid.report.forest import forest
from unbraid.report.gaps import Gap, gaps
from unbraid.report.setup import Setup, flat, setup
from unbraid.report.table import Row, requested_text, table
from unbraid.system.files import write_text

TITLE = "Disentanglement or sparsity?"
MOST_CURVES = 10_000
"""Curves (scores times methods) up to which scores beside the headline are drawn: a page of more opens no browser."""
MOST_COMPARISONS = 5_000
"""Comparisons that are listed one by one."""
QUESTION = "Should we optimise sparse autoencoders for disentanglement instead of sparsity?"


@dataclass(frozen=True)
class PlotGroup:
    title: str
    open: bool
    plots: list[Plot]


@dataclass(frozen=True)
class Section:
    """Everything about one source."""

    index: int
    title: str
    answers: list[answering.Answer]
    setup: Setup
    looks: dict[str, Look]
    groups: list[PlotGroup]
    undrawn: int
    """Scores that are not drawn, because there are too many methods."""
    selection: Selection | None
    """Shortest descriptions, where they were scored."""
    columns: list[Quantity]
    rows: list[Row]
    controls: list[Row]
    runs: list[dict[str, Any]]
    definitions: list[Definition]
    gaps: list[Gap]
    warnings: list[str]
    texts: dict[tuple[str, str], str]
    """Definitions by eval and metric."""


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str = TITLE,
    question: str = QUESTION,
    notice: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Write the report on `runs` to `out` and return the rows behind its numbers. `notice` is told of every run that
    cannot be read; the page says so too.

    Raises ValueError when no folder is given, one is not a run, or none is finished and whole.
    """
    study = read_study(runs)
    sources = list(dict.fromkeys(run.source for run in study.runs))
    titles = source_titles(study, sources)
    sections = [section(i, titles[s], study.of(s), out) for i, s in enumerate(sources)]
    if notice is not None:
        for found in study.damaged:
            notice(str(found))
    environment = Environment(
        loader=PackageLoader("unbraid.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"text": text, "embedded": embedded, "forest": forest, "symbols": answering.SYMBOLS}
    environment.globals |= {"requested_text": requested_text, "symbol_paths": SYMBOL_PATHS}
    environment.globals |= {"most_comparisons": MOST_COMPARISONS}
    page = environment.get_template("report.html.j2").render(
        title=title,
        question=question,
        sections=sections,
        skipped=study.skipped,
        plotly=get_plotlyjs(),
        runs=len(study.runs),
    )
    write_text(out, page)
    return study.rows


def section(index: int, title: str, study: Study, out: Path) -> Section:
    scores = arrange(study)
    answers = [answering.answer(scores, d_sae) for d_sae in scores.widths]
    columns = scores.headline
    rows, controls = table(scores, columns, study.holes)
    about = setup(scores)
    return Section(
        index, title, answers, about, looks(scores.methods), plot_groups(scores, study.definitions),
        0 if drawn_beside(scores) else len(beside_headline(scores)),
        selection(study, scores), columns, rows, controls, run_list(study, out), list(study.definitions),
        gaps(study, scores, answers), mixed_versions(study.definitions) + about.warnings,
        definition_texts(study.definitions),
    )  # fmt: skip


def source_titles(study: Study, sources: Sequence[str]) -> dict[str, str]:
    """The class of each source, and the fields in which sources of one class differ."""
    nodes = {source: next(run.experiment["source"] for run in study.runs if run.source == source) for source in sources}
    titles = {}
    for kind in dict.fromkeys(map(class_name, nodes.values())):
        fields = {source: dict(flat(node)) for source, node in nodes.items() if class_name(node) == kind}
        names = dict.fromkeys(name for found in fields.values() for name in found)
        differing = [n for n in names if len({found.get(n) for found in fields.values()}) > 1]
        for source, found in fields.items():
            titles[source] = ", ".join([kind, *(f"{n} {found[n]}" for n in differing if n in found)])
    return titles


def plot_groups(scores: Scores, definitions: Sequence[Definition]) -> list[PlotGroup]:
    """Headline scores, then the rest by eval, then training."""
    texts = definition_texts(definitions)
    headline, rest = scores.headline, beside_headline(scores) if drawn_beside(scores) else []

    def plots(quantities: Sequence[Quantity]) -> list[Plot]:
        drawn = (score_plot(scores, q, texts.get((q.eval, q.metric), "")) for q in quantities)
        return [plot for plot in drawn if plot is not None]

    groups = [PlotGroup("Headline scores", True, plots(headline))]
    groups += [
        PlotGroup(f"More from {name}", False, plots([q for q in rest if q.eval == name]))
        for name in dict.fromkeys(q.eval for q in rest)
    ]
    groups.append(PlotGroup("Training curves", False, training_plots(scores)))
    return [group for group in groups if group.plots]


def beside_headline(scores: Scores) -> list[Quantity]:
    """Scores that could be drawn besides those of the headline."""
    rest = [q for q in scores.quantities if q not in scores.headline and q != scores.l0 and not q.reference]
    return [q for q in rest if q.eval != DESCRIBED or not q.params]  # curves of their own show those


def drawn_beside(scores: Scores) -> bool:
    return len(beside_headline(scores)) * len(scores.methods) <= MOST_CURVES


def definition_texts(definitions: Sequence[Definition]) -> dict[tuple[str, str], str]:
    return {(d.eval, d.metric): d.text for d in definitions}


def run_list(study: Study, out: Path) -> list[dict[str, Any]]:
    return [
        {
            "run": run.run, "href": link(run.folder, out), "name": run.name, "seed": run.seed, "control": run.control,
            "d_sae": run.d_sae, "architecture": run.architecture, "seconds": run.provenance.get("seconds"),
            "finished": run.provenance.get("finished", ""),
        }
        for run in study.runs
    ]  # fmt: skip


def link(folder: Path, out: Path) -> str:
    """Relative to the report, so that the two can move together."""
    try:
        return quote(Path(os.path.relpath(folder, out.resolve().parent)).as_posix() + "/")
    except ValueError:  # another drive
        return folder.as_uri()


def mixed_versions(definitions: Sequence[Definition]) -> list[str]:
    versions: dict[str, set[str]] = {}
    for d in definitions:
        versions.setdefault(d.eval, set()).add(d.version)
    return [
        f"Scores of {name} come from versions {text.listed(sorted(found))}, which do not compare: score all runs again."
        for name, found in sorted(versions.items())
        if len(found) > 1
    ]
