"""Size and speed of the browser of latents, in Chromium: the first picture, scrolling, sorting, searching, filtering.

    python -m benchmarks.browser --out docs/results/browser.json
    python -m benchmarks.browser --out docs/results/browser.json --pages "two of 4,096 on SmolLM2" pages

Pages are of made-up latents, with contexts as the eval `examples` stores them: two dictionaries of 4,096 latents side
by side, and one of 65,536 with fewer contexts. Or they are those that `unbraid browse` wrote; what was measured of
other pages before stays in the file. Each action is timed in the page until the frame after the one that shows it;
`script` is the CPU time of the page's thread alone, which other work on the machine hardly changes.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tests.browser.chromium import Chromium

from unbraid.browser.folder import put, put_data
from unbraid.browser.stored_examples import StoredExamples
from unbraid.browser.twins import Twins
from unbraid.evals.shared.example_contexts import AFTER, BANDS, BEFORE, EACH, TOP
from unbraid.evals.shared.example_tables import table_of
from unbraid.system.files import write_text

ROWS = 25_000
VOCABULARY = 8_000
FRAME = "await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)));"
ACTIONS = {
    "scroll by a page": "grid.scrollTop += grid.clientHeight",
    "scroll to anywhere": "grid.scrollTop = Math.random() * grid.scrollHeight",
    "sort by a number": "columns.querySelector('.highest').click()",
    "sort by name": "columns.querySelector('.label').click()",
    "search": "query.value = words[Math.floor(words.length * Math.random())]; query.dispatchEvent(new Event('input'))",
    "filter": "only.value = only.value === 'alive' ? 'dead' : 'alive'; only.dispatchEvent(new Event('change'))",
}
MADE = [f"t{i}" for i in range(10, 100)]
WORDS = ["city", "war", "the", "year", "music", "19", "born", "river", "game", "law", "church", "north", "son", "1"]
"""What is searched for on pages of made-up tokens, and on those of English text."""
TRIES = 12
MANY = 10_000
"""Latents beyond which three contexts of each are made: what is measured is the list, and contexts lie elsewhere."""


def made(latents: int, seed: int, top: int = TOP, each_band: int = EACH) -> StoredExamples:
    """Make examples: as many contexts a latent as are stored, or fewer, of tokens drawn by Zipf's law."""
    rng = np.random.default_rng(seed)
    tokens = np.minimum(np.random.default_rng(0).zipf(1.2, ROWS), VOCABULARY)
    bands = [0] * top + sorted([*range(1, BANDS + 1)] * each_band)
    each = len(bands)
    count = latents * each
    row = rng.integers(BEFORE, ROWS - AFTER - 1, count)
    extra = rng.random(count) < 0.3
    fired = [[BEFORE - 3, BEFORE] if more else [BEFORE] for more in extra.tolist()]
    values = rng.gamma(2.0, 3.0, count).round(2)
    contexts = {
        "latent": np.repeat(np.arange(latents), each), "band": np.tile(bands, latents),
        "row": row, "start": row - BEFORE, "stop": row + AFTER + 1, "fired": fired,
        "values": [[v / 2, v] if more else [v] for v, more in zip(values.tolist(), extra.tolist(), strict=True)],
    }  # fmt: skip
    near = rng.integers(0, latents, (latents, 8))
    cosines, bars = rng.random((latents, 8)).round(3), rng.integers(0, 300, (latents, 24))
    words = np.array([f" t{i}" for i in range(VOCABULARY + 1)])
    named = lambda: words[rng.integers(0, VOCABULARY, (latents, 8))].tolist()
    rows = {
        "fires": rng.integers(0, 2000, latents), "lowest": np.full(latents, 0.1), "highest": rng.gamma(2, 9, latents),
        "histogram": [*bars], "near": [*near], "near_cosine": [*cosines], "together": [*near],
        "together_phi": [*cosines],
        "promoted": named(), "promoted_by": [*cosines], "suppressed": named(), "suppressed_by": [*cosines],
    }  # fmt: skip
    text = {
        "row": np.arange(ROWS), "window": np.arange(ROWS) // 128, "position": np.arange(ROWS) % 128,
        "text": words[tokens].tolist(),
    }  # fmt: skip
    return StoredExamples(
        table_of("latents", latents, rows), table_of("contexts", count, contexts), table_of("rows", ROWS, text), None,
        ROWS,
    )  # fmt: skip


