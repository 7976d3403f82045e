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
        "Orthogonality, weight 10", "torch 2.13.0", "Claim 1", "Exploratory: no claim card was registered",
        "1 folder left out", "1 eval that failed", "1 score that is NaN",
    ):  # fmt: skip
        assert shown in text, shown
    assert "-1" not in re.findall(r"[-\w.]+", text)


ORDER = (
    "Term by term", "Can the scores be trusted?", "What a gain costs", "Factors found", "Absorption and splitting",
    "Latents as knobs", "Reconstruction", "Costs and training", "Not tested, failed or missing",
    "Settings, definitions, runs",
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


def test_claims_come_first_then_what_was_not_tested_and_then_what_they_rest_on(judged):
    html = judged[1].read_text(encoding="utf-8")
    assert tuple(re.findall("<h3.*?>(.*?)</h3>", html)) == ORDER
    heads = [re.sub("<.*?>", "", head) for head in re.findall("<h2.*?>.*?</h2>", html)]
    assert [head.partition(" ")[0] for head in heads] == ["Do", "Do", "What", "World"]
    assert html.count("<summary>How it is judged</summary>") == 1


def first_screen(path: Path) -> str:
    """The text of the page up to the first testbed, as a reader sees it: no attribute, no script."""
    html = path.read_text(encoding="utf-8").partition('<section class="testbed"')[0].partition("<body>")[2]
    return re.sub(r"<.*?>", " ", re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL))


def test_a_claim_is_a_row_with_a_sentence_a_status_and_a_picture(judged):
    html = judged[1].read_text(encoding="utf-8")
    first, second = re.findall(r'<article class="claim.*?</article>', html, re.DOTALL)
    assert first.startswith('<article class="claim yes">') and second.startswith('<article class="claim no">')
    for shown in (
        "Claim 1", "Yes: HSIC is materially better than its base by F1 of one latent a factor",
        "Registered on 2026-01-01 as forest.toml; one &lt;note&gt;", ">BatchTopK</a></span>", "6 seeds could find",
        "is the smallest of interest", "materially better",
    ):  # fmt: skip
        assert shown in first, shown
    assert first.count('<table class="forest">') == second.count('<table class="forest">') == 2
    assert first.count('<i class="band"') == first.count('<i class="dot"') == first.count('<i class="line"') == 2
    assert "MELBO" not in first.partition("<figure")[2] and "HSIC" not in second


def test_the_first_screen_has_no_identifier_and_every_identifier_is_on_hover(judged):
    text = first_screen(judged[1])
    for identifier in ("hsic", "melbo", "batchtopk", "absorption_full", "latents_per_factor", "recovery.", "World("):
        assert identifier not in text, identifier
    assert not re.findall(r"[a-z]+_[a-z]+", text)
    html = judged[1].read_text(encoding="utf-8").partition('<section class="testbed"')[0]
    assert 'title="recovery.f1"' in html and 'title="hsic against batchtopk, by recovery.f1' in html


def test_the_gate_shows_what_passed_with_its_numbers_and_the_smallest_effect(judged):
    gate = drawn(judged[1], "Which scores count here")["table"]
    rows = {row[0]: dict(zip(gate["head"], row, strict=True)) for row in gate["rows"]}
    assert rows["living latents"]["counts"] == "✗ no" and rows["F1 of one latent a factor"]["counts"] == "✓ yes"
    absorbed = rows["full absorption"]
    assert "Matryoshka better than BatchTopK" in absorbed["known facts"]
    assert absorbed["which is"].startswith("a third of Matryoshka") and absorbed["smallest effect of interest"] > 0
    assert rows["F1 of one latent a factor"]["truth"] > rows["F1 of one latent a factor"]["best"] > 0.5


def drawn(path: Path, title: str) -> dict:
    """The figure and the table under a title."""
    html = re.split(rf'<figcaption><b title="[^"]*">{re.escape(title)}</b>', path.read_text(encoding="utf-8"))[1]
    return json.loads(html.partition('<script type="application/json">')[2].partition("</script>")[0])


def test_each_figure_has_a_sentence_and_its_numbers_with_their_runs(judged):
    html = judged[1].read_text(encoding="utf-8")
    figures = re.findall(r'<figure class="fig">.*?</figure>', html, re.DOTALL)
    assert len(figures) > 10
    for figure in figures:
        data = json.loads(figure.partition('<script type="application/json">')[2].partition("</script>")[0])
        if "in training" not in figure:
            assert re.search(r'<span class="reads">[^<]{20,}</span>', figure), figure[:200]
        go.Figure(data["figure"])
        assert data["table"]["rows"] and all(len(row) == len(data["table"]["head"]) for row in data["table"]["rows"])
        for _, anchor in (link for links in data["table"]["runs"] for link in links):
            assert f' id="{anchor}"' in html
    scores = drawn(judged[1], "F1 of one latent a factor")["table"]
    assert scores["head"] == ["method", "L0 requested", "L0", "mean", "± (95 %)", "seeds"]
    rows = [row for row in scores["rows"] if row[0] == "HSIC"]
    stored = collect(judged[0]).query("metric == 'f1' and kind == 'measured' and method == 'hsic'")
    for l0, own in stored.groupby("l0_requested"):
        (row,) = [row for row in rows if row[1] == l0]
        assert row[3] == pytest.approx(own.value.mean(), rel=1e-5) and row[5] == 6


