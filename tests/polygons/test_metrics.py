import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from classy_gc.polygons import Buildings, open_map
from classy_gc.polygons.metrics import Metrics, angle_error, measure, picture, table, vertices
from tests.polygons.map_files import saved
from tests.polygons.shapes import ROOMS

ROOMS_ARRAY = np.array(ROOMS)


def test_equal_polygons():
    assert measure(ROOMS_ARRAY, ROOMS_ARRAY) == pytest.approx((1, 0, 1, 0, 2, 1, 1, 1))
    assert vertices(ROOMS_ARRAY) == 12


def test_known_values():
    truth = shapely.box([0, 100], 0, [10, 110], 10)
    ours = shapely.box([0, 100], 0, [8, 110], 10)
    found = measure(ours, truth)._replace(angle=0)
    assert found == pytest.approx((0.9, 0, 1, 1, 2, 1, 1, 1), abs=0.02)
    missing = measure(ours[:1], truth)._replace(angle=0)
    assert missing == pytest.approx((0.4, 0, 0.5, 2, 1, 1, 0.5, 2 / 3), abs=0.02)


@given(st.floats(0, 12))
def test_a_slanted_wall(rise):
    truth = shapely.box(0, 0, 60, 60)
    slanted = shapely.Polygon([(0, 0), (60, rise), (60, 60), (0, 60)])
    expected = np.degrees(np.arctan2(rise, 60))
    assert angle_error(slanted, truth) >= expected - 0.1  # more at a corner


def test_nothing_found():
    found = measure(np.array([], object), ROOMS_ARRAY)
    assert (found.iou, found.vertices, found.matched) == (0, 0, 0)
    assert np.isnan([found.angle, found.hausdorff]).all()


def test_table():
    rows = {"before": (0.5, 45, 1, 3, 2, 1, 0.5, 2 / 3), "after": (1, 0, 1, 0, 2, 1, 1, 1)}
    lines = table({name: Metrics(*row) for name, row in rows.items()}).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == [
        "before",
        "0.500",
        "0.67",
        "1.00",
        "0.50",
        "45.0°",
        "3.0",
        "px",
        "1.00",
        "2",
    ]


@pytest.mark.parametrize("size", [300, 2000])
def test_dots_do_not_hide_outlines(size, tmp_path):
    """On a large map, vertices are drawn no wider than lines."""
    interior = open_map(saved(tmp_path / "map.npy", np.zeros((size, size), np.float32)))
    boxes = np.array([shapely.box(x, 40, x + 12, 52) for x in range(20, size - 20, 20)])
    figure = picture(interior, Buildings(boxes, np.ones(len(boxes)), boxes))
    for ax in figure.axes:  # before and after
        (dots,) = (line for line in ax.lines if line.get_marker() == "o")
        (outlines,) = ax.collections
        assert len(dots.get_xdata()) == 5 * len(boxes)  # rings end where they start
        if size == 2000:
            assert dots.get_markersize() <= outlines.get_linewidths()[0]
        else:
            assert dots.get_markersize() > outlines.get_linewidths()[0]
