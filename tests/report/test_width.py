"""Scores against width: curves over seeds with intervals, the change from the narrowest to the widest, and a table."""

import json
from pathlib import Path

import plotly.graph_objects as go
import pytest
from benchmarks import width as benchmark
from benchmarks.judge import collect
from tests.report.conftest import make_run, store

from unbraid.comparison.scores import Scores, arrange
from unbraid.comparison.stored_scores import read_scores
from unbraid.report import write_report
from unbraid.report.width import grown, shown, width_plots

WIDTHS = (24, 96, 384)
SEEDS = (0, 1, 2)


def one(root: Path, name: str, seed: int, d_sae: int, rise: float) -> Path:
    """A run whose latents a factor rise by `rise` a quadrupling, from a level that its seed draws."""
    steps = WIDTHS.index(d_sae)
    said = {"method": name, "l0": 2.0, "standard": True, "base": name, "claim": 1, "geometry": "raw", "trivial": False}
    said |= {"width": d_sae, "seed": seed, "term": None, "strength": None, "sees_truth": False}
    folder = make_run(root, name, seed, {"l0": 2.0, "fvu": 0.1, "alive": 0.5}, k=2, d_sae=d_sae, summary=said)
    row = {"metric": "latents_per_factor", "value": 1 + 0.5 * seed + rise * steps, "better": "lower", "params": {}}
    store(folder, "splitting", {"definitions": {"latents_per_factor": "what it is"}, "seconds": 1.0, "scores": [row]})
    products = {"metric": "product_latents", "value": 4.0 * steps, "better": "lower", "params": {}}
    store(folder, "memorisation", {"definitions": {}, "seconds": 1.0, "scores": [products]})
    return folder


def study(root: Path, widths: tuple[int, ...] = WIDTHS) -> list[Path]:
    rises = {"topk": 0.4, "batchtopk": 0.0}
    return [one(root, name, seed, w, rise) for name, rise in rises.items() for seed in SEEDS for w in widths]


@pytest.fixture
def scores(tmp_path) -> Scores:
    return arrange(read_scores(study(tmp_path)))


def test_a_line_is_a_method_over_its_widths_narrowest_first(scores):
    lines = grown(scores)
    assert [one.name for one in lines] == ["batchtopk-l0_2", "topk-l0_2"]
    assert all(tuple(one.by_width) == WIDTHS and set(map(len, one.by_width.values())) == {3} for one in lines)


def test_the_change_is_paired_by_seed_so_what_seeds_share_cancels(scores):
    splitting = next(q for q in scores.quantities if q.metric == "latents_per_factor")
    topk = next(one for one in grown(scores) if one.method == "topk")
    assert topk.change(scores, splitting) == pytest.approx((0.8, 0.0, 3))
    at = topk.value(scores, splitting, 24)
    assert at.mean == pytest.approx(1.5) and at.half == pytest.approx(4.3027 * 0.5 / 3**0.5, rel=1e-4)


def test_a_width_that_lost_a_seed_is_compared_on_the_others(tmp_path):
    folders = [folder for folder in study(tmp_path) if not ("topk-s2" in folder.name and width_of(folder) == 384)]
    scores = arrange(read_scores(folders))
    splitting = next(q for q in scores.quantities if q.metric == "latents_per_factor")
    topk = next(one for one in grown(scores) if one.method == "topk")
    assert topk.change(scores, splitting).n == 2 and topk.value(scores, splitting, 24).n == 3


def width_of(folder: Path) -> int:
    return json.loads((folder / "cfg.json").read_text())["d_sae"]


def test_every_score_is_drawn_against_width_and_memorisation_is_among_them(scores):
    plots = width_plots(scores, {("splitting", "latents_per_factor"): "what it is"})
    assert len(plots) == len(shown(scores))
    titles = {plot.title.removesuffix(" against width") for plot in plots}
    assert {"Latents per factor", "Product latents", "Fraction of variance unexplained"} <= titles
    figure = next(plot for plot in plots if plot.title == "Latents per factor against width")
    assert figure.caption == "lower is better ↓" and figure.identifier == "splitting.latents_per_factor: what it is"
    said = (
        "From 24 to 384 latents TopK L0 2 changes most, by +0.80 [+0.80, +0.80]; of 2 lines 1 is not shown to change."
    )
    assert figure.reading == said
    assert figure.table is not None and len(figure.table.rows) == 6, "two methods at three widths"
    go.Figure(figure.figure)  # raises where it is no figure
    flat, rising = figure.figure["data"]
    assert flat["x"] == rising["x"] == list(WIDTHS)
    assert rising["y"] == pytest.approx([1.5, 1.9, 2.3]) and flat["y"] == pytest.approx([1.5] * 3)


def test_a_report_has_the_group_where_there_are_widths_and_not_else(tmp_path):
    write_report(study(tmp_path / "several"), tmp_path / "several.html")
    write_report(study(tmp_path / "one", (24,)), tmp_path / "one.html")
    assert "against width</b>" in (tmp_path / "several.html").read_text()
    assert "against width</b>" not in (tmp_path / "one.html").read_text()


def test_committed_rows_give_the_table_and_the_page(tmp_path):
    rows = collect(study(tmp_path), "made up")
    lines = benchmark.table(rows, 24, ("latents_per_factor", "products")).splitlines()
    cells = [[cell.strip() for cell in text.strip("|").split("|")] for text in lines]
    assert cells[0] == ["", "latents", "seeds", "tokens a latent", "fall", "living", "latents a factor",
                        "product latents"]  # fmt: skip
    assert len(cells) == 2 + 2 * (len(WIDTHS) + 1)
    topk = cells[6:]
    assert topk[0][:4] == ["topk-l0_2", "24 (1.00x)", "3", "83,333"] and topk[2][1] == "384 (16.0x)"
    assert topk[3][1] == "widest − narrowest" and topk[3][6].startswith("0.8") and topk[3][7].startswith("8")
    page = benchmark.page(rows)
    assert page.count("Plotly.newPlot(") == len(benchmark.PANELS) and "topk</b>" in page
