"""From a map of probabilities to polygons, of an array as a whole, of a large file in tiles."""

import math
from typing import Any, NamedTuple

import numpy as np
import rasterio.features
import shapely
from rasterio.transform import Affine
from scipy import ndimage

from classy_gc.polygons.files import placed
from classy_gc.polygons.frame_field import FrameField, as_frame, from_map, square_frame, square_map
from classy_gc.polygons.graph import Graph, resample
from classy_gc.polygons.maps import Map, as_map, check_same_place, in_pixels
from classy_gc.polygons.optimizers import TensorPolyOptimizer, TensorSkeletonOptimizer, shown
from classy_gc.polygons.outlines import EDGE_THRESHOLD, contours, skeleton
from classy_gc.polygons.simplify import douglas_peucker, simplify

# px around buildings that their frame field depends on: four standard deviations of its Gaussian,
# and a little.
_CONTEXT = 144
_ALIGN = 4  # px; the frame field is averaged in blocks that must be the same in every window
_NEARLY_SQUARE = 0.01  # relative difference allowed between the edges of a square pixel
_MOST_SQUARES = 20  # that a pixel may become, where it is long and narrow on the ground


class Buildings(NamedTuple):
    """Polygons, and how probable the map makes each.

    Attributes:
        polygons: shapely polygons in (x, y) = (column + ½, row + ½) pixels, shape ``[n]``.
        probability: the mean of the map over each polygon, shape ``[n]``.
        before: polygons of the unrefined outlines, only simplified, shape ``[m]``.
    """

    polygons: np.ndarray
    probability: np.ndarray
    before: np.ndarray


#: The class that refines the outlines of each method.
METHODS = {"contours": TensorPolyOptimizer, "skeleton": TensorSkeletonOptimizer}


def check_ranges(threshold: float, tolerance: float, min_area: float) -> None:
    """Refuses options of :func:`polygonize` that are outside their range."""
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1, not {threshold}")
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be a number > 0, not {tolerance}")
    if not 0 <= min_area < math.inf:
        raise ValueError(f"min_area must be a number >= 0, not {min_area}")


def polygonize(
    interior: Any,
    edges: Any = None,
    frame: FrameField | None = None,
    method: str | None = None,
    threshold: float = 0.5,
    tolerance: float = 1.0,
    min_area: float = 10.0,
    **options: Any,
) -> Any:
    """Polygons of the buildings in a map.

    Args:
        interior: probability of a building: an array, a tensor or lists of shape ``[H, W]``, where
            masked elements count as 0; or a map from ``open_map``.
        edges: probability of a wall, as ``interior``; it separates buildings that touch
            (default: None)
        frame: a frame field of arrays of shape ``[H, W]`` (default: None, the one that the map
            suggests)
        method: ``"contours"``, or ``"skeleton"``, which reads ``edges`` and lets neighbours share
            walls (default: None, ``"skeleton"`` if there are edges)
        threshold: the probability on outlines (default: 0.5)
        tolerance: of the simplification, in pixels (default: 1)
        min_area: smaller buildings and courtyards are left out, in px² (default: 10)
        **options: of ``TensorPolyOptimizer`` or ``TensorSkeletonOptimizer``: ``layout``,
            ``use_gc``, ``weights``, ``lr``, ``steps``, ``device``.

    Returns:
        ``Buildings``. For a map from ``open_map``, the polygons in its CRS: a GeoDataFrame with
        ``id``, ``mean_prob``, ``area`` and ``perimeter``.

    Raises:
        ValueError: an unknown method or layout, edges for contours, shapes that differ, or values
            or a threshold outside the range.

    Example:
        >>> import numpy as np
        >>> interior = np.zeros((40, 40), np.float32)
        >>> interior[8:32, 10:30] = 1
        >>> (polygon,) = polygonize(interior).polygons
        >>> [round(x) for x in polygon.bounds], len(polygon.exterior.coords) - 1
        ([10, 8, 30, 32], 4)
    """
    if isinstance(interior, Map):
        options |= {"method": method, "threshold": threshold}
        options |= {"tolerance": tolerance, "min_area": min_area}
        buildings = polygonize_map(interior, edges, frame, **options)
        return placed(buildings.polygons, buildings.probability, interior)
    if method is None:
        method = "contours" if edges is None else "skeleton"
    if method not in METHODS:
        raise ValueError(f"the method must be one of {list(METHODS)}, not {method!r}")
    if method == "contours" and edges is not None:
        raise ValueError("a map of edges goes with the method 'skeleton', not 'contours'")
    tolerance = in_pixels("tolerance", tolerance, None, 1)
    min_area = in_pixels("min_area", min_area, None, 2)
    check_ranges(threshold, tolerance, min_area)
    interior = as_map(interior)
    if edges is not None:
        edges = as_map(edges, "edges", interior.shape)
    frame = from_map(interior) if frame is None else as_frame(frame, interior.shape)
    if method == "contours":  # half of the area, since the outlines of small buildings may grow
        paths = contours(interior, threshold, min_area / 2)
    else:
        paths = skeleton(interior, edges, threshold)
    graph = Graph.of(resample(paths), interior.shape)
    refine = METHODS[method](graph, interior, frame, edges, threshold=threshold, **options)
    positions = refine.optimize()
    lines, plain = simplify(graph, positions, tolerance, frame), douglas_peucker(paths, tolerance)
    # A round corner may have more walls than the outline as it was traced; four are no more. With
    # three coordinates, that outline is flat: the tolerance is as large as the building.
    traced, walls = map(shapely.get_num_coordinates, (plain, lines))
    lines = np.where(graph.closed & (traced > 3) & (walls > np.maximum(traced, 5)), plain, lines)
    before, _ = faces(plain, interior, threshold, min_area)
    return Buildings(*faces(lines, interior, threshold, min_area), before)


