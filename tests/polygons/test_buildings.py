"""From maps to polygons: the corner-aware simplification, faces, and everything together."""

import numpy as np
import pytest
import rasterio.features
import shapely
import torch

from classy_gc.polygons import (
    FrameField,
    Graph,
    TensorPolyOptimizer,
    contours,
    from_directions,
    from_map,
    polygonize,
    resample,
    skeleton,
)
from classy_gc.polygons.buildings import faces
from classy_gc.polygons.metrics import vertices
from classy_gc.polygons.simplify import simplify
from tests.polygons import bubenec, realistic
from tests.polygons.shapes import ROOMS, SHAPE, rectangle, rendered, rooms

GRAPH = Graph.of(resample([np.array([[0.0, 0], [0, 9], [9, 9], [0, 0]])]))


def hausdorff(a, b):
    return shapely.hausdorff_distance(shapely.boundary(a), shapely.boundary(b), densify=0.05)


def corners(polygon):
    return [shapely.get_num_coordinates(ring) - 1 for ring in shapely.get_rings(polygon)]


@pytest.mark.parametrize("method", ["contours", "skeleton"])
@pytest.mark.parametrize("degrees", [0, 20, 45])
def test_a_rectangle_has_four_corners(method, degrees):
    truth = rectangle(degrees)
    interior = rendered(truth)
    u = np.full(SHAPE, np.exp(1j * np.radians(90 - degrees)))
    frame = None if method == "contours" else from_directions(u, 1j * u)
    found = polygonize(interior, frame=frame, method=method)
    (polygon,) = found.polygons
    assert corners(polygon) == [4]
    assert hausdorff(polygon, truth) < 0.7
    assert found.probability == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("degrees", [0, 20])
def test_the_half_pixel(degrees):
    """A small building lies where it is, not half a pixel away."""
    truth = rectangle(degrees, 14, 10, (60.25, 50.5))
    (polygon,) = polygonize(rendered(truth, blur=0.7)).polygons
    offset = np.array(polygon.centroid.coords[0]) - truth.centroid.coords[0]
    assert np.abs(offset).max() < 0.05


def test_rooms_share_their_wall():
    interior, edges = rooms()
    found = polygonize(interior, edges)
    for polygons in (found.polygons, found.before):
        a, b = polygons
        assert sorted(len(p.interiors) for p in polygons) == [0, 1]
        assert a.intersection(b).area == 0
        assert len(shapely.union_all(polygons).interiors) == 1  # no gap between them
        assert a.intersection(b).length == pytest.approx(80, abs=2)
    for polygon, room in zip(sorted(found.polygons, key=lambda p: p.bounds), ROOMS, strict=True):
        assert hausdorff(polygon, room) < 0.7
        assert corners(polygon) == [4] * len(corners(room))


