import math

import pytest
from unbraid.comparison.compare import Point, match

from unbraid.comparison.curves import clusters, interpolate, nearest
from unbraid.comparison.quantities import Quantity

L0 = Quantity("fidelity", "l0")
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


def test_both_sides_are_read_at_one_l0_inside_both_ranges():
    a, b = {0: [(17.0, 1.0), (64.0, 2.0)]}, {0: [(16.0, 5.0), (32.0, 6.0)]}
    matched = match(a, b, Point("L0", L0, 16.0))
    assert matched is not None
    assert (matched.x, matched.a) == (17.0, {0: 1.0})
    assert matched.b[0] == pytest.approx(5 + math.log2(17 / 16))


def test_measured_points_stand_in_where_ranges_do_not_overlap():
    matched = match({0: [(30.5, 1.0)]}, {0: [(32.0, 2.0)]}, Point("L0", L0, 32.0))
    assert matched is not None
    assert (matched.a, matched.b) == ({0: 1.0}, {0: 2.0})
    assert "L0 30.5 and 32" in matched.note


def test_far_ranges_are_not_matched():
    assert match({0: [(50.0, 1.0), (90.0, 2.0)]}, {0: [(16.0, 1.0), (32.0, 2.0)]}, Point("L0", L0, 32.0)) is None
    assert match({}, {0: [(16.0, 1.0)]}, Point("L0", L0, 16.0)) is None
