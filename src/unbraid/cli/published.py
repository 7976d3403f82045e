"""The command that compares runs with published SAEs."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from unbraid.cli.arguments import PublishedFlags
from unbraid.cli.calls import Call
from unbraid.cli.named_runs import finished_runs, report_unread
from unbraid.comparison.wording import number, signed
from unbraid.system.each import each
from unbraid.system.terminal import name as on_one_line
from unbraid.system.terminal import say

if TYPE_CHECKING:
    from unbraid.saebench.check_published import PublishedCheck, PublishedRow

TITLES = ("score", "yours", "published at this L0", "difference", "noise")


def run_check_published(call: Call[PublishedFlags]) -> int:
    """Print each finished run next to published SAEs: 1 when a run could not be read, which is named."""
    from unbraid.saebench.check_published import check_run
    from unbraid.saebench.figures import check_architecture

    options = call.options
    check_architecture(options.architecture)
    checks, unread = each(finished_runs(options.runs), lambda folder: check_run(folder, options.architecture))
    if checks:
        say("\n\n".join("\n".join(lines_of(check)) for check in checks))
    report_unread(unread)
    return 1 if unread else 0


def lines_of(check: "PublishedCheck") -> Iterator[str]:
    """The run, a table of its scores, and what to know about them, a line each."""
    yield on_one_line(check.run)
    sparsity = "L0 not known: unbraid eval RUN --evals fidelity" if check.l0 is None else f"L0 {number(check.l0)}"
    yield f"  {check.about}; {sparsity}{f' ({check.l0_from})' if check.l0_from else ''}"
    if check.nothing:
        yield f"  {check.nothing}"
        return
    yield from table([TITLES, *map(cells, check.rows)])
    scored = {
        f"{row.eval}: {text}": None for row in check.rows for text in (row.missing, "; ".join(row.differs)) if text
    }
    yield from (f"  {text}" for text in (*scored, *check.differs))
    sources = [row.source.rpartition(": ") for row in check.rows]
    for source in dict.fromkeys(source for source, _, _ in sources):
        files = dict.fromkeys(file for of, _, file in sources if of == source)
        yield f"  published in {source}: {', '.join(files)}"


def cells(row: "PublishedRow") -> tuple[str, ...]:
    """A row of the table; where nothing was published at the run's L0, the nearest that was."""
    decimals = 4
    shown = lambda value: "–" if value is None else number(value, decimals)
    there = f"{shown(row.nearest[1])} at L0 {number(row.nearest[0])}" if row.published is None else shown(row.published)
    gap = "–" if row.difference is None else signed(row.difference, decimals)
    return row.score, shown(row.yours), there, gap, "–" if row.noise is None else f"≤ {shown(row.noise)}"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows in columns, the first flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        right = "  ".join(f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        yield f"  {first:<{widths[0]}}  {right}"
