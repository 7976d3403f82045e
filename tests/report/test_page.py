import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import plotly.graph_objects as go
import pytest
from tests.report.planted import planted, planted_run
from tests.report.test_answer import TWO

from unbraid.comparison.verdict import Rules
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
        "Yes: orthogonality is better", "RuntimeError: ran out of memory in <matching>", "needs a downstream map",
        "NaN", "not finished (no provenance.json)", "mean |cos| over the one-to-one matching", "2,000,000",
        "Orthogonality, weight 10", "torch 2.13.0", "Claim 1: ", "exploratory: no claim card was registered",
    ):  # fmt: skip
        assert shown in text, shown
    assert "-1" not in re.findall(r"[-\w.]+", text)


ORDER = (
    "The answer so far", "Which scores count here", "What the judge says of standard SAEs",
    "Exploratory: every score that counts", "What was run", "Curves", "Table", "Runs", "Definitions",
    "Not tested, failed or missing",
)  # fmt: skip
TERMS = {"hsic": {"f1": 0.06}, "melbo": {"isolation": -0.08}}


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> tuple[list[Path], Path]:
    """The folders of a study with a base, terms and a method without a base, and the report on it."""
    root = tmp_path_factory.mktemp("judged")
    folders = planted(root / "runs", TERMS, knobs=("melbo",), bases=TWO, seeds=range(6), l0s=(8, 16))
    said = {"term": "blocks", "base": "gated"}
    folders += [planted_run(root / "runs", "odd", s, l0, {"f1": 0.3}, summary=said) for s in range(6) for l0 in (8, 16)]
    rules = Rules(registered="on 2026-01-01 as forest.toml", notes=["one <note>"])
    write_report(folders, root / "report.html", rules=rules)
    return folders, root / "report.html"


def test_verdicts_come_first_then_the_gate_and_then_what_they_rest_on(judged):
    html = judged[1].read_text(encoding="utf-8")
    assert tuple(re.findall("<h2>(.*?)</h2>", html)) == ORDER
    assert html.count("<summary>How it is judged</summary>") == 1


def test_a_card_says_claim_headline_status_evidence_and_shows_a_picture_a_primary(judged):
    html = judged[1].read_text(encoding="utf-8")
    first, second = re.findall(r'<article class="verdict.*?</article>', html, re.DOTALL)
    assert first.startswith('<article class="verdict yes">') and second.startswith('<article class="verdict no">')
    for shown in (
        "Claim 1: objectives", "Yes: hsic is materially better than its base by F1 of one latent a factor",
        "registered on 2026-01-01 as forest.toml; one &lt;note&gt;", "1 better (hsic)", "base batchtopk",
        "Shown to beat every standard SAE", "the smallest effect of interest", "materially better",
        "Each method against every standard SAE",
    ):  # fmt: skip
        assert shown in first, shown
    assert first.count('<table class="forest">') == second.count('<table class="forest">') == 2
    assert first.count('<i class="band"') == first.count('<i class="dot"') == first.count('<i class="line"') == 2
    assert "melbo" not in first and "hsic" not in second


def test_the_gate_shows_what_passed_with_its_numbers_and_the_smallest_effect(judged):
    html = judged[1].read_text(encoding="utf-8")
    gate = html.partition("Which scores count here")[2].partition("What the judge says")[0]
    assert "full absorption" in gate and "matryoshka better than batchtopk" in gate and "a third of matryoshka" in gate
    assert "✓ yes" in gate and "✗ no" in gate and "living latents" in gate.partition("✗ no")[0].rpartition("<tr>")[2]


def test_a_method_without_a_base_is_compared_with_standard_saes_only(judged):
    html = judged[1].read_text(encoding="utf-8")
    assert "Without a base: odd." in html and "so no difference can be put down to the term" in html
    assert 'odd</th><td>F1 of one latent a factor</td><td><span class="word better">beats all' in html


def test_all_judgements_are_in_one_table_primaries_with_two_p_values(judged):
    html = judged[1].read_text(encoding="utf-8")
    listing = html.partition('<table class="sortable comparisons">')[2].partition("</table>")[0]
    rows = re.findall(r"<tr>.*?</tr>", listing, re.DOTALL)[1:]
    assert len(rows) > 30 and {len(re.findall("<t[dh]", row)) for row in rows} == {15}
    primaries = [row for row in rows if re.search(r">p \S+</td><td data-sort=\"[\d.]+\">", row)]
    assert len(primaries) == 4, "two terms by two primaries"
    assert {"L0", "FVU"} <= set(re.findall("<td>(L0|FVU|bits)</td>", listing))


def test_many_terms_are_folded(tmp_path):
    folders = planted(
        tmp_path / "runs", {f"term{i}": {} for i in range(15)}, bases=TWO, seeds=range(3), l0s=(8,), noise=0.001
    )
    html = render(folders, tmp_path) and (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    first = html.partition('<article class="verdict')[2].partition("</article>")[0]
    assert first.count("<summary>3 more</summary>") == 2 and first.count("base batchtopk") == 30


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
    assert page.text.count("The answer so far") == 2 and page.tags.count("article") == 2, (
        "the header has lines, no cards"
    )
    assert page.text.count("No answer yet: only standard SAEs") == 4
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
