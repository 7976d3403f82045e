"""The report's page: one self-contained HTML file. A claim a row first, then what it rests on, figure by figure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from unbraid.comparison import verdict as answering
from unbraid.comparison import wording as text
from unbraid.comparison.committed import is_rows, read_committed
from unbraid.comparison.names import capital, method_name, score_name, testbed_name
from unbraid.comparison.registration import rules_of
from unbraid.comparison.scores import arrange
from unbraid.comparison.stored_scores import Definition, StoredScores, class_name, read_scores
from unbraid.report.browser_links import browser_links
from unbraid.report.cards import AnswerView, judged_table, view
from unbraid.report.description_length import Selection
from unbraid.report.figures import SYMBOL_PATHS, Look, NumbersTable, Plot, embedded, looks
from unbraid.report.first_screen import ClaimRow, Judged, claim_rows, untested
from unbraid.report.library import plotly_js
from unbraid.report.limitations import Limitation, limitations
from unbraid.report.places import Places, places_of
from unbraid.report.setup import Setup, flat, setup
from unbraid.report.testbed import about, described_by, plot_groups
from unbraid.system.files import write_text

TITLE = "Disentanglement or sparsity?"
MOST_BYTES = 900_000
"""Bytes of figures up to which those of scores outside the headline are drawn; the rows have the others."""
MOST_JUDGEMENTS = 1_000
"""Largest number of judgements that are listed one by one."""
QUESTION = "Should we optimise sparse autoencoders for disentanglement instead of sparsity?"


@dataclass(frozen=True)
class Drawn:
    """A figure as the page has it."""

    plot: Plot
    data: str
    """Figure and table as JSON."""


@dataclass(frozen=True)
class DrawnGroup:
    """Figures under one title, as the page has them."""

    title: str
    about: str
    plots: list[Drawn]
    more: list[Drawn]
    undrawn: int
    """Number of figures left out because the page would become too large."""


@dataclass(frozen=True)
class Section:
    """The part of the report on one testbed."""

    index: int
    title: str
    identifier: str
    about: str
    answers: list[AnswerView]
    setup: Setup
    looks: dict[str, Look]
    groups: list[DrawnGroup]
    selection: Selection | None
    """The shortest descriptions, if they were scored."""
    places: Places
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

    `runs`: run folders, or one file of committed rows.

    `rules`: what was decided before the runs; by default every verdict is exploratory. `card`: a registered claim card
    to read them from. `notice` is called with a message for every run that cannot be read, and `departed` for
    everything in which the runs depart from their card; the page says so too.

    Raises ValueError when no folder is given, one is not a run, or none is finished and whole.
    """
    stored = read_stored(runs)
    rules = rules if card is None else rules_of(card, stored)
    sources = list(dict.fromkeys(run.source for run in stored.runs))
    titles = source_titles(stored, sources)
    room = Room(MOST_BYTES)
    sections = [section(i, titles[s], stored.of(s), out, rules, room) for i, s in enumerate(sources)]
    if notice is not None:
        for found in stored.damaged:
            notice(str(found))
    if departed is not None and rules is not None:
        for change in rules.departures:
            departed(change)
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            question=question,
            sections=sections,
            claims=first_screen(sections),
            untested=untested([(s.title, s.limitations) for s in sections]),
            skipped=stored.skipped,
            plotly=plotly_js(),
            runs=len(stored.runs),
            browser=browser_links(out),
            registered=rules is not None and bool(rules.gate),
        )
    )
    write_text(out, page)
    return stored.rows


def read_stored(paths: Sequence[Path]) -> StoredScores:
    """Read run folders, or one file of committed rows."""
    if len(paths) == 1 and is_rows(paths[0]):
        return read_committed(paths[0])
    return read_scores(paths)


