"""The gate's table of the page on trust: which score passes on which testbed, made from docs/results/gate.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.audit.text import NONE, figure, markdown

Row = Mapping[str, Any]


def gate_table(rows: Sequence[Row]) -> str:
    """Return a row a score and testbed that has it: the four levels, the smallest effect, and the seeds it takes."""
    head = ["score", "testbed", "truth", "best", "untrained", "chance", "passes", "smallest effect", "spread", "seeds"]
    order = list(dict.fromkeys(row["testbed"] for row in rows))
    shown = sorted(rows, key=lambda row: (name(row), order.index(row["testbed"])))
    return markdown(head, [cells(row) for row in shown])


def cells(row: Row) -> list[str]:
    levels = [level(row, key) for key in ("truth", "best", "untrained", "chance")]
    word = "**yes**" if row["passed"] else "no"
    return [f"`{name(row)}`", row["testbed"], *levels, word, level(row, "smallest"), level(row, "spread"), seeds(row)]


def name(row: Row) -> str:
    return f"{row['eval']}.{row['metric']}"


def level(row: Row, key: str) -> str:
    return NONE if row[key] is None else figure(row[key])


def seeds(row: Row) -> str:
    """Return the seeds that find the smallest effect four times of five, where one comparison is made."""
    if row["smallest"] is None or row["spread"] is None:
        return NONE
    return "> 1,000" if row["seeds_needed"] is None else str(row["seeds_needed"])