def test_contours_with_edges_and_other_bad_arguments():
    interior, edges = rooms()
    with pytest.raises(ValueError, match="'skeleton', not 'contours'"):
        polygonize(interior, edges, method="contours")
    with pytest.raises(ValueError, match=r"one of \['contours', 'skeleton'\], not 'outlines'"):
        polygonize(interior, method="outlines")
    with pytest.raises(ValueError, match="2×2, the map 120×160"):
        polygonize(interior, frame=FrameField(*np.zeros((2, 2, 2), complex)))
    for call in (polygonize, skeleton):
        with pytest.raises(ValueError, match="edges is 2×2, interior 120×160"):
            call(interior, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"interior must have the shape .*not \[1, 120, 160\]"):
        polygonize(interior[None])
    for values in (np.uint8(interior * 255), interior - 0.1, np.where(interior < 0.5, 0, np.nan)):
        for call in (polygonize, contours, skeleton):
            with pytest.raises(ValueError, match=r"interior must lie in \[0, 1\]"):
                call(values)
    with pytest.raises(ValueError, match=r"interior must be one array \[height, width\]"):
        polygonize([[0, 1], [1]])
    for option, value in [("threshold", 2), ("tolerance", np.nan), ("min_area", -1)]:
        with pytest.raises(ValueError, match=rf"{option} must .*, not {value}"):
            polygonize(interior, **{option: value})
    with pytest.raises(ValueError, match=r"tolerance 0\.5m: metres need a map with a CRS"):
        polygonize(interior, tolerance="0.5m")
    with pytest.raises(ValueError, match=r"min_area must be a number of pixels.*, not None"):
        polygonize(interior, min_area=None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_value_that_is_not_finite_is_refused(value):
    """This once ended in a segmentation fault of GEOS."""
    interior = rendered(rectangle(20))
    frame = from_map(interior)
    frame.c0[60, 80] = value
    for call in (
        lambda: polygonize(interior, frame=frame),
        lambda: TensorPolyOptimizer(Graph.of([]), interior, frame),
        lambda: simplify(GRAPH, np.full(GRAPH.positions.shape, value)),
        lambda: resample([np.array([[0, 0], [value, 9]])]),
    ):
        with pytest.raises(ValueError, match="finite"):
            call()


def test_steps_that_lead_nowhere_are_told():
    interior = rendered(rectangle(20))
    with pytest.raises(ValueError, match=r"no longer finite with lr 1e\+39"):
        polygonize(interior, lr=1e39)


@pytest.mark.parametrize(
    "given",
    [
        lambda x: x[::-1, ::-1][::-1, ::-1].tolist(),
        lambda x: x[::-1][::-1],
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: torch.tensor(x, dtype=torch.bfloat16),
        lambda x: np.where(x == x.max(), np.nextafter(np.float64(1), 2), x),
        lambda x: np.where(x == 0, -1e-9, x),
        lambda x: np.ma.masked_array(np.where(x < 0.01, 7, x), x < 0.01),
    ],
    ids=["lists", "strides", "requires_grad", "bfloat16", "above", "below", "masked"],
)
def test_maps_of_every_kind(given):
    interior = rendered(rectangle(20))
    (found,), (expected,) = (polygonize(x).polygons for x in (given(interior), interior))
    assert hausdorff(found, expected) < 0.05


def test_what_is_masked_is_no_building():
    interior = rendered([rectangle(0, 20, 20, (40, 60)), rectangle(0, 20, 20, (120, 60))])
    mask = np.zeros(interior.shape, bool)
    mask[:, :80] = True
    (polygon,) = polygonize(np.ma.masked_array(interior, mask)).polygons
    assert polygon.centroid.x == pytest.approx(120, abs=0.5)


@pytest.mark.parametrize("method", ["contours", "skeleton"])
@pytest.mark.parametrize(
    "box", [(0, 0, 30, 20), (140, 30, 160, 70), (50, 100, 90, 120), (0, 0, 160, 120)]
)
def test_a_building_on_the_border(method, box):
    truth = shapely.box(*box)
    (polygon,) = polygonize(rendered(truth, blur=0), method=method).polygons
    assert corners(polygon) == [4]
    assert hausdorff(polygon, truth) < 0.7
    height, width = SHAPE
    for found, true, border in zip(polygon.bounds, box, (0, 0, width, height), strict=True):
        if true == border:
            assert found == pytest.approx(border, abs=0.05)
            assert 0 <= found <= max(SHAPE)


@pytest.mark.parametrize("method", ["contours", "skeleton"])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_map_without_buildings(method, value):
    found = polygonize(np.full((40, 50), value, np.float32), method=method)
    assert len(found.polygons) == len(found.probability) == len(found.before) == 0


@pytest.mark.parametrize("method", ["contours", "skeleton"])
def test_thousands_of_tiny_buildings(method):
    inside = np.arange(600) % 12 < 6
    interior = np.float32(np.outer(inside, inside))
    found = polygonize(interior, method=method, steps=6)
    assert len(found.polygons) == 50 * 50
    assert np.allclose(shapely.area(found.polygons), 36, rtol=0.25)


def test_no_building_is_lost_to_the_tolerance():
    truth = rectangle(0, 7, 7, (40.5, 40.5))
    (polygon,) = polygonize(rendered(truth, blur=0), tolerance=8.0).polygons
    assert polygon.area > 10


def test_a_building_whose_traced_outline_is_flat_is_not_lost():
    """A narrow chevron: at this tolerance, Douglas and Peucker leave a line that goes back."""
    chevron = shapely.LineString([(60, 50), (69, 54), (78, 50)])
    chevron = chevron.buffer(2.5, cap_style="flat", join_style="mitre")
    interior = rendered(shapely.affinity.rotate(chevron, 20, origin=(60, 50)), blur=0)
    found = polygonize(interior, tolerance=5.0, steps=10)
    assert len(found.before) == 0
    assert len(found.polygons) == 1


def test_min_area_leaves_out_buildings_and_courtyards():
    court = shapely.box(20, 20, 60, 60).difference(shapely.box(38, 38, 42, 42))
    interior = rendered([court, shapely.box(100, 50, 104, 54)], blur=0)
    some = polygonize(interior, min_area=10).polygons
    assert sorted(len(p.interiors) for p in some) == [0, 1]
    (one,) = polygonize(interior, min_area=30).polygons
    assert not one.interiors
    assert one.area == pytest.approx(1600, rel=0.02)


def test_a_courtyard_with_a_building_in_it():
    ring = shapely.box(10, 10, 110, 110).difference(shapely.box(30, 30, 90, 90))
    found = polygonize(rendered([ring, shapely.box(50, 50, 70, 70)])).polygons
    big, small = sorted(found, key=shapely.area, reverse=True)
    assert corners(big) == [4, 4]
    assert corners(small) == [4]
    assert not big.intersects(small)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # A short wall 8° off the frame is turned into it, a long one 7° off it stays as it is.
        ([(0, 0), (0, 60), (25, 63.5), (25, 0)], [90] * 4),
        ([(0, 0), (0, 60), (100, 72), (100, 0)], [83, 90, 90, 97]),
        # Walls that nearly continue each other become one.
        ([(0, 0), (0, 30), (2, 56), (60, 56), (60, 0)], [90] * 4),
    ],
    ids=["short", "long", "one"],
)
def test_walls_turn_into_the_frame(path, expected):
    graph = Graph.of(resample([np.array([*path, path[0]], float)], spacing=1))
    c0 = np.full((110, 80), -1 + 0j)
    (line,) = simplify(graph, graph.positions, 1.0, FrameField(c0, 0 * c0))
    z = np.diff(shapely.get_coordinates(line) @ [1, 1j])
    turns = np.degrees(np.abs(np.angle(np.roll(z, -1) / z)))
    assert sorted(turns) == pytest.approx(expected, abs=2.5)


