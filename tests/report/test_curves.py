import math

import pytest

from unbraid.comparison.contrast import complete, contrast, read
from unbraid.comparison.curves import clusters, interpolate, nearest
from unbraid.comparison.quantities import ScoreSelector
from unbraid.comparison.scores import arrange
from unbraid.comparison.stored_scores import read_scores

LINE = [(x, 3 * math.log2(x)) for x in (8.0, 16.0, 64.0)]


def test_a_line_in_log_l0_is_read_exactly():
    for x in (8.0, 10.0, 16.0, 32.0, 64.0):
        assert interpolate(LINE, x) == pytest.approx(3 * math.log2(x), rel=1e-12)


def test_nothing_is_extrapolated():
    for x in (7.99, 64.01):
        with pytest.raises(ValueError, match="outside the measured range"):
            interpolate(LINE, x)


def test_nan_is_not_bridged():
    assert math.isnan(interpolate([(8.0, 1.0), (16.0, math.nan), (32.0, 3.0)], 20.0))


def test_nearest_point_is_within_ten_per_cent():
    assert nearest(LINE, 17.0) == LINE[1]
    assert nearest(LINE, 20.0) is None


def test_settings_of_similar_l0_are_one_point_of_comparison():
    assert clusters([64.0, 33.0, 16.0, 31.0]) == pytest.approx([16, math.sqrt(31 * 33), 64])
    assert clusters([math.nan, 0.0, -1.0]) == []


def test_a_curve_is_read_between_its_points_and_at_points_within_ten_per_cent():
    assert read(LINE, 32.0) == pytest.approx(15.0), "between points at most four times apart"
    assert read(LINE, 7.5) == LINE[0][1], "and beyond them at a measured one"
    assert math.isnan(read(LINE, 80.0)) and math.isnan(read([], 8.0))
    assert math.isnan(read([(4.0, 1.0), (64.0, 2.0)], 16.0)), "but not across a gap"


def test_the_largest_complete_table_of_levels_and_seeds():
    pair = (0.0, 0.0)
    full = {level: dict.fromkeys(range(4), pair) for level in (8.0, 16.0)}
    assert complete(full | {32.0: {0: pair}}) == ([8.0, 16.0], [0, 1, 2, 3])
    assert complete({8.0: {0: pair}, 16.0: dict.fromkeys(range(3), pair)}) == ([16.0], [0, 1, 2]), "seeds first"
    assert complete({}) == ([], [])


def judged(run, points: dict[str, tuple[float, ...]], seeds: dict[str, range] | None = None):
    """The contrast of two methods whose scores lie on one line in log L0, .1 apart."""
    folders = [
        run(f"{name}-l0_{l0:g}", seed, {"l0": l0, "mcc": 0.02 * math.log2(l0) + 0.1 * (name == "own")})
        for name, at in points.items()
        for l0 in at
        for seed in (seeds or {}).get(name, range(3))
    ]
    scores = arrange(read_scores(folders))
    by_name = {method.name: method for method in scores.methods}
    metric = scores.find(ScoreSelector("recovery", "mcc"))
    assert metric is not None
    return contrast(scores, by_name["own"], by_name["base"], metric)


def test_unequal_sparsities_are_interpolated_at_the_levels_of_the_base(run):
    found = judged(run, {"own": (12.0, 40.0, 80.0), "base": (16.0, 32.0, 64.0)})
    assert found.levels == pytest.approx((16.0, 32.0, 64.0))
    assert found.difference == pytest.approx(0.1) and found.value == pytest.approx(0.2)


def test_levels_that_one_side_does_not_reach_are_left_out_and_said(run):
    found = judged(run, {"own": (16.0, 32.0), "base": (16.0, 32.0, 64.0)})
    assert found.levels == pytest.approx((16.0, 32.0)) and found.note == "left out: L0 64.0"
    assert found.difference == pytest.approx(0.1)


def test_curves_that_do_not_overlap_are_not_compared(run):
    found = judged(run, {"own": (128.0, 256.0), "base": (16.0, 32.0)})
    assert not found.n and math.isnan(found.gain)
    assert "L0 covers 128 to 256" in found.note and "nothing is extrapolated" in found.note


def test_seeds_that_only_one_side_has_are_left_out(run):
    found = judged(run, {"own": (16.0,), "base": (16.0,)}, {"own": range(5), "base": range(2, 9)})
    assert sorted(found.own_by_seed) == [2, 3, 4]
    none = judged(run, {"own": (16.0,), "base": (16.0,)}, {"own": range(10, 13), "base": range(20, 23)})
    assert not none.n and "no seed in common" in none.note
