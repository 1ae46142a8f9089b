"""Polygons of large maps, computed in tiles."""

from typing import Any

import numpy as np
import rasterio.features
import shapely
import shapely.geometry
from rasterio.transform import Affine
from scipy import ndimage

from classy_gc.polygons.arrays import Buildings
from classy_gc.polygons.buildings import check_ranges, polygonize
from classy_gc.polygons.frame_field import FrameField, from_map
from classy_gc.polygons.ground import in_pixels, square_frame, square_map, to_square
from classy_gc.polygons.maps import InputError, Map, check_same_place
from classy_gc.polygons.outlines import EDGE_THRESHOLD
from classy_gc.polygons.progress import shown

# px around buildings that their frame field depends on: four standard deviations of its Gaussian,
# and a little.
_CONTEXT = 144
_ALIGN = 4  # px; the frame field is averaged in blocks that must be the same in every window
_SQUARE = np.ones((3, 3), bool)

Box = tuple[int, int, int, int]  #: first row, first column, last row + 1, last column + 1


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
        InputError: values outside the range, edges on other pixels, or no buildings in the map.
    """
    if edges is not None:
        check_same_place(edges, interior)
    height, width = interior.shape
    size = interior.pixel_size
    ratio = to_square(size)
    ranges = threshold, in_pixels(tolerance, size, 1), in_pixels(min_area, size, 2, ratio.prod())
    check_ranges(*ranges)
    options |= dict(zip(("threshold", "tolerance", "min_area"), ranges, strict=True))

    def worked(box: Box, ours: np.ndarray | None) -> Buildings:
        rows, columns = slice(box[0], box[2]), slice(box[1], box[3])
        values = interior.read(rows, columns)
        walls = None if edges is None else edges.read(rows, columns)
        if frame is None:  # from all buildings in the window, ours or not
            part = from_map(square_map(values, ratio))
        else:
            part = square_frame(FrameField(*(c[rows, columns] for c in frame)), ratio)
        if ours is not None:
            place = Affine.translation(box[1], box[0])
            mask = rasterio.features.rasterize(ours, values.shape, transform=place)
            values = values * mask
            walls = None if walls is None else walls * mask
        walls = None if walls is None else square_map(walls, ratio)
        buildings = polygonize(square_map(values, ratio), walls, part, **options)
        scale = np.array(values.shape[::-1]) / part.c0.shape[::-1]
        found, before = (
            shapely.transform(polygons, lambda xy: xy * scale + [box[1], box[0]])
            for polygons in (buildings.polygons, buildings.before)
        )
        return Buildings(found, buildings.probability, before)

    if max(height, width) <= tile + 2 * _CONTEXT:
        windows: list[tuple[Box, np.ndarray | None]] = [((0, 0, height, width), None)]
    else:
        parts = components(interior, edges, threshold, tile)
        windows = [(_window(ours, interior.shape), ours) for ours in _by_tile(parts, tile)]
    results = [worked(*window) for window in shown(windows, "tiles")]
    if not any(len(buildings.polygons) for buildings in results):
        strips = (slice(r, min(r + tile, height)) for r in range(0, height, tile))
        highest = max(float(interior.read(rows, slice(0, width)).max()) for rows in strips)
        raise InputError(
            f"{interior.path}: no buildings found; the highest probability is {highest:.3g} "
            f"({interior.scale}), the threshold {threshold:g}, the smallest area {min_area} "
            "(px², or m)"
        )
    return Buildings(*map(np.concatenate, zip(*results, strict=True)))


def _by_tile(parts: np.ndarray, tile: int) -> list[np.ndarray]:
    """Buildings by the tile that their middle lies in."""
    x0, y0, x1, y1 = shapely.bounds(parts).T
    middles = np.stack([y0 + y1, x0 + x1], axis=1) // (2 * tile)
    _, number = np.unique(middles, axis=0, return_inverse=True)
    return [parts[number.ravel() == k] for k in range(number.max(initial=-1) + 1)]


def _window(parts: np.ndarray, shape: tuple[int, int]) -> Box:
    """The box around buildings and what their frame field depends on."""
    left, top, right, bottom = shapely.total_bounds(parts).astype(int).tolist()
    first = (max(x - _CONTEXT, 0) // _ALIGN * _ALIGN for x in (top, left))
    last = (min(x + _CONTEXT, n) for x, n in zip((bottom, right), shape, strict=True))
    return (*first, *last)


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
        mask = ndimage.binary_dilation(mask, _SQUARE)[row - rows.start :, column - columns.start :]
        mask = np.uint8(mask[:tile, :tile])
        place = Affine.translation(column, row)
        parts = rasterio.features.shapes(mask, mask, transform=place)
        shapes += [shapely.geometry.shape(part) for part, _ in parts]
    return shapely.get_parts(shapely.union_all(shapes))
