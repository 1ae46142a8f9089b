"""From a map of probabilities to polygons."""

import math
from typing import Any

import numpy as np
import shapely

from classy_gc.polygons.arrays import Buildings, InputError, as_frame, as_map
from classy_gc.polygons.faces import faces
from classy_gc.polygons.files import placed
from classy_gc.polygons.frame_field import FrameField, from_map
from classy_gc.polygons.graph import Graph, resample
from classy_gc.polygons.ground import in_pixels
from classy_gc.polygons.maps import Map
from classy_gc.polygons.optimizers import TensorPolyOptimizer, TensorSkeletonOptimizer
from classy_gc.polygons.outlines import contours, skeleton
from classy_gc.polygons.simplify import douglas_peucker, simplify

#: The class that refines the outlines of each method.
METHODS = {"contours": TensorPolyOptimizer, "skeleton": TensorSkeletonOptimizer}


def check_ranges(threshold: float, tolerance: float, min_area: float) -> None:
    """Refuses options of :func:`polygonize` that are outside their range."""
    if not 0 < threshold < 1:
        raise InputError(f"threshold must lie between 0 and 1, not {threshold}")
    if not 0 < tolerance < math.inf:
        raise InputError(f"tolerance must be a number > 0, not {tolerance}")
    if not 0 <= min_area < math.inf:
        raise InputError(f"min_area must be a number >= 0, not {min_area}")


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
        from classy_gc.polygons.tiles import polygonize_map  # which imports this module

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
    tolerance, min_area = in_pixels(tolerance, None, 1), in_pixels(min_area, None, 2)
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
