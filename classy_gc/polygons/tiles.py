"""Polygons of large maps, computed in tiles."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import shapely
from scipy import ndimage

from classy_gc.polygons.arrays import Buildings
from classy_gc.polygons.buildings import check_ranges, polygonize
from classy_gc.polygons.frame_field import FrameField, from_map
from classy_gc.polygons.graph import connected
from classy_gc.polygons.ground import in_pixels, square_frame, square_map
from classy_gc.polygons.maps import InputError, Map
from classy_gc.polygons.outlines import EDGE_THRESHOLD
from classy_gc.polygons.progress import shown

# px around a building that its frame field depends on (four standard deviations of its Gaussian,
# and a little), and px by which a tile is larger than its core.
_CONTEXT = 144
_OVERLAP = 256
_ALIGN = 4  # px; the frame field is averaged in blocks that must be the same in every window
_SQUARE = np.ones((3, 3), bool)

Box = tuple[int, int, int, int]  #: first row, first column, last row + 1, last column + 1


class _Component(NamedTuple):
    """Connected buildings.

    Attributes:
        key: row and column of its first pixel, which identify it.
        box: around it.
    """

    key: tuple[int, int]
    box: Box


def polygonize_map(
    interior: Map,
    edges: Map | None = None,
    frame: FrameField | None = None,
    tile: int = 2048,
    threshold: float = 0.5,
    tolerance: float | str = 1.0,
    min_area: float | str = 10.0,
    progress: bool = True,
    **options: Any,
) -> Buildings:
    """Polygons of the buildings in a map of any size.

    A map larger than a tile is read twice. The first pass finds connected buildings, also across
    tiles. The second takes each tile with its surroundings, and yields the buildings that are whole
    in it; one that is whole in no tile gets its own window. So every building is refined once and
    as a whole, and memory grows with the tile, or with the largest group of buildings that touch.

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
        progress: show bars on a terminal (default: True)
        **options: of ``polygonize``.

    Returns:
        ``Buildings``, in pixels of the map.

    Raises:
        InputError: values outside the range, or no buildings in the map.
    """
    height, width = interior.shape
    size, ratio = interior.pixel_size, interior.ratio
    ranges = threshold, in_pixels(tolerance, size, 1), in_pixels(min_area, size, 2, ratio.prod())
    check_ranges(*ranges)
    options |= dict(zip(("threshold", "tolerance", "min_area"), ranges, strict=True))

    def worked(box: Box, keys: list[tuple[int, int]] | None, show: bool) -> Buildings:
        rows, columns = slice(box[0], box[2]), slice(box[1], box[3])
        values = interior.read(rows, columns)
        walls = None if edges is None else edges.read(rows, columns)
        if frame is None:  # from all buildings in the window, ours or not
            part = from_map(square_map(values, ratio))
        else:
            part = square_frame(FrameField(*(c[rows, columns] for c in frame)), ratio)
        if keys is not None:
            ours = _ours(_mask(values, walls, threshold), keys, box)
            values = np.where(ours, values, 0)
            walls = None if walls is None else np.where(ours, walls, 0)
        walls = None if walls is None else square_map(walls, ratio)
        found = polygonize(square_map(values, ratio), walls, part, progress=show, **options)
        scale = np.array(values.shape[::-1]) / part.c0.shape[::-1]

        def moved(polygons: np.ndarray) -> np.ndarray:
            return shapely.transform(polygons, lambda xy: xy * scale + [box[1], box[0]])

        before = None if found.before is None else moved(found.before)
        return Buildings(moved(found.polygons), found.probability, before)

    if max(height, width) <= tile + 2 * _OVERLAP:
        found = worked((0, 0, height, width), None, progress)
        if not len(found.polygons):
            highest = float(interior.read(slice(0, height), slice(0, width)).max())
            raise _nothing(interior, highest, threshold, min_area)
        return found

    parts, highest = components(interior, edges, threshold, tile, progress)
    windows: dict[Box, list[tuple[int, int]]] = {}
    for component in parts:
        windows.setdefault(_window(component.box, interior.shape, tile), []).append(component.key)
    results = [worked(*window, False) for window in shown(windows.items(), "tiles", progress)]
    if not any(len(found.polygons) for found in results):
        raise _nothing(interior, highest, threshold, min_area)
    return _joined(results)


def _ours(mask: np.ndarray, keys: list[tuple[int, int]], box: Box) -> np.ndarray:
    """The pixels of the components that a window is responsible for."""
    labels, count = ndimage.label(mask, _SQUARE, output=np.int32)
    ours = np.zeros(count + 1, bool)
    rows, columns = (np.array(keys) - box[:2]).T
    ours[labels[rows, columns]] = True
    ours[0] = False
    return ours[labels]


def _joined(results: list[Buildings]) -> Buildings:
    polygons, probability, before = zip(*results, strict=True)
    return Buildings(
        np.concatenate(polygons),
        np.concatenate(probability),
        None if before[0] is None else np.concatenate(before),
    )


def _nothing(interior: Map, highest: float, threshold: float, min_area: float | str) -> InputError:
    return InputError(
        f"{interior.path}: no buildings found; the highest probability is {highest:.3g} "
        f"({interior.scale}), the threshold {threshold:g}, the smallest area {min_area} (px², or m)"
    )


def _window(box: Box, shape: tuple[int, int], tile: int) -> Box:
    """The tile, with its overlap, that holds a box and its context; else a window for it alone."""
    core = [
        (first + last) // 2 // tile * tile for first, last in zip(box[:2], box[2:], strict=True)
    ]
    first = [max(c - _OVERLAP, 0) for c in core]
    last = [min(c + tile + _OVERLAP, n) for c, n in zip(core, shape, strict=True)]
    need = [max(b - _CONTEXT, 0) // _ALIGN * _ALIGN for b in box[:2]]
    until = [min(b + _CONTEXT, n) for b, n in zip(box[2:], shape, strict=True)]
    fits = all(map(int.__le__, first, need)) and all(map(int.__ge__, last, until))
    return (*first, *last) if fits else (*need, *until)


def _mask(values: np.ndarray, walls: np.ndarray | None, threshold: float) -> np.ndarray:
    """Buildings and one pixel around them, so that those whose walls may touch are connected."""
    mask = values > threshold
    if walls is not None:
        mask |= walls > EDGE_THRESHOLD
    return ndimage.binary_dilation(mask, _SQUARE)


def _first_pixels(labels: np.ndarray, box: Box) -> list[tuple[int, int]]:
    numbers, index = np.unique(labels, return_index=True)
    rows, columns = np.unravel_index(index[numbers > 0], labels.shape)
    return list(zip((rows + box[0]).tolist(), (columns + box[1]).tolist(), strict=True))


def components(
    interior: Map, edges: Map | None, threshold: float, tile: int, progress: bool
) -> tuple[list[_Component], float]:
    """The connected buildings of the map, found tile by tile, and its highest value."""
    height, width = interior.shape
    keys: list[tuple[int, int]] = []
    boxes: list[Box] = []
    links: list[np.ndarray] = []
    below = np.zeros(width, int)  # labels, from 1, of the last row of pixels
    highest = 0.0
    cores = [(r, c) for r in range(0, height, tile) for c in range(0, width, tile)]
    for row, column in shown(cores, "find buildings", progress):
        if column == 0:
            above, below, left = below, np.zeros(width, int), np.zeros(0, int)
        # Neighbouring tiles share a line of pixels. One more on each side is read, so that they
        # are dilated as in the whole map.
        top, start = max(row - 1, 0), max(column - 1, 0)
        rows = slice(max(top - 1, 0), min(row + tile + 1, height))
        columns = slice(max(start - 1, 0), min(column + tile + 1, width))
        values = interior.read(rows, columns)
        walls = None if edges is None else edges.read(rows, columns)
        highest = max(highest, float(values.max()))
        mask = _mask(values, walls, threshold)
        mask = mask[top - rows.start : row + tile - rows.start]
        mask = mask[:, start - columns.start : column + tile - columns.start]
        labels, count = ndimage.label(mask, _SQUARE, output=np.int32)
        keys += _first_pixels(labels, (top, start, 0, 0))
        boxes += [
            (top + r.start, start + c.start, top + r.stop, start + c.stop)
            for r, c in ndimage.find_objects(labels)
        ]
        labels = np.where(labels > 0, labels + (len(keys) - count), 0)
        across = slice(start, start + labels.shape[1])
        links.append(_common(labels[0], above[across]))
        if column:
            links.append(_common(labels[:, 0], left))
        below[across] = labels[-1]
        left = labels[:, -1]
    part = connected(np.concatenate(links) - 1, len(keys))
    merged: dict[int, _Component] = {}
    for k, key, box in zip(part.tolist(), keys, boxes, strict=True):
        old = merged.get(k)
        if old:
            key = min(key, old.key)
            box = (*map(min, box[:2], old.box[:2]), *map(max, box[2:], old.box[2:]))
        merged[k] = _Component(key, box)
    return list(merged.values()), highest


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairs of labels of the same pixels."""
    pairs = np.stack([a, b], axis=1)[(a > 0) & (b > 0)]
    return np.unique(pairs, axis=0)
