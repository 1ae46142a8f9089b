"""Replaces many vertices by few straight walls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from classy_gc.polygons.frame_field import FrameField
from classy_gc.polygons.graph import Graph
from classy_gc.polygons.walls import fewer, fitted, joined, turned


def simplify(
    graph: Graph, positions: np.ndarray, tolerance: float = 1.0, frame: FrameField | None = None
) -> np.ndarray:
    """Paths of few straight walls, each a line fitted to its vertices.

    A path is simplified, and a line is fitted to the vertices of every wall that this leaves,
    without those near its ends. Walls that nearly continue each other become one, and a short wall
    across a corner that the map rounded is left out. Walls near a direction of the frame are turned
    into it, and walls meet where their lines do. Junctions stay shared.

    Args:
        graph: its paths are simplified.
        positions: of its vertices, shape ``[n, 2]``.
        tolerance: how far a wall may be from the path, in pixels (default: 1)
        frame: a frame field of arrays of shape ``[H, W]`` (default: None, walls keep their
            directions)

    Returns:
        A shapely LineString per path, in (column, row).

    Raises:
        ValueError: positions that are not finite.

    Source: Douglas and Peucker, *Algorithms for the reduction of the number of points*,
    Cartographica 1973; GEOS's ``simplify``.

    Example:
        >>> from classy_gc.polygons.graph import resample
        >>> square = np.array([[0.0, 0], [0, 20], [20, 20], [20, 0], [0, 0]])
        >>> graph = Graph.of(resample([square]))
        >>> (line,) = simplify(graph, graph.positions)
        >>> shapely.get_num_coordinates(line)
        np.int32(5)
    """
    if not np.isfinite(positions).all():
        raise ValueError("positions must be finite: GEOS crashes on others")
    if not len(graph.edges):
        return np.array([], object)
    path = np.repeat(np.arange(len(graph.closed)), np.diff(graph.path_starts))
    points = positions[graph.path_vertices]
    knots = _knots(points, path, graph.closed, tolerance)
    walls = fewer(fitted(points, path, graph.closed, knots), tolerance)
    if frame is not None:
        walls = turned(walls, frame, tolerance)
    return joined(walls, graph, positions, tolerance)


def _knots(points: np.ndarray, path: np.ndarray, ring: np.ndarray, tolerance: float) -> np.ndarray:
    """The index of the points that Douglas and Peucker keep, at least three of a closed path."""
    # The third coordinate carries the index of the point.
    lines = shapely.linestrings(np.column_stack([points, np.arange(len(path))]), indices=path)
    tolerances = np.full(len(ring), tolerance)
    while True:
        left = shapely.simplify(lines, tolerances, preserve_topology=False)
        # Keep buildings that are smaller than the tolerance.
        flat = ring & (shapely.get_num_coordinates(left) < 4) & (tolerances > 0.01)
        if not flat.any():
            return shapely.get_coordinates(left, include_z=True)[:, 2].astype(int)
        tolerances[flat] /= 2


def douglas_peucker(paths: Sequence[np.ndarray], tolerance: float = 1.0) -> np.ndarray:
    """Paths with fewer vertices, otherwise unchanged, for comparison.

    Args:
        paths: the vertices of each, shape ``[k, 2]``.
        tolerance: how far a wall may be from the path, in pixels (default: 1)

    Returns:
        A shapely LineString per path, in (column, row).

    Example:
        >>> douglas_peucker([np.array([[0.0, 0], [0.1, 5], [0, 9]])]).tolist()
        [<LINESTRING (0 0, 9 0)>]
    """
    lines = np.array([shapely.LineString(path[:, ::-1]) for path in paths], object)
    return shapely.simplify(lines, tolerance, preserve_topology=False)
