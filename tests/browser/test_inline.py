"""The browser in a notebook: one page holds all, works in a frame, and makes the examples that are missing."""

import re
import tempfile
from pathlib import Path

import pytest
from tests.browser import chromium
from tests.browser.chromium import Chromium
from tests.browser.stored import copied, save, with_examples, with_text
from tests.known import EXACT, truth

import unbraid as ub
from unbraid.browser import inline
from unbraid.browser.inline import one_page
from unbraid.runs.run import Run

NASTY = ["</script><script>document.title='run'</script>", "<!--<script>", "שלום", "中文"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return save(tmp_path_factory.mktemp("runs") / "truth", truth(EXACT), EXACT)


@pytest.fixture(scope="module")
def pages(run: Run) -> inline.Pages:
    return ub.browse(run)


def test_it_makes_the_examples_and_the_folder_goes_with_the_object(run: Run, pages: inline.Pages):
    assert (run.path / "results" / "examples.json").exists() and (pages.folder / "index.html").exists()
    kept = ub.browse(run.path)
    folder = kept.folder
    del kept
    assert not folder.exists() and pages.folder.exists()


def test_one_page_names_no_other_file_and_no_text_ends_its_scripts(run: Run, tmp_path: Path):
    made = with_text(with_examples(copied(run, tmp_path / "run")), NASTY * 20, 8)
    page = one_page(ub.browse(made, out=tmp_path / "pages").folder)
    assert not re.search(r'<(script|link|img)[^>]*\s(src|href)="', page)
    assert page.count("<script") == page.count("</script>") and "\\u003c/script>\\u003cscript>" in page
    assert "unbraid.data.shard" in page and 'unbraid.asked["a/0.js"]' in page


def test_pages_too_large_for_a_notebook_are_refused_with_what_to_do(pages: inline.Pages, monkeypatch):
    monkeypatch.setattr(inline, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"open them from the disk: .*index\.html"):
        pages._repr_html_()


def test_what_cannot_be_browsed_is_refused(run: Run, tmp_path: Path):
    with pytest.raises(ValueError, match="holds no run"):
        ub.browse(tmp_path)
    with pytest.raises(ValueError, match="height"):
        ub.browse(run, height=1)
    with pytest.raises(ValueError, match="exists already"):
        ub.browse(run, out=tmp_path)


@pytest.mark.skipif(not chromium.FOUND, reason="no Chromium here")
def test_in_a_frame_links_lead_within_the_frame(pages: inline.Pages, tmp_path: Path):
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<meta charset=utf-8><p data-latent></p>{pages._repr_html_()}", encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, Chromium(Path(folder)) as page:
        page.open(notebook.as_uri())
        page.run("var frame = document.querySelector('iframe').contentDocument")
        page.until("frame.querySelector('#rows [data-latent]')")
        page.run("frame.querySelector('#rows [data-latent]').click()")
        page.until("frame.querySelector('.panel h2')")
        page.run("frame.querySelector('#home').click()")
        page.until("frame.querySelector('#latent').hidden && !frame.querySelector('#list').hidden")
        assert page.run("location.hash") == "" and not page.errors
        assert set(page.requests) <= {"about:blank", "about:srcdoc", notebook.as_uri()}
