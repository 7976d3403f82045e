"""Every number of a report leads to the runs that it is from, and can be made again from what these store."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from tests.report.planted import planted
from tests.report.test_answer import TWO

from unbraid.report import collect, write_report

TABLE = re.compile(
    r"<b title=\"(?P<identifier>[^\"]*)\">(?P<title>[^<]*)</b>(?:(?!</figure>).)*?"
    r"<script type=\"application/json\">(?P<data>.*?)</script>|"
    r"(?P<judged>\d+) judgements, primaries first.*?<script type=\"application/json\">(?P<more>.*?)</script>",
    re.DOTALL,
)


@dataclass(frozen=True)
class Traced:
    """A report: its tables by title, and the runs that each anchor leads to."""

    html: str
    rows: pd.DataFrame

    @property
    def tables(self) -> list[tuple[str, str, dict]]:
        """Title, identifier and numbers of each table; those of one title once a width."""
        found = []
        for match in TABLE.finditer(self.html):
            table = json.loads(match["data"] or match["more"])["table"]
            if table is not None:
                found.append((match["title"] or "judgements", match["identifier"] or "", table))
        return found

    @property
    def anchors(self) -> dict[str, list[str]]:
        """The runs by anchor: of a setting, and of a method all its settings', up to the next method."""
        found: dict[str, list[str]] = {}
        method = ""
        listed = self.html.partition('<table class="runs">')[2].partition("</table>")[0]
        for anchor, body in re.findall(r'<tbody id="(\w+)">(.*?)</tbody>', listed, re.DOTALL):
            runs = re.findall(r'<th scope="row">(?:<a href="[^"]*">)?([^<]+)', body)
            if first := re.search(r'<tr class="divider" id="(\w+)"', body):
                method = first[1]
            found[anchor] = runs
            found.setdefault(method, []).extend(runs)
        return found

    def mean(self, anchor: str, metric: str) -> float:
        """The mean of a score over the runs of an anchor."""
        own = self.rows[(self.rows.metric == metric) & (self.rows.kind == "measured")]
        return float(own.loc[own.run.isin(self.anchors[anchor]), "value"].mean())


def report(folders: list[Path], out: Path) -> Traced:
    write_report(folders, out)
    return Traced(out.read_text(encoding="utf-8"), collect(folders))


@pytest.fixture(scope="module")
def traced(tmp_path_factory) -> Traced:
    """A study at two widths, with two L0s, terms of both claims, logs and controls."""
    root: Path = tmp_path_factory.mktemp("traced")
    terms = {"hsic": {"f1": 0.06}, "melbo": {"isolation": -0.08}}
    about = {"knobs": ("melbo",), "bases": TWO, "seeds": range(4), "l0s": (8, 16), "log": True}
    folders = [folder for width in (512, 1024) for folder in planted(root / str(width), terms, d_sae=width, **about)]
    return report(folders, root / "report.html")


def test_every_row_of_every_table_leads_to_runs(traced: Traced):
    anchors = traced.anchors
    titles = [title for title, _, _ in traced.tables]
    assert {"judgements", "Standard SAEs against BatchTopK at 512 latents"} <= set(titles)
    assert len(titles) > 20
    for title, _, table in traced.tables:
        assert len(table["runs"]) == len(table["rows"]), title
        for row, links in zip(table["rows"], table["runs"], strict=True):
            assert links, (title, row)
            assert all(anchors[anchor] for _, anchor in links), (title, row)


def test_every_link_of_the_first_screen_and_the_grids_leads_to_runs(traced: Traced):
    links = re.findall(r'<a class="runs" href="#(\w+)" title="([^"]+): its runs"', traced.html)
    assert len(links) > 12
    for anchor, name in links:
        assert all(run.startswith(f"{name}-l0_") for run in traced.anchors[anchor]), (anchor, name)
    forest = re.findall(r'<table class="forest">.*?</table>', traced.html, re.DOTALL)
    rows = re.findall(r'<tr class="[^"]*" title="[^"]* against .*?</tr>', "".join(forest), re.DOTALL)
    assert len(rows) == 8 and all(row.count('<a class="runs"') == 2 for row in rows)


def test_a_mean_is_the_mean_of_the_runs_that_its_row_leads_to(traced: Traced):
    seen = 0
    for title, identifier, table in traced.tables:
        metric = identifier.partition(":")[0].partition(".")[2].partition(" ")[0]
        if "mean" not in table["head"] or metric not in set(traced.rows.metric):
            continue
        at = table["head"].index("mean")
        for row, ((_, anchor),) in zip(table["rows"], table["runs"], strict=True):
            if row[at] is not None:
                assert row[at] == pytest.approx(traced.mean(anchor, metric), rel=1e-4), (title, row)
                seen += 1
    assert seen > 100


def test_both_values_of_a_judgement_are_those_of_the_runs_of_both_sides(traced: Traced):
    (width,) = {len(t["rows"]) for title, _, t in traced.tables if title == "judgements"}
    names = {"F1 of one latent a factor": "f1", "full absorption": "absorption_full", "isolation": "isolation"}
    seen = 0
    for _, _, table in (entry for entry in traced.tables if entry[0] == "judgements"):
        for cells, links in zip(table["rows"], table["runs"], strict=True):
            row = dict(zip(table["head"], cells, strict=True))
            if row["held equal"] == "L0" and row["score"] in names and row["levels"].count(",") == 1:
                for (_, anchor), value in zip(links, (row["value"], row["base's value"]), strict=True):
                    # read off curves at the base's L0, which is a little beside the method's
                    assert value == pytest.approx(traced.mean(anchor, names[row["score"]]), rel=2e-2, abs=2e-3)
                seen += 1
    assert width > 30 and seen >= 8


def test_a_width_leads_to_its_own_runs(traced: Traced):
    for title, _, table in traced.tables:
        for wide in (512, 1024):
            if not title.endswith(f"at {wide:,} latents"):
                continue
            known = set(traced.rows[traced.rows.d_sae == wide].run)
            assert all(set(traced.anchors[anchor]) <= known for links in table["runs"] for _, anchor in links), title
