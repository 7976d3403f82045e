"""The tutorial on SmolLM2, run from its first command to its last on a smaller setting, and looked at in Chromium."""

import glob
import json
import os
import re
from pathlib import Path

import pytest

from tests.browser.chromium import FOUND, Chromium
from tests.browser.stored import told
from tests.test_docs import DOCS, commands, text_of
from unbraid.cli.main import main
from unbraid.sources.language_model import smollm

PAGE = DOCS / "tutorial.md"
TEXT = "library.jsonl"
SMALLER = {"--source.eval-share": "0.12", "--d-sae": "32", "--training.tokens": "4096"}
"""Flags of the page's commands with another value here. The text is some of the page's, each document cut short."""
DOCUMENTS, LETTERS = 64, 600


def smaller(words: list[str]) -> list[str]:
    """A command's words as the shell hands them over, with what is smaller here."""
    found = [SMALLER.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    return [
        name
        for word in found
        for name in (sorted(glob.glob(word)) if word.startswith("runs/") and "*" in word else [word])
    ]


def written(folder: Path) -> list[str]:
    """The documents that the page's code writes."""
    (code,) = re.findall(r"```python\n(.*?)```", text_of(PAGE), re.DOTALL)
    exec(code, {})
    return [json.loads(line)["text"] for line in (folder / TEXT).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory):
    """The folder in which all was run, and what each command printed."""
    try:
        smollm.smollm2_file()
    except ValueError as error:
        pytest.skip(str(error))
    folder, before = tmp_path_factory.mktemp("tutorial"), Path.cwd()
    os.chdir(folder)
    try:
        texts = written(folder)
        assert len(texts) > 900, "about as many as the page says"
        short = [{"text": text[:LETTERS]} for text in texts[:: len(texts) // DOCUMENTS][:DOCUMENTS]]
        (folder / TEXT).write_text("".join(json.dumps(document) + "\n" for document in short), encoding="utf-8")
        codes = [(words[1], main(smaller(words[1:]))) for words in commands(PAGE)]
    finally:
        os.chdir(before)
    assert codes == [(name, 0) for name in ("sweep", "eval", "report", "eval", "browse", "steer")]
    return folder


@pytest.mark.slow
def test_the_tutorial_ends_in_a_report_and_in_pages(done: Path):
    report = (done / "tutorial.html").read_text(encoding="utf-8")
    assert "Reconstruction" in report and "loss recovered" in report and report.count('<tbody id="s0r') == 3
    runs = told(done / "pages" / "data" / "index.js")[1][0]["runs"]
    assert [run["latents"] for run in runs] == [32, 32] and "model smollm2" in runs[0]["source"]


@pytest.mark.slow
@pytest.mark.skipif(not FOUND, reason="no Chromium here")
def test_a_latent_of_smollm2_is_followed_to_its_twin_and_back(done: Path, tmp_path: Path):
    with Chromium(tmp_path / "profile") as page:
        page.open(f"{(done / 'pages' / 'index.html').as_uri()}#in=a")
        first = page.run("+document.querySelector('#rows [data-latent]').dataset.latent")
        page.run("document.querySelector('#rows [data-latent]').click()")
        page.until("document.querySelectorAll('.panel').length === 2")
        twin = page.run("+document.querySelector('.panel[data-side=b]').dataset.latent")
        press = "document.dispatchEvent(new KeyboardEvent('keydown', { key: 't' }))"
        for latent, side in ((twin, "b"), (first, "a")):
            page.run(press)
            page.until(f"document.querySelector('.panel[data-side={side}][data-latent=\"{latent}\"]:first-child')")
        words = page.run("[...document.querySelectorAll('.panel .contexts')].map(e => e.textContent).join(' ')")
        assert re.search(r"[a-z]{4,}", words) and not page.errors
