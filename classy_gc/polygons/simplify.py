"""Few straight walls in the place of many vertices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely

from classy_gc.polygons.frame_field import FrameField, directions
from classy_gc.polygons.graph import Graph

_SPAN = 3  # vertices to either side over which the direction at a vertex is taken
_TRIM = 2.5  # px at the ends of a wall, rounded by the blur of the map, that say nothing of it
_PULL = 0.01  # of a vertex to where it was, against that of the lines of its walls
_BEVEL = 6.0  # px, the longest wall that may be the rounding of a corner
_FLAT = 0.3  # sine of the angle below which two walls have no corner between them


class _Walls(NamedTuple):
    """Straight pieces of paths, in the order of the paths."""

    path: np.ndarray
    ring: np.ndarray  # of a closed path without junction
    start: np.ndarray  # positions, [walls, 2]
    end: np.ndarray
    start_node: np.ndarray  # vertex of the graph where the path starts here, else −1
    end_node: np.ndarray
    length: np.ndarray
    centre: np.ndarray
    direction: np.ndarray  # of unit length

    def take(self, which: np.ndarray) -> _Walls:
        return _Walls(*(x[which] for x in self))

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """The wall before and after each along its path; −1 where there is none."""
        k = np.arange(len(self.path))
        first = np.diff(self.path, prepend=-1) != 0
        last = np.diff(self.path, append=-1) != 0
        starts, ends = k[first], k[last]
        which = np.cumsum(first) - 1
        before = np.where(first, np.where(self.ring, ends[which], -1), k - 1)
        after = np.where(last, np.where(self.ring, starts[which], -1), k + 1)
        return before, after


def simplify(
    graph: Graph,
    positions: np.ndarray,
    tolerance: float = 1.0,
    frame: FrameField | None = None,
) -> np.ndarray:
    """Paths of few straight walls, a line fitted to the vertices of each.

    A path is cut at its corners, where one side follows one direction of the frame and the
    other the other, and each piece is simplified. To the vertices of every wall that is left,
    without those near its ends, a line is fitted; walls meet where their lines do. A short wall
    across a corner, where the blur of the map rounded it, is left out. Junctions stay common.

    Args:
        graph: whose paths are simplified.
        positions: of its vertices, shape ``[n, 2]``.
        tolerance: how far a wall may be from the path, in pixels (default: 1)
        frame: of arrays of shape ``[H, W]`` (default: None, no corners but those of the
            simplification)

    Returns:
        Of shapely's LineString, one a path, in (column, row).

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
    vertices, ring = _rotated(graph, positions)
    path = np.repeat(np.arange(len(ring)), np.diff(graph.path_starts))
    points = positions[vertices]
    breaks = np.zeros(len(points), bool)
    breaks[graph.path_starts[:-1]] = breaks[graph.path_starts[1:] - 1] = True
    if frame is not None:
        breaks |= _corners(points, graph.path_starts, frame)
    knots = _douglas_peucker(points, path, ring, breaks, tolerance)
    walls = _fitted(points, vertices, path, ring, knots)
    walls = _without_bevels(walls, tolerance)
    return _joined(walls, graph, positions, tolerance)


def douglas_peucker(paths: Sequence[np.ndarray], tolerance: float = 1.0) -> np.ndarray:
    """Paths with fewer vertices and nothing else, to compare with.

    Args:
        paths: the vertices of each, shape ``[k, 2]``.
        tolerance: how far a wall may be from the path, in pixels (default: 1)

    Returns:
        Of shapely's LineString, one a path, in (column, row).

    Example:
        >>> douglas_peucker([np.array([[0.0, 0], [0.1, 5], [0, 9]])]).tolist()
        [<LINESTRING (0 0, 9 0)>]
    """
    lines = np.array([shapely.LineString(path[:, ::-1]) for path in paths], object)
    return shapely.simplify(lines, tolerance, preserve_topology=False)