def test_a_method_without_a_base_is_compared_with_standard_saes_only(judged):
    html = judged[1].read_text(encoding="utf-8")
    assert "Without a base: odd." in html and "so no difference can be put down to the term" in html
    assert 'odd</a></th><td>F1 of one latent a factor</td><td><span class="word better">beats all' in html


def test_all_judgements_are_in_one_table_primaries_with_two_p_values(judged):
    html = judged[1].read_text(encoding="utf-8").partition(" judgements, primaries first")[2]
    table = json.loads(html.partition('<script type="application/json">')[2].partition("</script>")[0])["table"]
    rows = [dict(zip(table["head"], row, strict=True)) for row in table["rows"]]
    primaries = [row for row in rows if row["permutation p"] is not None]
    assert len(rows) > 30 and len(primaries) == 4, "two terms by two primaries"
    assert rows[:4] == primaries and all(row["q"] is None and row["p (Holm)"] is not None for row in primaries)
    assert {"L0", "FVU"} <= {row["held equal"] for row in rows}


def test_many_terms_are_folded(tmp_path):
    folders = planted(
        tmp_path / "runs", {f"term{i}": {} for i in range(15)}, bases=TWO, seeds=range(3), l0s=(8,), noise=0.001
    )
    html = render(folders, tmp_path) and (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    first = html.partition('<article class="claim')[2].partition("</article>")[0]
    assert first.count("<summary>9 more</summary>") == 2 and first.count(">BatchTopK</a></span>") == 30


def test_methods_of_one_sparsity_are_dots_and_those_of_several_are_curves(tmp_path):
    for l0s, kind in (((8,), "markers"), ((8, 16), "lines+markers")):
        folders = planted(tmp_path / f"runs{len(l0s)}", {"hsic": {}}, bases=TWO, seeds=range(3), l0s=l0s)
        out = tmp_path / f"{len(l0s)}.html"
        write_report(folders, out)
        modes = {trace["mode"] for trace in drawn(out, "F1 of one latent a factor")["figure"]["data"]}
        assert kind in modes and ("lines+markers" in modes) == (len(l0s) > 1)


def test_a_claim_over_two_testbeds_is_one_row_with_both(tmp_path):
    worlds = [{"type": "World", "d_in": 64, "factors": n, "seed": 0} for n in (96, 512)]
    folders = [
        folder
        for at, world in enumerate(worlds)
        for folder in planted(
            tmp_path / str(at), {"hsic": {"f1": 0.06 * at}}, bases=TWO, seeds=range(6), l0s=(8,), source=world
        )
    ]
    page = render(folders, tmp_path)
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    (claim,) = re.findall(r'<article class="claim.*?</article>', html, re.DOTALL)
    assert (
        claim.count('<table class="forest">') == 4
        and "World of 96 factors" in claim
        and "World of 512 factors" in claim
    )
    assert "Yes: HSIC is materially better" in claim and "on the world of 512 factors; " in claim
    assert "Over all testbeds" in claim and "interquartile mean" in claim
    assert page.tags.count("article") == 1


def test_a_claim_without_an_answer_shows_why_as_a_picture(tmp_path):
    untrained = {"untrained": {"f1": 0.1, "absorption_full": -0.2}}
    folders = planted(tmp_path / "runs", {"hsic": {}}, bases=TWO, controls=untrained, seeds=range(3), l0s=(8,))
    render(folders, tmp_path)
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    (claim,) = re.findall(r'<article class="claim.*?</article>', html, re.DOTALL)
    assert "No answer: no primary passed its controls here." in claim and "does not count: " in claim
    assert claim.count('<div class="track gate"') == 2 and "untrained" in claim
    for place in re.findall(r'class="mark \w+" style="left:([\d.]+)%', claim):
        assert 0 <= float(place) <= 100


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
    figures = [json.loads(text)["figure"] for text in render(full_study, tmp_path).figures]
    assert sum(figure is not None for figure in figures) >= 9
    for figure in filter(None, figures):
        go.Figure(figure)


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
    assert page.tags.count("article") == 1 and page.text.count("Term by term") == 2
    assert "No answer on both testbeds." in page.text
    assert "Tiny, layer 1" in page.text and "Tiny, layer 2" in page.text


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