def test_faces_keep_what_is_probable():
    boxes = shapely.boundary([shapely.box(0, 0, 9, 9), shapely.box(9, 0, 19, 9)])
    interior = np.zeros((12, 24))
    interior[:10, 10:20] = 0.8
    polygons, probability = faces(boxes, interior)
    assert [p.bounds for p in polygons] == [(9.5, 0.5, 19.5, 9.5)]
    assert probability == pytest.approx(0.8)
    assert len(faces(boxes, interior, threshold=0.9)[0]) == 0


@pytest.mark.parametrize("method", ["contours", "skeleton"])
def test_a_frame_of_tensors(method):
    import torch

    interior = rendered(rectangle(20))
    frame = from_map(interior)
    tensors = FrameField(*map(torch.from_numpy, frame))
    found = [polygonize(interior, None, f, method, steps=20).polygons[0] for f in (frame, tensors)]
    assert found[0] == found[1]


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("method", ["contours", "skeleton"])
def test_thin_buildings_do_not_shrink(method, degrees):
    truth = rectangle(degrees, 44, 6)
    (polygon,) = polygonize(rendered(truth), method=method).polygons
    assert polygon.intersection(truth).area > 0.94 * polygon.union(truth).area


def rounded(radius):
    return rendered(shapely.box(45, 45, 105, 95).buffer(radius), (140, 150), blur=0)


