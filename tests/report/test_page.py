import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import plotly.graph_objects as go
import pytest

from unbraid.report import collect, write_report

LOADING = {"src", "href", "srcset", "data", "action", "poster"}


class Page(HTMLParser):
    """Attributes that name files, and the text outside scripts and styles."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.text = ""
        self.figures: list[str] = []
        self.tags: list[str] = []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = "figure" if ("type", "application/json") in attrs else tag
        self.links += [(tag, value or "") for name, value in attrs if name in LOADING]

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "figure":
            self.figures.append(data)
        elif self._inside not in ("script", "style"):
            self.text += data


def render(folders, tmp_path: Path, **kwargs) -> Page:
    write_report(folders, tmp_path / "out" / "report.html", **kwargs)
    return Page(tmp_path / "out" / "report.html")


def test_report_shows_everything_and_returns_the_rows(full_study, tmp_path: Path):
    rows = write_report(full_study, tmp_path / "report.html")
    assert rows.equals(collect(full_study))
    text = Page(tmp_path / "report.html").text
    for shown in (
        "It depends: ", "orthogonality is better than topk", "RuntimeError: ran out of memory in <matching>",
        "needs a downstream map", "NaN", "not finished (no provenance.json)", "mean |cos| over the one-to-one matching",
        "2,000,000", "Orthogonality, weight 10", "torch 2.13.0", "Shown, not counted:", "Claim 1: ", "Clearest gain: ",
    ):  # fmt: skip
        assert shown in text, shown
    assert "-1" not in re.findall(r"[-\w.]+", text)


def test_page_loads_nothing_and_links_only_to_runs(full_study, tmp_path: Path):
    page = render(full_study, tmp_path)
    for tag, target in page.links:
        assert not re.match(r"(?i)(https?:)?//", target), (tag, target)
        assert tag != "script"
    relative = [unquote(target) for tag, target in page.links if tag == "a" and not target.startswith("#")]
    assert len(relative) == 54
    assert all((tmp_path / "out" / target / "experiment.json").is_file() for target in relative)
    assert (tmp_path / "out" / "report.html").read_text().count("plotly.js v") <= 1
    style = (tmp_path / "out" / "report.html").read_text().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_figures_are_valid_plotly(full_study, tmp_path: Path):
    figures = render(full_study, tmp_path).figures
    assert len(figures) == 9
    for figure in figures:
        go.Figure(json.loads(figure))


def test_names_and_messages_are_escaped(run, tmp_path: Path):
    evil = "</script><script>alert(1)</script>"
    folders = [run(evil, seed, {"l0": 32.0, "fvu": 0.2}, log=[{"tokens": 1, "losses/x": 1.0}]) for seed in range(3)]
    (folders[0] / "results" / "bad.json").write_text(json.dumps({"eval": evil, "version": 1, "error": evil}))
    html = tmp_path / "out" / "report.html"
    page = render(folders, tmp_path, title=evil, question=evil)
    assert "<script>alert" not in html.read_text()
    assert page.text.count(evil) > 5
    own = 2  # the library and our few lines
    assert page.tags.count("script") == own + len(page.figures)


def test_order_of_folders_does_not_matter(full_study, tmp_path: Path):
    write_report(full_study, tmp_path / "a.html")
    write_report(random.Random(1).sample(full_study, len(full_study)), tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_each_source_has_its_own_answer(run, tmp_path: Path):
    sources = [{"type": "LanguageModel", "model": "tiny", "layer": n} for n in (1, 2)]
    page = render([run("topk", 0, {"l0": 32.0, "fvu": 0.2}, source=source) for source in sources], tmp_path)
    assert page.text.count("The answer so far") == 2
    assert "LanguageModel, layer 1" in page.text and "LanguageModel, layer 2" in page.text


@pytest.mark.parametrize("scores", [None, {"fvu": 0.2}, {"l0": 0.0, "fvu": 0.2}, {"l0": 32.0}])
def test_runs_with_little_in_them_still_give_a_page(run, tmp_path: Path, scores):
    page = render([run("topk", 0, scores)], tmp_path)
    assert "No answer yet" in page.text


def test_mixed_versions_and_settings_are_warned_about(run, tmp_path: Path):
    folders = [run("topk", s, {"l0": 32.0, "fvu": 0.2}, version=1 + s % 2) for s in range(3)]
    folders.append(run("relu", 0, {"l0": 32.0, "fvu": 0.2}, penalties={"l1": 0.1}, training={"tokens": 5}))
    text = render(folders, tmp_path).text
    assert "Scores of fidelity come from versions 1 and 2" in text
    assert "Runs differ in training.tokens: 2,000,000 for topk; 5 for relu" in text


def test_one_experiment_run_twice_is_warned_about(run, tmp_path: Path):
    folders = [run("topk", 0, {"l0": 32.0, "fvu": 0.2}, training={"lr": lr}) for lr in (1e-3, 2e-3)]
    assert "topk, seed 0, was run 2 times with different settings" in render(folders, tmp_path).text


def test_a_failed_report_leaves_the_old_one(run, tmp_path: Path):
    out = tmp_path / "report.html"
    out.write_text("old")
    with pytest.raises(ValueError, match="not a run folder"):
        write_report([tmp_path], out)
    assert out.read_text() == "old"
