"""The pages in a real browser: Chromium opens them from the disk, finds latents by name, and runs no text as markup."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from tests.browser.stored import copied, save, with_examples, with_text
from tests.evals.test_absorption import STEADY, absorbing
from tests.known import truth

from unbraid.browser import write_browser
from unbraid.runs.run import Run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
CHILD = next(child for child, parent in enumerate(STEADY.parents.tolist()) if parent >= 0)
PARENT = int(STEADY.parents[CHILD])
NAMES = STEADY.truth().names
ORDER = torch.arange(23, -1, -1)


class Page(HTMLParser):
    """What a page shows: its elements, and the text of those that have a class or an id."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    def values(self, attribute: str, tag: str = "") -> list[str | None]:
        return [named[attribute] for name, named in self.elements if attribute in named and tag in ("", name)]


def shown(pages: Path, address: str = "") -> Page:
    """Open a page, wait until it is drawn, and return it."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000",
        "--window-size=1280,900", "--dump-dom", f"{(pages / 'index.html').as_uri()}{address}",
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    page = Page(ran.stdout)
    assert "</html>" in ran.stdout
    return page


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A dictionary in which children absorb their parents, and the truth in the opposite order."""
    folder = tmp_path_factory.mktemp("runs")
    made = {"absorbing": absorbing(STEADY, 1.0), "truth": truth(STEADY, order=ORDER)}
    return [with_examples(save(folder / name, dictionary, STEADY, name)) for name, dictionary in made.items()]


@pytest.fixture(scope="module")
def pages(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "both"
    write_browser(runs, folder)
    return folder


def test_the_latent_of_a_named_factor_is_found_and_its_page_says_how_well_it_detects_it(pages: Path):
    found = shown(pages, f"#in=b&find={NAMES[CHILD].replace(' ', '+')}").values("data-latent")
    place = str(int((ORDER == CHILD).nonzero()))
    assert place in found
    page = shown(pages, f"#latent={place}&in=b")
    assert NAMES[CHILD] in page.values("data-factor")
    assert re.search(r"precision\s*100 %\s*recall\s*100 %", page.text)


def test_the_latent_that_absorbed_a_named_factor_is_found(pages: Path):
    found = shown(pages, f"#find=absorbs+{NAMES[PARENT].replace(' ', '+')}").values("data-latent")
    assert str(CHILD) in found
    page = shown(pages, f"#latent={CHILD}&in=a")
    absorbed = [named.get("data-factor") for _, named in page.elements if named.get("class") == "absorbs"]
    assert absorbed == [NAMES[PARENT]]


def test_a_latent_leads_to_its_twin(pages: Path):
    page = shown(pages, f"#latent={CHILD}&in=a")
    panels = [(named["data-side"], named["data-latent"]) for _, named in page.elements if "data-side" in named]
    twin = str(int((ORDER == CHILD).nonzero()))
    assert panels == [("a", str(CHILD)), ("b", twin)]
    assert f"#latent={twin}&in=b" in page.values("href", "a")


@pytest.mark.parametrize(("asked", "named"), [("99", "99"), ("1.5", "1.5"), ("-1", "-1"), ("x", "NaN")])
def test_an_address_of_no_latent_says_so(asked: str, named: str, pages: Path):
    page = shown(pages, f"#latent={asked}&in=a")
    assert f"there is no latent {named}: absorbing has 24, numbered from 0" in page.text


def test_where_a_latent_is_not_found_no_other_is_left_in_sight(pages: Path, tmp_path: Path):
    moving = Path(shutil.copytree(pages, tmp_path / "moving"))
    with (moving / "app.js").open("a", encoding="utf-8") as script:
        script.write('setTimeout(() => (location.hash = "#latent=99&in=a"), 5000);')
    page = shown(moving, "#latent=3&in=a")
    (latent,) = [named for _, named in page.elements if named.get("id") == "latent"]
    assert "there is no latent 99" in page.text and "hidden" in latent and "3" in page.values("data-latent")


def test_a_folder_without_its_data_says_so(pages: Path, tmp_path: Path):
    torn = Path(shutil.copytree(pages, tmp_path / "torn"))
    shutil.rmtree(torn / "data" / "b")
    assert "data/b/list.js is missing" in shown(torn).text


def test_text_that_would_be_markup_is_text(runs: list[Run], tmp_path: Path):
    nasty = [
        "<img src=x onerror=document.title='run'>",
        "</script><script>document.title='run'</script>",
        "\u202e",
        "שלום",
    ]
    run = with_text(copied(runs[0], tmp_path / "run"), nasty * 20, 8)
    write_browser([run], tmp_path / "pages")
    page = shown(tmp_path / "pages", "#latent=3")
    assert nasty[0] in page.text and nasty[1] in page.text and nasty[3] in page.text
    assert "‹202E›" in page.text and "\u202e" not in page.text
    assert not page.values("onerror") and not [tag for tag, _ in page.elements if tag == "img"]


def test_nothing_is_fetched_from_elsewhere(pages: Path):
    ours = [path.read_text(encoding="utf-8") for path in pages.iterdir() if path.is_file()]
    addresses = {address for text in ours for address in re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text)}
    assert addresses == {"http://www.w3.org/2000/svg"}
