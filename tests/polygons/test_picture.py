import numpy as np
import pytest
import shapely

from classy_gc.polygons import Buildings, open_map
from classy_gc.polygons.picture import picture
from tests.polygons.map_files import saved


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
