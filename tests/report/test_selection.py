"""The MDL recipe on made-up scores: the shortest of those that reach, controls apart, a section only where scored."""

import json
import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
from benchmarks.mdl import best, by_group, rows_of
from tests.report.conftest import MakeRun, store

from unbraid.comparison.mdl_selection import CodingScheme, Distortion, distortions, pick, settings
from unbraid.comparison.stored_scores import StoredScores, read_scores
from unbraid.report import write_report

SCHEME = CodingScheme("factorised", "without")
AT = Distortion("fvu", 0.1)

Rates = dict[float, float]


def description_length_rows(run: Path, rates: Rates, *, pca: Rates | None = None) -> Path:
    """`rates`: bits by FVU; a tree saves one, the decoder costs nine."""

    def row(value: float, **params: str | float) -> dict:
        return {"metric": "description_length", "value": value, "better": "lower", "params": params}

    scores = []
    for fvu, bits in rates.items():
        for code, saved in (("factorised", 0), ("tree", 1)):
            scores.append(row(bits - saved, code=code, decoder="without", fvu=fvu))
            scores.append(row(bits - saved + 9, code=code, decoder="with", fvu=fvu))
    scores += [row(bits, kind="pca", fvu=fvu) for fvu, bits in (pca or {}).items()]
    store(run, "description_length", {"definitions": {"description_length": "bits"}, "seconds": 1.0, "scores": scores})
    return run


def grid(run: MakeRun) -> list[Path]:
    """20 bits at 64 latents; a bit less at 128, where one seed misses FVU .1; and a control of one bit."""
    made = []
    for seed in range(3):
        jitter = 0.01 * seed
        fine = {0.05: 30.0 + jitter, 0.1: 20.0 + jitter, 0.2: 12.0}
        wide = {0.1: 19.0 + jitter, 0.2: 11.0 + jitter} if seed else {0.2: 11.0}
        scores = {"l0": 4.0, "fvu": 0.03}
        made.append(description_length_rows(run("topk-l0_4", seed, scores, k=4, d_sae=64), fine, pca={0.1: 55.0}))
        made.append(description_length_rows(run("topk-l0_4", seed, scores, k=4, d_sae=128), wide))
        made.append(description_length_rows(run("relu-l0_4", seed, scores, d_sae=64), {0.1: 25.0 + jitter, 0.2: 12.5}))
        made.append(
            description_length_rows(run("untrained-l0_4", seed, scores, k=4, d_sae=64, control=True), {0.1: 1.0})
        )
    return made


@pytest.fixture
def study(run: MakeRun) -> StoredScores:
    return read_scores(grid(run))


def test_the_shortest_that_reaches_with_all_seeds_is_picked(study: StoredScores):
    found = pick(settings(study, SCHEME, AT))
    assert found is not None and found.best.label == "topk-l0_4, 64 latents"
    assert found.best.mean.mean == pytest.approx(20.01) and (found.reached, found.tried) == (2, 3)
    assert found.next is not None and found.next.name == "relu-l0_4"
    assert found.behind.mean == pytest.approx(5) and found.behind.n == 3


def test_where_all_seeds_reach_the_wider_is_shorter(study: StoredScores):
    found = pick(settings(study, SCHEME, Distortion("fvu", 0.2)))
    assert found is not None and found.best.d_sae == 128 and found.reached == 3


def test_a_control_is_never_picked_and_nothing_is_where_nothing_reaches(study: StoredScores):
    only = [s for s in settings(study, SCHEME, AT) if s.control]
    assert len(only) == 1 and only[0].reached and pick(only) is None
    assert pick(settings(study, SCHEME, Distortion("fvu", 0.01))) is None


def test_distortions_are_those_scored_in_order(study: StoredScores):
    assert [d.at for d in distortions(study)] == [0.05, 0.1, 0.2]


def test_the_report_shows_picks_and_valid_figures(run: MakeRun, tmp_path: Path):
    write_report(grid(run), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    section = page.partition(">Description length</h3>")[2].partition("<h3")[0]
    assert ">TopK L0 4, 64 latents</a></b>: 20.0" in section and ">TopK L0 4, 128 latents</a></b>" in section
    assert "untrained" not in section.partition("<figure")[0]
    drawn = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', section, re.S)]
    assert len(drawn) == 8, "four ways of counting, along distortion and along width"
    for each in drawn:
        go.Figure(each["figure"])
        assert "bits a token" in each["table"]["head"] and len(each["table"]["rows"]) == len(each["table"]["runs"]) > 0
    first = drawn[0]["figure"]["data"]
    assert [55.0] in [trace["y"] for trace in first], "principal components"
    assert [pytest.approx(30.01), pytest.approx(20.01), 12.0] in [trace["y"] for trace in first]


def test_without_such_scores_there_is_no_section(run: MakeRun, tmp_path: Path):
    write_report([run("topk-l0_4", 0, {"l0": 4.0, "fvu": 0.1}, k=4)], tmp_path / "report.html")
    assert "Description length" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_studys_rows_hold_every_way_of_counting_and_its_tables_the_pick(run: MakeRun):
    study = read_scores(grid(run))
    rows = rows_of(study)
    assert len(rows) == len(study.runs) and [row["d_sae"] for row in rows] == sorted(row["d_sae"] for row in rows)
    wide = next(row for row in rows if row["d_sae"] == 128 and row["seed"] == 1)
    assert wide["bits"]["tree with"] == {"0.1": pytest.approx(27.01), "0.2": 19.01} and wide["l0"] == 4.0
    assert wide["bits"].keys() == {"factorised without", "factorised with", "tree without", "tree with"}
    found = best(settings(study, SCHEME, AT), lambda setting: setting.method == "topk")
    assert found is not None and found.d_sae == 64
    assert by_group(study, SCHEME, AT).count("not reached") == 5, "none of its groups is in this study"