@pytest.mark.parametrize("radius", [5, 8, 15])
def test_round_corners_are_no_saw(radius):
    """``align`` once drew steps around them: 24 vertices in place of 12."""
    interior = rounded(radius)
    (polygon,) = polygonize(interior).polygons
    plain = shapely.simplify(contours_polygon(interior), 1.0)
    assert corners(polygon)[0] <= min(12, *corners(plain))
    if radius < 15:
        assert corners(polygon) == [4]
    truth = shapely.box(45, 45, 105, 95).buffer(radius)
    assert polygon.intersection(truth).area > 0.98 * polygon.union(truth).area


@pytest.mark.parametrize("degrees", [0, 17, 30, 45])
@pytest.mark.parametrize("smooth", [True, False])
def test_round_corners_have_no_more_vertices_than_douglas_and_peucker(smooth, degrees):
    """Radii from 5 to 20 px, one building each."""
    truth = []
    for k, radius in enumerate(range(5, 21)):
        box = shapely.box(-30, -25, 30, 25).buffer(radius)
        turned = shapely.affinity.rotate(box, degrees, origin=(0, 0))
        truth.append(shapely.affinity.translate(turned, 70 + 135 * (k % 4), 70 + 135 * (k // 4)))
    if smooth:
        interior = rendered(truth, (550, 550), blur=0)
    else:
        interior = rasterio.features.rasterize(truth, (550, 550), dtype="float32")
    found = polygonize(interior)
    for polygon in truth:
        (ours,), (plain,) = (
            p[shapely.intersects(p, polygon)] for p in (found.polygons, found.before)
        )
        assert corners(ours)[0] <= corners(plain)[0]
        assert ours.intersection(polygon).area > 0.965 * ours.union(polygon).area


def contours_polygon(interior):
    (path,) = contours(interior)
    return shapely.Polygon(path[:, ::-1])


@pytest.mark.parametrize("turn", [0, 17])
@pytest.mark.parametrize("degrees", [15, 35])
@pytest.mark.parametrize("method", ["contours", "skeleton"])
def test_an_oblique_wall_stays_one_wall(method, degrees, turn):
    across, down = 40 * np.cos(np.radians(degrees)), 40 * np.sin(np.radians(degrees))
    truth = shapely.Polygon([(40, 40), (140 - across, 40), (140, 40 + down), (140, 120), (40, 120)])
    truth = shapely.affinity.rotate(truth, turn, origin=(90, 80))
    (polygon,) = polygonize(rendered(truth, (160, 180), blur=1.5), method=method).polygons
    assert corners(polygon)[0] in (5, 6)
    assert hausdorff(polygon, truth) < 3
    assert polygon.intersection(truth).area > 0.98 * polygon.union(truth).area


@pytest.mark.parametrize(("joined", "spread", "size"), realistic.CASES.values())
def test_maps_of_the_kind_that_networks_make(joined, spread, size):
    """On the half of the footprints that was not used for tuning."""
    scene, interior = realistic.realistic(bubenec.scene(joined), 0, 1, spread, size)
    found = polygonize(interior)
    plain, ours = (realistic.score(p, scene.truth) for p in (found.before, found.polygons))
    right, steps = realistic.shape_of(scene.truth)
    assert ours.iou >= plain.iou
    assert ours.vertices <= 0.7 * plain.vertices
    assert ours.hausdorff < plain.hausdorff
    assert ours.right >= 0.75 * right > plain.right
    assert ours.steps < 0.5 * 100 * steps / vertices(scene.truth)
