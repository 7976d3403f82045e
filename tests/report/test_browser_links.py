"""Links from a report to the browser next to it: by names, to addresses made of numbers, none that a file dictates."""

from pathlib import Path

import pytest
from tests.report.conftest import make_run

from unbraid.browser.folder import put
from unbraid.report import write_report
from unbraid.report.browser_links import browser_links

NASTY = "<script>alert(1)</script>"


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A browser's data next to a report: three latents of a dictionary, one of which absorbed a factor."""
    folder = tmp_path / "browser"
    factors = [{"name": name, "parent": -1} for name in ("animal", "dog", NASTY)]  # as browser.data.factor_names
    put(folder / "data" / "index.js", "index", {"runs": [{"method": "batchtopk"}], "factors": factors})
    columns = {"factor": [1, 1, 2], "f1": [0.5, 0.9, 0.7], "absorbs": {1: [[0, 0.8]]}}
    put(folder / "data" / "a" / "list.js", "list", "a", columns)
    (folder / "index.html").write_text("pages")
    return folder


def test_latents_are_named_best_first_each_of_another_factor_and_one_that_absorbed(pages: Path):
    (found,) = browser_links(pages.parent / "report.html")
    assert found.name == "BatchTopK" and found.href == "browser/index.html#in=a"
    assert found.latents == (
        ("dog (F1 0.900)", "browser/index.html#latent=1&in=a"),
        (f"{NASTY} (F1 0.700)", "browser/index.html#latent=2&in=a"),
        ("one that absorbed animal", "browser/index.html#latent=1&in=a"),
    )


def test_the_report_has_them_escaped_and_none_where_there_is_no_browser(pages: Path):
    run = make_run(pages.parent / "runs", "topk", 0, {"l0": 8.0, "fvu": 0.2}, k=8)
    write_report([run], pages.parent / "report.html")
    html = (pages.parent / "report.html").read_text(encoding="utf-8")
    assert "Latents to look at" in html and NASTY not in html and "#latent=1&amp;in=a" in html
    write_report([run], pages.parent / "elsewhere" / "report.html")
    assert "Latents to look at" not in (pages.parent / "elsewhere" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["", "alert(1)", "unbraid.data.index([);", 'unbraid.data.index({"runs":"x"});'])
def test_what_is_no_data_of_ours_gives_no_link(text: str, pages: Path):
    (pages / "data" / "index.js").write_text(text)
    assert browser_links(pages.parent / "report.html") == []
