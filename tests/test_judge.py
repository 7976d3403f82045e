"""The judge of predictions: on made-up rows in which what holds is known."""

import random

from benchmarks.judge import BASELINE, cell, differences, predictions, shown_rows, slopes, table, word


def rows(effects: dict[str, dict[str, float]]) -> list[dict]:
    """Every method of the predictions, as BatchTopK but for planted shifts."""
    found = []
    for world in ("forest", "twin", "memorisation"):
        for d_sae in (96, 256, 384):
            for asked in (2, 4, 8):
                for method in (BASELINE, "matryoshka", "masked", *effects):
                    for seed in range(3):
                        shared, own = random.Random(f"{seed}"), random.Random(f"{method}{seed}{d_sae}{asked}")
                        base = {
                            "absorption": 0.2, "recall_child": 0.6, "latents_per_factor": 1 + d_sae / 960, "fvu": 0.05,
                            "isolation": 0.2, "alive": 1.0, "l2_ratio": 1.0, "mcc": 0.7, "products": 20.0,
                            "recall_rarest": 0.4, "l0": asked,
                        }  # fmt: skip
                        noise = 0.02 * shared.gauss(0, 1)
                        row = {
                            k: v * (1 + noise + 0.001 * own.gauss(0, 1)) + effects.get(method, {}).get(k, 0.0)
                            for k, v in base.items()
                        }
                        about = {"world": world, "method": method, "asked": asked, "d_sae": d_sae, "seed": seed}
                        found.append(about | {"control": method == "masked"} | row)
    return found


def said(lines: list[str], start: str) -> str:
    return next(line for line in lines if line.startswith(start))


PLANTED = {
    "orthogonality": {"absorption": -0.15, "recall_child": 0.2},
    "c2r-sum": {"absorption": -0.1, "recall_child": 0.1},
    "c2r-coactivation": {},
    "correlation": {"absorption": 0.1, "recall_child": -0.1},
    "hsic": {"absorption": 0.15},
    "functional": {"isolation": 0.1, "recall_child": 0.2},
    "functional-apart": {},
    "gate-kl": {"alive": -0.2},
    "support": {},
}


def test_planted_effects_are_held_refuted_or_void():
    lines = predictions(rows(PLANTED))
    assert "absorption held (-0.766" in said(lines, "1 ") and "recall held" in said(lines, "1 ")
    assert "absorption held" in said(lines, "2 c2r-sum") and "absorption held" in said(lines, "2 c2r-coactivation")
    assert "absorption held" in said(lines, "3 ") and "beside correlation held" in said(lines, "4 ")
    assert "absorption refuted" in said(lines, "6 functional:") and "isolation held" in said(lines, "6 functional:")
    assert "VOID, latents were deleted: living share 0.78" in said(lines, "7 ")
    assert "largest gain of isolation is functional's" in said(lines, "6 functional:")
    assert said(lines, "d ").endswith(": functional")


def test_families_are_refuted_when_their_means_have_one_sign():
    assert said(predictions(rows(PLANTED)), "a ").startswith("a held")
    planted = PLANTED | {name: {"absorption": 0.1} for name in ("orthogonality", "c2r-sum", "functional")}
    assert said(predictions(rows(planted)), "a ").startswith("a refuted")


def test_less_absorption_without_more_parents_is_void():
    gamed = PLANTED | {"orthogonality": {"absorption": -0.15, "recall_child": -0.01}}
    assert "absorption VOID, no parent is found more often" in said(predictions(rows(gamed)), "1 ")


def test_rare_factors_given_up_make_a_win_void():
    gave_up = PLANTED | {"functional": PLANTED["functional"] | {"recall_rarest": -0.1}}
    lines = predictions(rows(gave_up))
    assert "VOID, rare factors were given up" in said(lines, "6 functional:") and said(lines, "d ").endswith("none")


def test_memorisation_is_read_beside_living_latents():
    dead = PLANTED | {"orthogonality": {"products": -10.0, "alive": -0.5}}
    assert "VOID, latents were deleted" in said(predictions(rows(dead)), "b orthogonality")
    assert "of the living" in said(predictions(rows(PLANTED)), "b orthogonality")


def test_a_leading_zero_is_dropped_and_no_other():
    assert cell({0: 10.005, 1: 20.5}).startswith("15.25") and cell({0: 0.5}) == ".500" and cell({}) == ""


def test_an_interval_across_the_border_is_undecided():
    assert word([0.0, 0.1, 0.2], 0.1, 1.0).startswith("undecided")
    assert word([0.3, 0.31, 0.32], 0.1, 1.0).startswith("held")
    assert word([-0.3, -0.31, -0.32], 0.1, 1.0).startswith("refuted")
    assert word([0.3], 0.1, 1.0) == "not measured"


def test_the_slope_is_by_doubling_of_width():
    found = slopes(rows(PLANTED), BASELINE)
    assert set(found) == {0, 1, 2} and all(0.1 < slope < 0.2 for slope in found.values())


def test_the_table_has_a_row_a_method_and_controls_in_italics():
    lines = table(shown_rows(rows(PLANTED), "forest", 384, 4)).splitlines()
    assert len(lines) == 2 + len(PLANTED) + 3 and lines[-1].startswith("| *masked* |")


def test_differences_are_paired_and_bold_where_zero_is_outside():
    lines = differences(shown_rows(rows(PLANTED), "forest", 384, 4), ["isolation", "absorption"]).splitlines()
    of = {line.split(" |")[0].strip("| "): line for line in lines}
    assert "**+.100 ± .00" in of["functional"] and of["functional"].count("**") == 2
    assert of[BASELINE].count("±") == 0