def faces(
    lines: np.ndarray, interior: np.ndarray, threshold: float = 0.5, min_area: float = 10.0
) -> tuple[np.ndarray, np.ndarray]:
    """The faces between lines over which the map has a high mean.

    Lines are cut where they cross, so that neighbours share a wall to the last bit.

    Args:
        lines: shapely lines in (column, row).
        interior: probability of a building, shape ``[H, W]``.
        threshold: the least mean probability of a face (default: 0.5)
        min_area: smaller faces and holes are left out, in px² (default: 10)

    Returns:
        Shapely polygons in (x, y) = (column + ½, row + ½), to which the transform of a raster
        applies unchanged, and the mean probability of each; both of shape ``[n]``.

    Example:
        >>> ring = shapely.LinearRing([(-0.5, -0.5), (3.5, -0.5), (3.5, 3.5), (-0.5, 3.5)])
        >>> polygons, probability = faces(np.array([ring]), np.ones((8, 8)))
        >>> polygons[0].bounds, probability.tolist()
        ((0.0, 0.0, 4.0, 4.0), [1.0])
    """
    # Walls fitted on the image's border may end a little outside.
    size = np.array(interior.shape[::-1], float)
    lines = shapely.transform(lines, lambda xy: np.clip(xy + 0.5, 0, size))
    polygons = shapely.get_parts(shapely.polygonize(shapely.get_parts(shapely.union_all(lines))))
    polygons = polygons[shapely.area(polygons) >= min_area]
    if not len(polygons):
        return polygons, np.empty(0)
    numbered = zip(polygons, range(1, len(polygons) + 1), strict=True)
    face = rasterio.features.rasterize(numbered, interior.shape, dtype="int32")
    pixels = np.bincount(face.ravel(), minlength=len(polygons) + 1)
    total = np.bincount(face.ravel(), interior.ravel(), len(pixels))
    mean = (total / np.maximum(pixels, 1))[1:]  # pixels of no polygon are 0
    polygons, mean = polygons[mean > threshold], mean[mean > threshold]
    for k in np.flatnonzero(shapely.get_num_interior_rings(polygons)):
        holes = [h for h in polygons[k].interiors if shapely.Polygon(h).area >= min_area]
        polygons[k] = shapely.Polygon(polygons[k].exterior, holes)
    return polygons, mean