def environment() -> Environment:
    """The templates, with what they call."""
    made = Environment(
        loader=PackageLoader("unbraid.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "text": text,
        "symbols": answering.SYMBOLS,
        "method_name": method_name,
        "capital": capital,
        "score_name": score_name,
    }
    made.globals |= {"symbol_paths": SYMBOL_PATHS, "most_judgements": MOST_JUDGEMENTS, "judged_data": judged_data}
    made.filters["method_name"] = method_name
    return made


class Room:
    """The bytes that are left for figures which a page can do without."""

    def __init__(self, most: int):
        self.left = most

    def take(self, data: str, *, needed: bool) -> bool:
        """Take the room for a figure; False when there is none, and it is not needed."""
        if not needed and len(data) > self.left:
            return False
        self.left -= len(data)
        return True


def section(
    index: int, title: str, stored: StoredScores, out: Path, rules: answering.Rules | None, room: Room
) -> Section:
    """Build the part of the report on one testbed."""
    scores = arrange(stored)
    answers = [answering.answer(scores, d_sae, rules) for d_sae in scores.widths]
    views = [view(scores, found, rules) for found in answers]
    described = described_by(stored, scores)
    places = places_of(scores, index, out)
    registered = rules is not None and bool(rules.gate)
    found = plot_groups(stored, scores, answers, described, registered=registered)
    needed = [[drawn(plot, places) for plot in group.plots] for group in found]
    for data in (each.data for plots in needed for each in plots):
        room.take(data, needed=True)
    groups = []
    for group, plots in zip(found, needed, strict=True):
        more = [drawn(plot, places) for plot in group.more]
        kept = [each for each in more if room.take(each.data, needed=False)]
        groups.append(DrawnGroup(group.title, group.about, plots, kept, len(more) - len(kept)))
    settings = setup(scores)
    return Section(
        index, title, stored.runs[0].source, about(scores, title), views, settings, looks(scores.methods), groups,
        described, places, list(stored.definitions), limitations(stored, scores, answers),
        mixed_versions(stored.definitions) + settings.warnings,
    )  # fmt: skip


def first_screen(sections: Sequence[Section]) -> list[ClaimRow]:
    """Arrange the verdicts of all testbeds, claim by claim."""
    judged = []
    for s in sections:
        for v in s.answers:
            wide = f", {v.answer.d_sae:,} latents" if len(s.answers) > 1 else ""
            judged.append(Judged(s.title + wide, s.identifier, f"#s{s.index}", v.answer, s.places))
    return claim_rows(judged)


def judged_data(view: AnswerView, places: Places) -> str:
    """The first judgements of an answer as JSON, primaries first."""
    table = judged_table(view.judged[:MOST_JUDGEMENTS], view.answer.d_sae)
    return embedded({"figure": None, "table": table_data(table, places)})


def drawn(plot: Plot, places: Places) -> Drawn:
    """Write a figure with its table."""
    table = None if plot.table is None else table_data(plot.table, places)
    return Drawn(plot, embedded({"figure": plot.figure, "table": table}))


def table_data(table: NumbersTable, places: Places) -> dict[str, Any]:
    """Return a table as the page reads it: each row with links to its runs."""
    return {"head": table.head, "rows": table.rows, "runs": list(map(places.links, table.runs))}


def source_titles(stored: StoredScores, sources: Sequence[str]) -> dict[str, str]:
    """Title each testbed by what readers call it, and by the fields in which those of one title differ."""
    nodes = {
        source: next(run.experiment["source"] for run in stored.runs if run.source == source) for source in sources
    }
    titles = {}
    for name in dict.fromkeys(map(testbed_name, nodes.values())):
        fields = {
            source: {"kind": class_name(node), **dict(flat(node))}
            for source, node in nodes.items()
            if testbed_name(node) == name
        }
        names = dict.fromkeys(key for found in fields.values() for key in found)
        differing = [n for n in names if len({found.get(n) for found in fields.values()}) > 1]
        for source, found in fields.items():
            titles[source] = ", ".join([name, *(f"{n.replace('_', ' ')} {found[n]}" for n in differing if n in found)])
    return titles


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
