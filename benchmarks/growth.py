"""The picture of growth: CPU time a token against the number of latents, a line a library.

    python -m benchmarks.growth docs/results/bench.json --figure runs/growth.html --png docs/growth.png

Both axes are logarithmic. A point is the median over runs, its bar the range.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from unbraid.report.figures import embedded
from unbraid.system.files import write_text

COLOURS = {
    "unbraid": "#0b6e4f",
    "unbraid-bf16": "#0b6e4f",
    "sae-lens": "#c1440e",
    "sae-lens-autocast": "#c1440e",
    "dictionary-learning": "#3b5bdb",
    "sparsify": "#8e44ad",
    "overcomplete": "#b7950b",
    "floor": "#777777",
}
DASHED = ("unbraid-bf16", "sae-lens-autocast", "floor")
NAMES = {"floor": "encoder and optimiser alone"}
SIZE = (760, 460)
"""Of the picture, in pixels."""


def lines(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The trace of every library, over the cases of the regime `growth`."""
    found = []
    for who, colour in COLOURS.items():
        times: dict[int, list[float]] = {}
        for row in rows:
            if row["regime"] == "growth" and row["who"] == who:
                times.setdefault(row["d_sae"], []).append(1e6 / row["tokens_per_second"])
        middle = {d_sae: statistics.median(times[d_sae]) for d_sae in sorted(times)}
        if not middle:
            continue
        bars = {
            "type": "data",
            "symmetric": False,
            "array": [max(times[d_sae]) - at for d_sae, at in middle.items()],
            "arrayminus": [at - min(times[d_sae]) for d_sae, at in middle.items()],
        }
        dash = "dot" if who in DASHED else "solid"
        found.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": NAMES.get(who, who),
                "x": list(middle),
                "y": list(middle.values()),
                "error_y": bars,
                "line": {"color": colour, "dash": dash, "width": 3 if who == "unbraid" else 2},
            }
        )
    return found


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page with the figure, which needs nothing but a browser."""
    traces = lines(rows)
    if not traces:
        raise SystemExit("no row is of the regime growth; run `python -m benchmarks.run --regimes growth` first")
    widths = sorted({x for trace in traces for x in trace["x"]})
    layout = {
        "width": SIZE[0],
        "height": SIZE[1],
        "margin": {"l": 70, "r": 10, "t": 10, "b": 50},
        "xaxis": {
            "type": "log",
            "title": {"text": "latents"},
            "tickvals": widths,
            "ticktext": [f"{w:,}" for w in widths],
        },
        "yaxis": {"type": "log", "title": {"text": "µs of CPU a token"}, "dtick": 1},
        "template": "plotly_white",
    }
    drawn = embedded({"data": traces, "layout": layout})
    return (
        '<!doctype html><meta charset="utf-8"><title>Time against latents</title><style>body{margin:0}</style>'
        f'<div id="p"></div><script>{get_plotlyjs()}</script>'
        f'<script>{{const f={drawn};Plotly.newPlot("p",f.data,f.layout,{{staticPlot:true}})}}</script>'
    )


def photograph(source: Path, target: Path) -> bool:
    """Draw a page with a headless Chromium; False where there is none."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        return False
    with tempfile.TemporaryDirectory() as profile:
        shot = Path(profile) / "shot.png"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000"]
        size = f"--window-size={SIZE[0]},{SIZE[1]}"
        command = [
            browser,
            *flags,
            size,
            f"--user-data-dir={profile}",
            f"--screenshot={shot}",
            source.resolve().as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if not shot.is_file():
            raise SystemExit(f"{browser} drew nothing:\n{done.stderr[-2000:]}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shot, target)
    return True


def draw(rows: Sequence[Mapping[str, Any]], figure: Path, png: Path) -> None:
    """Write the page, and the picture where there is a Chromium."""
    figure.parent.mkdir(parents=True, exist_ok=True)
    write_text(figure, page(rows))
    made = photograph(figure, png)
    print(f"{png}" if made else f"no Chromium here to make {png} of {figure}, which a browser opens")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--figure", type=Path, required=True, help="the page to write")
    parser.add_argument("--png", type=Path, required=True, help="the picture to write")
    options = parser.parse_args()
    draw(json.loads(options.rows.read_text()), options.figure, options.png)


if __name__ == "__main__":
    main()