def _turn(points: np.ndarray, starts: np.ndarray, ring: np.ndarray | None = None) -> tuple:
    """Directions before and after each point of each path, as complex numbers."""
    z = points[:, 0] + 1j * points[:, 1]
    size = np.diff(starts)
    first, last = np.repeat(starts[:-1], size), np.repeat(starts[1:] - 1, size)
    k = np.arange(len(z))
    before, after = np.maximum(k - _SPAN, first), np.minimum(k + _SPAN, last)
    if ring is not None:  # around its end, which is its start
        around, n = np.repeat(ring, size), last - first
        before = np.where(around, first + (k - first - _SPAN) % n, before)
        after = np.where(around, first + (k - first + _SPAN) % n, after)
    return z - z[before], z[after] - z


def _cosine(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before * after.conj()).real / np.maximum(np.abs(before * after), 1e-9)


def _rotated(graph: Graph, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vertices of each path, those of closed ones from their sharpest turn; which are."""
    starts, vertices = graph.path_starts, graph.path_vertices
    ends = vertices[starts[1:] - 1]
    ring = (vertices[starts[:-1]] == ends) & (graph.degree[ends] == 2)
    size = np.diff(starts)
    path = np.repeat(np.arange(len(ring)), size)
    cosine = _cosine(*_turn(positions[vertices], starts, ring))
    sharpest = np.lexsort((cosine, path))[starts[:-1]] - starts[:-1]
    local = np.arange(len(vertices)) - starts[path]
    moved = (local + sharpest[path]) % np.maximum(size - 1, 1)[path]
    return vertices[starts[path] + np.where(ring[path], moved, local)], ring


def _corners(points: np.ndarray, starts: np.ndarray, frame: FrameField) -> np.ndarray:
    """Where a path changes from one direction of the frame to the other, by more than 45°."""
    before, after = _turn(points, starts)
    height, width = frame.c0.shape
    row, column = np.rint(points).astype(int).T
    pixel = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    u, v = directions(FrameField(frame.c0[pixel], frame.c2[pixel]))

    def follows_u(z: np.ndarray) -> np.ndarray:
        return np.abs((z * u.conj()).real) > np.abs((z * v.conj()).real)

    cosine = _cosine(before, after)
    corner = (follows_u(before) != follows_u(after)) & (cosine < np.sqrt(0.5))
    # Only the sharpest of those side by side.
    sharpness = np.where(corner, 1 - cosine, 0)
    for k in range(1, _SPAN + 1):
        corner[k:] &= sharpness[k:] > sharpness[:-k]
        corner[:-k] &= sharpness[:-k] >= sharpness[k:]
    return corner


def _douglas_peucker(
    points: np.ndarray, path: np.ndarray, ring: np.ndarray, breaks: np.ndarray, tolerance: float
) -> np.ndarray:
    """Which points are left, among them all breaks, and of closed paths at least three."""
    k = np.flatnonzero(breaks)
    inside = path[k[:-1]] == path[k[1:]]
    start, end = k[:-1][inside], k[1:][inside]
    piece, index = _ranges(start, end)
    # The third coordinate carries along which point it is.
    lines = shapely.linestrings(np.column_stack([points[index], index]), indices=piece)
    tolerances = np.full(len(ring), tolerance)
    while True:
        left = shapely.simplify(lines, tolerances[path[start]], preserve_topology=False)
        kept = breaks.copy()
        kept[shapely.get_coordinates(left, include_z=True)[:, 2].astype(int)] = True
        # A building smaller than the tolerance is no reason to lose it.
        flat = ring & (np.bincount(path, kept) < 4) & (tolerances > 0.01)
        if not flat.any():
            return kept
        tolerances[flat] /= 2


def _ranges(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts from each start to its end, and which of them each number is of."""
    size = end - start + 1
    of = np.repeat(np.arange(len(start)), size)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(size) - size, size) + start[of]