def write(folder: Path, latents: int, sides: int) -> None:
    """Write pages of so many latents, of one dictionary or two."""
    import shutil
    from importlib.resources import as_file, files

    with as_file(files("unbraid.browser") / "static") as static:
        shutil.copytree(static, folder)
    rng = np.random.default_rng(9)
    order = [rng.permutation(latents)]
    order.append(np.argsort(order[0]))
    pairs = [Twins(one, rng.random(latents)) if sides == 2 else None for one in order]
    about = {"latents": latents, "shard": 64, "source": "made up", "scores": [], "control": []}
    runs = [about | {"name": f"made-{side}", "method": f"made {side}"} for side in range(sides)]
    put(folder / "data" / "index.js", "index", {"runs": runs, "factors": []})
    put_data(
        folder / "data",
        [made(latents, side, *((3, 0) if latents > MANY else ())) for side in range(sides)],
        pairs[:sides],
        [None] * sides,
    )


def thread(page: Chromium) -> float:
    """Return the CPU seconds that the page's thread has worked."""
    found = page.call("Performance.getMetrics")["metrics"]
    return {row["name"]: row["value"] for row in found}["TaskDuration"]


def measured(folder: Path, words: list[str]) -> dict[str, Any]:
    """Measure a browser of latents: size in megabytes, times in milliseconds, median and largest, and the load of the
    machine meanwhile. `words`: those to search for."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    about = {"megabytes": round(size, 1), "load": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory() as profile, Chromium(Path(profile)) as page:
        page.call("Performance.enable", timeDomain="threadTicks")
        address = (folder / "index.html").as_uri()
        first = []
        for _ in range(3):
            page.open(address)
            first.append([page.run("performance.getEntriesByName('first-row')[0].startTime"), 1e3 * thread(page)])
        found: dict[str, Any] = about | {"first picture": summary(first)}
        page.run(f"void (window.words = {json.dumps(words)})")
        page.run("void Object.assign(window, Object.fromEntries(['grid', 'columns', 'query', 'only']"
                 ".map(id => [id, document.getElementById(id)])))")  # fmt: skip
        for name, action in ACTIONS.items():
            times = []
            for _ in range(TRIES):
                before = thread(page)
                wall = page.run(
                    f"(async () => {{ const t = performance.now(); {action}; {FRAME} return performance.now() - t }})()"
                )
                times.append([wall, 1e3 * (thread(page) - before)])
            found[name] = summary(times)
        opened = []
        for latent in range(0, 64 * TRIES, 64):  # each in a shard that is not yet loaded
            before, start = thread(page), time.perf_counter()
            page.run(f"location.hash = '#latent={latent}&in=a'")
            page.until(f"document.querySelector('.panel[data-latent=\"{latent}\"]')")
            opened.append([1e3 * (time.perf_counter() - start), 1e3 * (thread(page) - before)])
        found["open a latent"] = summary(opened)
        assert not page.errors, page.errors
        return found


def summary(times: list[list[float]]) -> dict[str, float]:
    """Return the median and the largest of wall time and of the thread's time."""
    wall, script = np.array(times).T
    return {
        "median": round(float(np.median(wall)), 1), "largest": round(float(wall.max()), 1),
        "script_median": round(float(np.median(script)), 1), "script_largest": round(float(script.max()), 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--latents", type=int, nargs="*", default=[4096, 65_536])
    parser.add_argument("--pages", nargs=2, metavar=("NAME", "FOLDER"), help="measure these, in place of made-up ones")
    options = parser.parse_args()
    out = options.out
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    found["machine"] = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    if options.pages:
        name, folder = options.pages
        found[name] = measured(Path(folder), WORDS)
        print(name, json.dumps(found[name], indent=1), flush=True)
    for latents in [] if options.pages else options.latents:
        sides = 1 if latents > MANY else 2
        name = f"{'one' if sides == 1 else 'two'} of {latents:,}"
        with tempfile.TemporaryDirectory() as home:
            folder = Path(home) / "pages"
            write(folder, latents, sides)
            found[name] = measured(folder, MADE)
        print(name, json.dumps(found[name], indent=1), flush=True)
    write_text(out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
