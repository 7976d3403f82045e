"""The pages in a real browser: Chromium opens them from the disk, finds latents by name, and runs no text as markup."""

import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from tests.browser.chromium import FOUND, Chromium
from tests.browser.stored import copied, save, with_examples, with_text
from tests.evals.test_absorption import STEADY, absorbing
from tests.known import truth

from unbraid import catalog
from unbraid.browser import write_browser
from unbraid.evals.shared.evaluation import evaluate
from unbraid.runs.run import Run

pytestmark = pytest.mark.skipif(not FOUND, reason="no Chromium here")
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page
        assert not page.errors


@pytest.fixture
def shown(browser: Chromium) -> Callable[..., Page]:
    """Open a page, wait until it is drawn, and return it."""

    def open_it(pages: Path, address: str = "") -> Page:
        browser.open(f"{(pages / 'index.html').as_uri()}{address}")
        return Page(browser.run("document.documentElement.outerHTML"))

    return open_it


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A dictionary in which children absorb their parents, and the truth in the opposite order."""
    folder = tmp_path_factory.mktemp("runs")
    made = {"absorbing": absorbing(STEADY, 1.0), "truth": truth(STEADY, order=ORDER)}
    found = [with_examples(save(folder / name, dictionary, STEADY, name)) for name, dictionary in made.items()]
    assert evaluate(found, [catalog.evals()["causal_cards"]]) == 0
    return found


@pytest.fixture(scope="module")
def pages(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "both"
    write_browser(runs, folder)
    return folder


def test_the_latent_of_a_named_factor_is_found_and_its_page_says_how_well_it_detects_it(pages: Path, shown):
    found = shown(pages, f"#in=b&find={NAMES[CHILD].replace(' ', '+')}").values("data-latent")
    place = str(int((ORDER == CHILD).nonzero()))
    assert place in found
    page = shown(pages, f"#latent={place}&in=b")
    assert NAMES[CHILD] in page.values("data-factor")
    assert re.search(r"precision\s*100 %\s*recall\s*100 %", page.text)


def test_the_latent_that_absorbed_a_named_factor_is_found(pages: Path, shown):
    found = shown(pages, f"#find=absorbs+{NAMES[PARENT].replace(' ', '+')}").values("data-latent")
    assert str(CHILD) in found
    page = shown(pages, f"#latent={CHILD}&in=a")
    absorbed = [named.get("data-factor") for _, named in page.elements if named.get("class") == "absorbs"]
    assert absorbed == [NAMES[PARENT]]


def test_a_latent_leads_to_its_twin(pages: Path, shown):
    page = shown(pages, f"#latent={CHILD}&in=a")
    panels = [(named["data-side"], named["data-latent"]) for _, named in page.elements if "data-side" in named]
    twin = str(int((ORDER == CHILD).nonzero()))
    assert panels == [("a", str(CHILD)), ("b", twin)]
    assert f"#latent={twin}&in=b" in page.values("href", "a")


@pytest.mark.parametrize(("asked", "named"), [("99", "99"), ("1.5", "1.5"), ("-1", "-1"), ("x", "NaN")])
def test_an_address_of_no_latent_says_so(asked: str, named: str, pages: Path, shown):
    page = shown(pages, f"#latent={asked}&in=a")
    assert f"there is no latent {named}: absorbing has 24, numbered from 0" in page.text


def test_where_a_latent_is_not_found_no_other_is_left_in_sight(pages: Path, browser: Chromium, shown):
    shown(pages, "#latent=3&in=a")
    browser.run("location.hash = '#latent=99&in=a'")
    browser.until("!document.querySelector('#error').hidden")
    page = Page(browser.run("document.documentElement.outerHTML"))
    (latent,) = [named for _, named in page.elements if named.get("id") == "latent"]
    assert "there is no latent 99" in page.text and "hidden" in latent and "3" in page.values("data-latent")


def test_a_folder_without_its_data_says_so(pages: Path, tmp_path: Path, browser: Chromium, shown):
    torn = Path(shutil.copytree(pages, tmp_path / "torn"))
    shutil.rmtree(torn / "data" / "b")
    assert "data/b/list.js is missing" in shown(torn).text
    assert len(browser.errors) == 1 and "FILE_NOT_FOUND" in browser.errors.pop()


def test_text_that_would_be_markup_is_text(runs: list[Run], tmp_path: Path, shown):
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


def test_by_hand_one_finds_what_absorbed_a_factor_and_follows_it_to_its_twin(pages: Path, browser: Chromium, shown):
    shown(pages)
    browser.requests.clear()
    browser.run("document.dispatchEvent(new KeyboardEvent('keydown', { key: '/' }))")
    browser.until("document.activeElement === document.querySelector('#query')")
    browser.call("Input.insertText", text=f"absorbs {NAMES[PARENT]}")
    browser.until("document.querySelector('#count').textContent.startsWith('2 ')")
    click(browser, f"#rows [data-latent='{CHILD}']")
    browser.until("document.querySelectorAll('.panel').length === 2")
    assert NAMES[PARENT] in browser.run("document.querySelector('#latent .absorbs').textContent")
    browser.run("document.dispatchEvent(new KeyboardEvent('keydown', { key: 't' }))")
    twin = int((ORDER == CHILD).nonzero())
    browser.until(f"document.querySelector('.panel[data-side=b][data-latent=\"{twin}\"]:first-child')")
    browser.run("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape' }))")
    browser.until("!document.querySelector('#list').hidden")
    assert all(address.startswith(pages.as_uri()) for address in browser.requests) and browser.requests


def click(browser: Chromium, selector: str) -> None:
    """Click in the middle of an element with the mouse."""
    x, y = browser.run(
        f"(() => {{ const r = document.querySelector({selector!r}).getBoundingClientRect();"
        " return [r.x + r.width / 2, r.y + r.height / 2] })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def test_a_card_says_what_pushing_the_latent_raises_and_the_list_sorts_by_it(pages: Path, browser: Chromium, shown):
    there = (torch.linalg.vector_norm(STEADY.effects, dim=1) > 0).nonzero().flatten().tolist()
    place = int((there[0] == ORDER).nonzero())
    page = shown(pages, f"#latent={place}&in=b")
    assert "What pushing it does" in page.text
    assert browser.run("document.querySelector('.moves bdi').textContent") == NAMES[there[0]]
    shown(pages, "#in=b")
    click(browser, "#columns .effect")
    values = [float(v) for v in browser.run("[...document.querySelectorAll('#rows .effect')].map(e => e.textContent)")]
    assert len(values) == 24 and values == sorted(values, reverse=True) and values[0] > 10 * values[-1]


def press(browser: Chromium, key: str, code: int) -> None:
    """Press a key as a hand does; Enter types a return, by which a button is pressed."""
    text = {"text": "\r"} if key == "Enter" else {}
    browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
    browser.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)


def test_by_keys_alone_one_sorts_opens_and_comes_back_and_sees_where_one_is(pages: Path, browser: Chromium, shown):
    shown(pages, "#in=b")
    for _ in range(20):
        press(browser, "Tab", 9)
        outline = browser.run("(e => [e.className, getComputedStyle(e).outlineStyle])(document.activeElement)")
        assert outline[1] == "solid"
        if "highest" in outline[0]:
            break
    press(browser, "Enter", 13)
    assert browser.run("document.activeElement.getAttribute('aria-sort')") == "descending"
    press(browser, "Enter", 13)
    assert browser.run("document.activeElement.getAttribute('aria-sort')") == "ascending"
    values = [float(v) for v in browser.run("[...document.querySelectorAll('#rows .highest')].map(e => e.textContent)")]
    assert values == sorted(values)
    browser.run("document.querySelector('#grid').focus()")
    press(browser, "ArrowDown", 40)
    chosen = browser.run("document.querySelector('#rows .chosen').dataset.latent")
    press(browser, "Enter", 13)
    browser.until(f"document.querySelector('.panel[data-side=b][data-latent=\"{chosen}\"]')")
    press(browser, "Escape", 27)
    browser.until("!document.querySelector('#list').hidden")


def test_on_paper_the_list_has_its_rows_and_what_is_scrolled_on_a_screen_is_laid_out(pages: Path, tmp_path: Path):
    with Chromium(tmp_path / "profile", 800, 240, dark=True) as page:
        page.open((pages / "index.html").as_uri())
        rows = "document.querySelectorAll('#rows [data-latent]').length"
        assert page.run(rows) < 24
        page.call("Emulation.setEmulatedMedia", media="print")
        page.run("dispatchEvent(new Event('beforeprint'))")
        assert page.run(rows) == 24
        bottom = page.run("document.querySelector('#rows [data-latent]:last-child').getBoundingClientRect().bottom")
        assert page.run("document.documentElement.scrollHeight") >= bottom > 24 * 30
        assert page.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)", "black, in a dark theme too"
        page.run("dispatchEvent(new Event('afterprint'))")
        assert not page.errors


@pytest.mark.parametrize("address", ["", f"#latent={CHILD}&in=a"])
def test_on_a_telephone_nothing_is_wider_than_the_screen(address: str, pages: Path, tmp_path: Path):
    with Chromium(tmp_path / "profile", 390, 800, dark=True) as page:
        page.open((pages / "index.html").as_uri() + address)
        assert page.run("[document.documentElement.scrollWidth, innerWidth]") == [390, 390]
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)" and not page.errors


def test_nothing_is_fetched_from_elsewhere(pages: Path):
    ours = [path.read_text(encoding="utf-8") for path in pages.iterdir() if path.is_file()]
    addresses = {address for text in ours for address in re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text)}
    assert addresses == {"http://www.w3.org/2000/svg"}
