"""Replaces many vertices by few straight walls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from classy_gc.polygons.frame_field import FrameField, directions, nearest
from classy_gc.polygons.graph import Graph
from classy_gc.polygons.walls import fewer, fitted, joined, ranges, stepped, turned

_SPAN = 3  # vertices on either side that give the direction at a vertex


def simplify(
    graph: Graph, positions: np.ndarray, tolerance: float = 1.0, frame: FrameField | None = None
) -> np.ndarray:
    """Paths of few straight walls, each a line fitted to its vertices.

    A path is cut at its corners, where its two sides follow different directions of the frame, and
    each piece is simplified. A line is fitted to the vertices of every wall, without those near its
    ends, and walls meet where their lines do. Walls that nearly continue each other become one, and
    a short wall across a corner that the map rounded is left out. Junctions stay shared.

    Args:
        graph: its paths are simplified.
        positions: of its vertices, shape ``[n, 2]``.
        tolerance: how far a wall may be from the path, in pixels (default: 1)
        frame: a frame field of arrays of shape ``[H, W]`` (default: None, no corners but those of
            the simplification)

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
    starts, ring = graph.path_starts, graph.closed
    path = np.repeat(np.arange(len(ring)), np.diff(starts))
    points = positions[graph.path_vertices]
    z = points[:, 0] + 1j * points[:, 1]
    before = z - z[graph.along(-_SPAN)]
    after = z[graph.along(_SPAN)] - z
    cosine = (before * after.conj()).real / np.maximum(np.abs(before * after), 1e-9)
    breaks = np.zeros(len(points), bool)
    if frame is not None:
        breaks = _corners(graph, before, after, cosine, nearest(frame, points))
    # Closed paths start at their sharpest turn.
    sharpest = np.lexsort((cosine, path))[starts[:-1]] - starts[:-1]
    local = np.arange(len(points)) - starts[path]
    around = (local + sharpest[path]) % np.maximum(np.diff(starts) - 1, 1)[path]
    order = starts[path] + np.where(ring[path], around, local)
    points = points[order]
    breaks = breaks[order]
    breaks[starts[:-1]] = breaks[starts[1:] - 1] = True
    knots = _douglas_peucker(points, path, ring, breaks, tolerance)
    walls = fitted(points, graph.path_vertices[order], path, ring, knots)
    walls = fewer(walls, tolerance)
    if frame is not None:
        walls = stepped(turned(walls, frame, tolerance), tolerance)
    return joined(walls, graph, positions, tolerance)


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


def _corners(
    graph: Graph, before: np.ndarray, after: np.ndarray, cosine: np.ndarray, at: FrameField
) -> np.ndarray:
    """Where a path changes from one direction of the frame to the other, by more than 45°."""
    u, v = directions(at)

    def follows_u(z: np.ndarray) -> np.ndarray:
        return np.abs((z * u.conj()).real) > np.abs((z * v.conj()).real)

    corner = (follows_u(before) != follows_u(after)) & (cosine < np.sqrt(0.5))
    # Only the sharpest of adjacent corners.
    sharpness = np.where(corner, 1 - cosine, 0)
    for k in range(1, _SPAN + 1):
        corner &= sharpness > sharpness[graph.along(-k)]
        corner &= sharpness >= sharpness[graph.along(k)]
    return corner


def _douglas_peucker(
    points: np.ndarray, path: np.ndarray, ring: np.ndarray, breaks: np.ndarray, tolerance: float
) -> np.ndarray:
    """Which points are kept: all breaks, and at least three of a closed path."""
    k = np.flatnonzero(breaks)
    inside = path[k[:-1]] == path[k[1:]]
    start = k[:-1][inside]
    end = k[1:][inside]
    piece, index = ranges(start, end)
    # The third coordinate carries the index of the point.
    lines = shapely.linestrings(np.column_stack([points[index], index]), indices=piece)
    tolerances = np.full(len(ring), tolerance)
    while True:
        left = shapely.simplify(lines, tolerances[path[start]], preserve_topology=False)
        kept = breaks.copy()
        kept[shapely.get_coordinates(left, include_z=True)[:, 2].astype(int)] = True
        # Keep buildings that are smaller than the tolerance.
        flat = ring & (np.bincount(path, kept) < 4) & (tolerances > 0.01)
        if not flat.any():
            return kept
        tolerances[flat] /= 2