def _fitted(
    points: np.ndarray, vertices: np.ndarray, path: np.ndarray, ring: np.ndarray, kept: np.ndarray
) -> _Walls:
    """A line of least squares through the points of each wall."""
    knots = np.flatnonzero(kept)
    inside = path[knots[:-1]] == path[knots[1:]]
    start, end = knots[:-1][inside], knots[1:][inside]
    wall, index = _ranges(start, end)
    x = points[index]
    along = np.cumsum(np.hypot(*np.diff(points, axis=0, prepend=points[:1]).T))
    middle = (along[index] - along[start][wall] >= _TRIM) & (
        along[end][wall] - along[index] >= _TRIM
    )
    enough = np.bincount(wall, middle) >= 3
    weight = np.where(enough[wall], middle, True).astype(float)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(wall, weight * values)

    count = total(np.ones(len(wall)))
    centre = np.stack([total(x[:, 0]), total(x[:, 1])], axis=1) / count[:, None]
    row, column = (x - centre[wall]).T
    angle = 0.5 * np.arctan2(2 * total(row * column), total(row**2) - total(column**2))
    of = path[start]
    first, last = np.diff(of, prepend=-1) != 0, np.diff(of, append=-1) != 0
    node = ~ring[of]
    return _Walls(
        path=of,
        ring=ring[of],
        start=points[start],
        end=points[end],
        start_node=np.where(first & node, vertices[start], -1),
        end_node=np.where(last & node, vertices[end], -1),
        length=np.hypot(*(points[end] - points[start]).T),
        centre=centre,
        direction=np.stack([np.cos(angle), np.sin(angle)], axis=1),
    )


def _without_bevels(walls: _Walls, tolerance: float) -> _Walls:
    """Leaves out short walls beside whose middle those before and after them meet."""
    while True:
        before, after = walls.neighbours()
        a, b = walls.take(before), walls.take(after)
        sine = _cross(a.direction, b.direction)
        gap = b.centre - a.centre
        far = _cross(gap, b.direction) / np.where(np.abs(sine) > _FLAT, sine, np.inf)
        corner = a.centre + a.direction * far[:, None]
        depth = np.hypot(*(corner - (walls.start + walls.end) / 2).T)
        bevel = (before >= 0) & (after >= 0) & (np.abs(sine) > _FLAT) & (depth <= 2 * tolerance)
        bevel &= walls.length <= np.minimum(
            _BEVEL * max(tolerance, 1), np.minimum(a.length, b.length)
        )
        bevel &= np.bincount(walls.path, minlength=walls.path.max() + 1)[walls.path] > 4
        # Of bevels side by side the shortest first; the others are looked at again.
        rank = np.where(bevel, walls.length, np.inf) + 1e-9 * np.arange(len(bevel))
        bevel &= (rank < rank[before]) & (rank < rank[after])
        if not bevel.any():
            return walls
        end, start = walls.end.copy(), walls.start.copy()
        end[before[bevel]] = start[after[bevel]] = corner[bevel]
        walls = walls._replace(start=start, end=end).take(~bevel)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _joined(walls: _Walls, graph: Graph, positions: np.ndarray, tolerance: float) -> np.ndarray:
    """The lines of walls that meet, each vertex as near to all of its lines as can be."""
    _, after = walls.neighbours()
    n, nodes = len(walls.path), len(positions)
    # A knot is a vertex of the graph where a path ends, else the end of a wall.
    end = np.where(walls.end_node >= 0, walls.end_node, nodes + np.arange(n))
    start = np.where(walls.start_node >= 0, walls.start_node, 0)
    start[after[walls.end_node < 0]] = end[walls.end_node < 0]
    place = np.concatenate([positions, walls.end])
    knot = np.concatenate([start, end])
    normal = np.tile(walls.direction[:, ::-1] * [-1, 1], (2, 1))
    offset = (normal * (np.tile(walls.centre, (2, 1)) - place[knot])).sum(axis=1)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(knot, values, len(place))

    rr = total(normal[:, 0] ** 2) + _PULL
    cc = total(normal[:, 1] ** 2) + _PULL
    rc = total(normal[:, 0] * normal[:, 1])
    r, c = total(normal[:, 0] * offset), total(normal[:, 1] * offset)
    shift = np.stack([cc * r - rc * c, rr * c - rc * r], axis=1) / (rr * cc - rc**2)[:, None]
    shift[np.hypot(*shift.T) > 3 * max(tolerance, 1)] = 0
    place = place + shift

    first = np.diff(walls.path, prepend=-1) != 0
    which = np.insert(end, np.flatnonzero(first), start[first])
    line = np.insert(walls.path, np.flatnonzero(first), walls.path[first])
    lines = shapely.linestrings(
        place[which][:, ::-1], indices=np.unique(line, return_inverse=True)[1]
    )
    simpler = shapely.simplify(lines, tolerance / 2, preserve_topology=False)
    ring = walls.ring[first]
    return np.where(ring & (shapely.get_num_coordinates(simpler) < 4), lines, simpler)
