"""Committed rows of a study with several widths: every score against width, as a table and as figures.

    python -m benchmarks.width docs/results/width.json --factors 24
    python -m benchmarks.width docs/results/width.json --factors 24 --figure runs/width.html

Means over seeds with 95 % intervals; the last row of a method is the change from its narrowest to its widest, seed by
seed. Reports of the runs themselves draw the same figures (`unbraid report`). `fall` is the largest share by which a
run's loss still fell over the last fifth of its training before the learning rate fell.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from unbraid.comparison.committed import quantity_of, scores_of_rows
from unbraid.comparison.scores import Scores
from unbraid.comparison.wording import mean_half, number
from unbraid.report.figures import Look, Plot, embedded, looks
from unbraid.report.width import Grown, grown, width_plot
from unbraid.system.files import write_text

SHOWN = (
    "fvu", "mcc", "f1", "latents_per_factor", "represented", "products", "product_share", "absorption", "recall_child",
)  # fmt: skip
NAMES = {
    "fvu": "FVU", "mcc": "MCC", "f1": "F1", "latents_per_factor": "latents a factor", "represented": "represented",
    "products": "product latents", "product_share": "share of products", "absorption": "absorption",
    "recall_child": "parents with a child",
}  # fmt: skip
PANELS = ("latents_per_factor", "products", "absorption", "f1", "mcc", "fvu")
Row = dict[str, Any]


def table(rows: Sequence[Row], factors: int, shown: Sequence[str] = SHOWN) -> str:
    """A row a method and width: tokens a latent, living latents, scores with intervals; then the change."""
    scores = scores_of_rows(rows)
    head = ["", "latents", "seeds", "tokens a latent", "fall", "living", *(NAMES[name] for name in shown)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one in grown(scores):
        lines += [line(rows, scores, one, d_sae, factors, shown) for d_sae in one.by_width]
        changes = [mean_half(one.change(scores, quantity_of(name, said(rows, name)))) for name in shown]
        lines.append(f"| | widest − narrowest | | | | | {' | '.join(changes)} |")
    return "\n".join(lines)


def line(rows: Sequence[Row], scores: Scores, one: Grown, d_sae: int, factors: int, shown: Sequence[str]) -> str:
    """The row of a method at a width."""
    name = one.name if d_sae == min(one.by_width) else ""
    runs = {run.run for run in one.by_width[d_sae]}
    own = [row for row in rows if row["run"] in runs]
    falls = [row["fall"] for row in own if row.get("fall") is not None]
    living = mean_half(one.value(scores, quantity_of("alive"), d_sae))
    cells = [
        name, f"{d_sae:,} ({number(d_sae / factors)}x)", str(len(own)), f"{own[0]['tokens'] / d_sae:,.0f}",
        f"{max(falls):.1%}" if falls else "–", living,
        *(mean_half(one.value(scores, quantity_of(key, said(rows, key)), d_sae)) for key in shown),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def said(rows: Sequence[Row], name: str) -> str | None:
    """The params of a score as rows have them."""
    return next((row["params"][name] for row in rows if name in row.get("params", {})), None)


def page(rows: Sequence[Row]) -> str:
    """A page of figures, each a score against width, that needs nothing but a browser."""
    scores = scores_of_rows(rows)
    lines = [one for one in grown(scores) if one.role != "control"]
    drawn = {one.method for one in lines}
    plots = [width_plot(scores, quantity_of(name, said(rows, name)), lines, "") for name in PANELS]
    first = {look.name.partition(" (")[0]: look for look in reversed(looks(scores.methods).values())}
    names = "".join(key(name, look) for name, look in first.items() if name in drawn)
    places = "".join(map(panel, range(len(plots))))
    return (
        '<!doctype html><meta charset="utf-8"><title>Scores against width</title><style>body{font:14px sans-serif;'
        "margin:8px}div.all{display:grid;grid-template-columns:repeat(3,330px)}</style>"
        f'<p>{names}</p><div class="all">{places}</div><script>{get_plotlyjs()}</script>'
        f"<script>{''.join(map(drawing, range(len(plots)), plots))}</script>"
    )


def key(name: str, look: Look) -> str:
    """A method's name in the legend, underlined as its line is drawn."""
    line = {"solid": "solid", "dot": "dotted"}.get(look.dash, "dashed")
    return f'<b style="border-bottom:3px {line} {look.colour};margin-right:2em">{name}</b>'


def panel(index: int) -> str:
    """The place of a figure."""
    return f'<div id="p{index}" style="height:250px"></div>'


def drawing(index: int, plot: Plot) -> str:
    """The call that draws a figure."""
    figure = {**plot.figure, "layout": plot.figure["layout"] | {"height": 250}}
    return f'{{const f={embedded(figure)};Plotly.newPlot("p{index}",f.data,f.layout,{{staticPlot:true}})}}'


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--factors", type=int, required=True, help="how many the world has")
    parser.add_argument("--figure", type=Path, help="the page to write")
    options = parser.parse_args()
    rows = json.loads(options.rows.read_text())
    print(table(rows, options.factors))
    if options.figure is not None:
        write_text(options.figure, page(rows))


if __name__ == "__main__":
    main()
