"""The report in a real browser: it opens from the disk at 390 and 1280 pixels, draws, fills tables, fetches nothing."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.report.planted import planted
from tests.report.test_answer import TWO

from unbraid.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
WIDTHS = (390, 1280)
PROBE = """<script>addEventListener("load", () => setTimeout(async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const data = document.querySelector("figure details.data");
  data.open = true;
  dispatchEvent(new Event("beforeprint")); // draws what is not in sight too, so nothing waits for a frame
  for (let tries = 0; tries < 50 && !data.querySelector("tr"); tries++) await wait(100);
  const link = data.querySelector("a[href^='#']");
  if (link) location.hash = link.getAttribute("href");
  await wait(500);
  parent.postMessage({ width: innerWidth, across: document.documentElement.scrollWidth,
    drawn: document.querySelectorAll(".plot .main-svg").length, rows: data.querySelectorAll("tbody tr").length,
    opened: !location.hash || !!document.getElementById(location.hash.slice(1)).closest("details[open]"),
    fetched: performance.getEntriesByType("resource").map((e) => e.name).filter((name) => !name.startsWith("data:")),
  }, "*");
}, 1500));</script>"""
OUTER = """<!doctype html><body><script>addEventListener("message", (event) => {
  const said = document.createElement("pre"); said.textContent = JSON.stringify(event.data); document.body.append(said);
});</script>FRAMES</body>"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> tuple[list[dict], str]:
    """What a small report, opened at both widths, says of itself, and what Chromium logged."""
    root: Path = tmp_path_factory.mktemp("opened")
    folders = planted(root / "runs", {"hsic": {"f1": 0.06}}, bases=TWO, seeds=range(3), l0s=(8,))
    write_report(folders, root / "report.html")
    page = (root / "report.html").read_text(encoding="utf-8")
    (root / "probed.html").write_text(page.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    frames = "".join(f'<iframe src="probed.html" style="border:0;width:{w}px;height:900px"></iframe>' for w in WIDTHS)
    (root / "outer.html").write_text(OUTER.replace("FRAMES", frames), encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000",
        "--enable-logging=stderr", "--window-size=1800,2000", "--dump-dom", (root / "outer.html").as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return [json.loads(said) for said in re.findall("<pre>(.*?)</pre>", ran.stdout)], ran.stderr


def test_it_fits_both_widths_without_scrolling_sideways(opened):
    assert sorted(said["width"] for said in opened[0]) == list(WIDTHS)
    assert all(said["across"] <= said["width"] for said in opened[0])


def test_figures_are_drawn_tables_filled_and_links_lead_to_runs(opened):
    for said in opened[0]:
        assert said["drawn"] > 0 and said["rows"] > 0 and said["opened"]


def test_nothing_is_fetched_and_nothing_is_said_in_the_console(opened):
    said, logged = opened
    assert said and all(not each["fetched"] for each in said)
    assert "CONSOLE" not in logged