def polygonize_map(
    interior: Map,
    edges: Map | None = None,
    frame: FrameField | None = None,
    tile: int = 2048,
    threshold: float = 0.5,
    tolerance: float | str = 1.0,
    min_area: float | str = 10.0,
    **options: Any,
) -> Buildings:
    """Polygons of the buildings in a map of any size.

    A map larger than a tile is read twice. The first pass finds connected buildings, also across
    tiles. The second takes those whose middle lies in a tile, with their surroundings. So every
    building is refined once and as a whole, and memory grows with the tile, or with the largest
    group of buildings that touch.

    Args:
        interior: from ``open_map``.
        edges: map of walls on the same pixels (default: None)
        frame: a frame field of arrays of shape ``[H, W]`` (default: None, the one that the map
            suggests)
        tile: edge of a tile in pixels, without its surroundings; a multiple of 4 (default: 2048)
        threshold: the probability on outlines (default: 0.5)
        tolerance: of the simplification, in pixels (their shorter edge), or in metres as in "0.5m"
            (default: 1)
        min_area: smaller buildings and courtyards are left out, in px², or in square metres as in
            "9m" (default: 10)
        **options: of ``polygonize``.

    Returns:
        ``Buildings``, in pixels of the map.

    Raises:
        ValueError: values outside the range, edges on other pixels, or no buildings in the map.
    """
    if edges is not None:
        check_same_place(edges, interior)
    height, width = interior.shape
    size = interior.pixel_size
    # How many square pixels replace a pixel, down and across; the shorter edge stays.
    square = size is None or max(size) <= (1 + _NEARLY_SQUARE) * min(size)
    ratio = np.ones(2) if square else np.array(size) / min(size)
    if ratio.max() > _MOST_SQUARES:
        ground = "{:.3g} m high and {:.3g} m wide".format(*size)
        raise ValueError(f"{interior.path}: pixels are {ground} on the ground; reproject the map")
    ranges = {
        "threshold": threshold,
        "tolerance": in_pixels("tolerance", tolerance, size, 1),
        "min_area": in_pixels("min_area", min_area, size, 2, ratio.prod()),
    }
    check_ranges(**ranges)
    options |= ranges

    def worked(ours: np.ndarray) -> Buildings:
        rows, columns = _window(ours, interior.shape)
        maps = [file.read(rows, columns) for file in (interior, edges) if file is not None]
        if frame is None:  # from all buildings in the window, ours or not
            part = from_map(square_map(maps[0], ratio))
        else:
            part = square_frame(FrameField(*(c[rows, columns] for c in frame)), ratio)
        place = Affine.translation(columns.start, rows.start)
        mask = rasterio.features.rasterize(ours, maps[0].shape, transform=place)
        maps = [square_map(values * mask, ratio) for values in maps]
        found = polygonize(*maps, frame=part, **options)
        scale = np.array(mask.shape[::-1]) / maps[0].shape[::-1]

        def back(polygons: np.ndarray) -> np.ndarray:
            return shapely.transform(polygons, lambda xy: xy * scale + [columns.start, rows.start])

        return Buildings(back(found.polygons), found.probability, back(found.before))

    if max(height, width) <= tile + 2 * _CONTEXT:
        parts = np.array([shapely.box(0, 0, width, height)])
    else:
        parts = components(interior, edges, threshold, tile)
    results = [worked(ours) for ours in shown(_by_tile(parts, tile), "tiles")]
    if not any(len(buildings.polygons) for buildings in results):
        strips = (slice(r, min(r + tile, height)) for r in range(0, height, tile))
        highest = max(float(interior.read(rows, slice(0, width)).max()) for rows in strips)
        found = f"no buildings found; the highest probability is {highest:.3g} ({interior.scale})"
        asked = f"the threshold {threshold:g}, the smallest area {min_area} (px², or m)"
        raise ValueError(f"{interior.path}: {found}, {asked}")
    return Buildings(*map(np.concatenate, zip(*results, strict=True)))


def _by_tile(parts: np.ndarray, tile: int) -> list[np.ndarray]:
    """Buildings by the tile that their middle lies in."""
    x0, y0, x1, y1 = shapely.bounds(parts).T
    middles = np.stack([y0 + y1, x0 + x1], axis=1) // (2 * tile)
    _, number = np.unique(middles, axis=0, return_inverse=True)
    return [parts[number.ravel() == k] for k in range(number.max(initial=-1) + 1)]


def _window(parts: np.ndarray, shape: tuple[int, int]) -> list[slice]:
    """The rows and columns of buildings and of what their frame field depends on."""
    left, top, right, bottom = shapely.total_bounds(parts).astype(int).tolist()
    first = [max(x - _CONTEXT, 0) // _ALIGN * _ALIGN for x in (top, left)]
    last = [min(x + _CONTEXT, n) for x, n in zip((bottom, right), shape, strict=True)]
    return [slice(*ends) for ends in zip(first, last, strict=True)]


def components(interior: Map, edges: Map | None, threshold: float, tile: int) -> np.ndarray:
    """The connected buildings of the map, as polygons along its pixels, found tile by tile."""
    height, width = interior.shape
    shapes = []
    corners = [(r, c) for r in range(0, height, tile) for c in range(0, width, tile)]
    for row, column in shown(corners, "find buildings"):
        # One pixel more on each side is read, so that tiles are dilated as in the whole map.
        rows = slice(max(row - 1, 0), min(row + tile + 1, height))
        columns = slice(max(column - 1, 0), min(column + tile + 1, width))
        mask = interior.read(rows, columns) > threshold
        if edges is not None:
            mask |= edges.read(rows, columns) > EDGE_THRESHOLD
        # Buildings whose walls may touch are connected.
        mask = ndimage.binary_dilation(mask, np.ones((3, 3)))
        mask = np.uint8(mask[row - rows.start :, column - columns.start :][:tile, :tile])
        place = Affine.translation(column, row)
        parts = rasterio.features.shapes(mask, mask, transform=place)
        shapes += [shapely.geometry.shape(part) for part, _ in parts]
    return shapely.get_parts(shapely.union_all(shapes))
