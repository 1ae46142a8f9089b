import numpy as np
import pytest
import shapely
from scipy import ndimage

from classy_gc.polygons import Graph, contours, skeleton
from classy_gc.polygons.outlines import trace


def drawn(text):
    return np.array([[c == "#" for c in line] for line in text.split()])


@pytest.mark.parametrize(
    ("text", "paths", "junctions", "kept"),
    [
        ("...  .#.  ...", 0, 0, 0),
        ("..... .###. .....", 1, 0, 0),
        ("..... .###. .#.#. .###. .....", 1, 0, 1),
        ("..#.. ..#.. ##### ..#.. ..#..", 4, 1, 0),
        ("####### #..#..# #..#..# #######", 3, 2, 3),
        ("####.. #..### ####..", 2, 1, 1),  # a loop with a tail
        ("#...# .#.#. ..#.. .#.#. #...#", 4, 1, 0),
        ("##.. ##.. ..## ..##", None, None, None),  # not thin; the thinning must end
    ],
)
def test_trace(text, paths, junctions, kept):
    lines = drawn(text)
    found = trace(lines)
    if paths is None:
        return
    assert len(found) == paths
    graph = Graph.of(found)
    assert (graph.degree > 2).sum() == junctions
    assert len(trace(lines, keep_tips=False)) == kept


def test_trace_goes_through_every_pixel_once():
    random = np.random.default_rng(0)
    from skimage.morphology import skeletonize

    lines = skeletonize(ndimage.gaussian_filter(random.standard_normal((200, 200)), 3) > 0)
    seen = np.zeros(lines.shape, int)
    for path in trace(lines):
        assert (np.abs(np.diff(path, axis=0)) <= 3).all()
        inner = path[1:-1] if (path[0] != path[-1]).any() else path[1:]
        rows, columns = np.rint(inner).astype(int).T
        np.add.at(seen, (rows, columns), 1)
    single = ndimage.convolve(lines.astype(int), np.ones((3, 3), int), mode="constant") == 3
    assert (seen[lines & single] <= 1).all()
    assert (seen > 0)[lines].mean() > 0.8


def area(paths):
    lines = [shapely.LineString(path) for path in paths]
    (polygon,) = shapely.get_parts(shapely.polygonize(lines))
    return polygon.area


@pytest.mark.parametrize("box", [(2, 5, 9, 14), (0, 0, 9, 14), (3, 4, 20, 30), (0, 0, 20, 30)])
@pytest.mark.parametrize("outlines", [contours, skeleton])
def test_outlines_close_at_the_border(box, outlines):
    interior = np.zeros((20, 30))
    top, left, bottom, right = box
    interior[top:bottom, left:right] = 1
    paths = outlines(interior)
    assert area(paths) == pytest.approx((bottom - top) * (right - left), abs=4)
    points = np.concatenate(paths)
    for axis, last in enumerate(interior.shape):
        ends = points[:, axis].min() == -0.5, points[:, axis].max() == last - 0.5
        assert ends == (box[axis] == 0, box[axis + 2] == last)
    corners = {(r - 0.5, c - 0.5) for r in (top, bottom) for c in (left, right)}
    kept = corners & {tuple(path[0]) for path in paths}
    at_border = {c for c in corners if c[0] in (-0.5, 19.5) and c[1] in (-0.5, 29.5)}
    assert at_border <= kept


def test_pieces_of_outlines_along_the_border_meet():
    random = np.random.default_rng(0)
    interior = 0.5 + 9 * ndimage.gaussian_filter(random.random((400, 400)) - 0.5, 4)
    paths = contours(interior.clip(0, 1))
    ends = np.concatenate([path[[0, -1]] for path in paths])
    _, count = np.unique(ends, axis=0, return_counts=True)
    assert len(paths) > 100
    assert (count == 2).all()


def test_min_area_and_nothing():
    interior = np.zeros((20, 20))
    assert contours(interior) == skeleton(interior) == []
    interior[4:6, 4:6] = interior[10:18, 10:18] = 1
    assert len(contours(interior)) == 2
    assert len(contours(interior, min_area=10)) == 1
