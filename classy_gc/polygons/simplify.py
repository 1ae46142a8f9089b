"""Replaces many vertices by few straight walls: fitted, made fewer, turned, and joined again."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely

from classy_gc.polygons.frame_field import CERTAIN, FrameField, directions, follows_u, nearest
from classy_gc.polygons.graph import Graph

_TRIM = 2.5  # px at the ends of a wall that the fit ignores, since the blur of the map rounds them
_PULL = 0.01  # pull of a vertex's old place, relative to that of the lines of its walls
_BEVEL = 8.0, 3.0  # px: largest length and depth of a wall that rounds a corner
_FLAT = 0.2  # sine of the angle below which two walls have no corner between them
_ONE = 2.5  # px: distance up to which such walls in succession are one
_LONG = 44.0  # px: longer walls know their direction better than a frame that is not certain
_TURN = 4.5  # px by which the frame may move the ends of a wall
_SURE = 0.01  # of |c0|; below it the frame has no direction
_SLANT = 0.35  # sine of the angle to the frame from which on a wall may be part of a round corner
_SHORT = 9.0  # px: walls up to this length are no such part
_SAME = 0.8  # cosine of the angle up to which two walls are parallel for that


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
    walls = _fewer(_fitted(points, path, graph.closed, knots), tolerance)
    if frame is not None:
        walls = _turned(walls, frame, tolerance)
    return _joined(walls, graph, positions, tolerance)


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


class _Walls(NamedTuple):
    """Straight pieces of paths, in the order of the paths."""

    path: np.ndarray  # index of the path in the graph
    ring: np.ndarray  # whether the path is closed and has no junction
    start: np.ndarray  # positions, [walls, 2]
    end: np.ndarray
    centre: np.ndarray
    direction: np.ndarray  # of unit length

    def take(self, which: np.ndarray) -> "_Walls":
        return _Walls(*(x[which] for x in self))

    @property
    def length(self) -> np.ndarray:
        return np.hypot(*(self.end - self.start).T)

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """The walls before and after each along its path; −1 where there is none."""
        k = np.arange(len(self.path))
        before, after = k - 1, k + 1
        first = np.flatnonzero(np.diff(self.path, prepend=-1))
        last = np.flatnonzero(np.diff(self.path, append=-1))
        before[first] = np.where(self.ring[first], last, -1)
        after[last] = np.where(self.ring[last], first, -1)
        return before, after


def _fitted(points: np.ndarray, path: np.ndarray, ring: np.ndarray, knots: np.ndarray) -> _Walls:
    """Fits a least-squares line to the points between each two knots of a path."""
    ends = np.stack([knots[:-1], knots[1:]])
    start, end = ends[:, path[ends[0]] == path[ends[1]]]
    # The points of every wall, from its start to its end.
    size = end - start + 1
    wall = np.repeat(np.arange(len(start)), size)
    index = start[wall] + np.arange(len(wall)) - np.repeat(np.cumsum(size) - size, size)
    x = points[index]
    along = np.cumsum(np.hypot(*np.diff(points, axis=0, prepend=points[:1]).T))
    here = along[index]
    middle = np.minimum(here - along[start][wall], along[end][wall] - here) >= _TRIM
    enough = np.bincount(wall, middle) >= 3
    weight = np.where(enough[wall], middle, True).astype(float)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(wall, weight * values)

    count = total(np.ones(len(wall)))
    centre = np.stack([total(x[:, 0]), total(x[:, 1])], axis=1) / count[:, None]
    row, column = (x - centre[wall]).T
    angle = 0.5 * np.arctan2(2 * total(row * column), total(row**2) - total(column**2))
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    of = path[start]
    return _Walls(of, ring[of], points[start], points[end], centre, direction)


def _fewer(walls: _Walls, tolerance: float) -> _Walls:
    """Drops walls that round a corner, and joins those that nearly continue each other."""
    px = max(tolerance, 1)
    while True:
        before, after = walls.neighbours()
        a, b = walls.take(before), walls.take(after)
        inner = (before >= 0) & (after >= 0)
        sine = _cross(a.direction, b.direction)
        turns = np.abs(sine) > _FLAT
        far = _cross(b.centre - a.centre, b.direction) / np.where(turns, sine, np.inf)
        corner = a.centre + a.direction * far[:, None]
        depth = np.hypot(*(corner - (walls.start + walls.end) / 2).T)
        bevel = inner & turns & (walls.length <= np.minimum(a.length, b.length))
        bevel &= (walls.length <= _BEVEL[0] * px) & (depth <= _BEVEL[1] * px)
        # Walls that follow each other.
        ahead = ((walls.end - walls.start) * (b.end - b.start)).sum(axis=1) > 0
        one = (after >= 0) & ahead & (np.abs(_cross(walls.direction, b.direction)) < _FLAT)
        one &= np.abs(_cross(b.centre - walls.centre, walls.direction)) <= _ONE * px
        # The shortest of adjacent walls goes first; the others are looked at again.
        fewest = np.where(walls.ring, 4, 1)
        less = (bevel | one) & (np.bincount(walls.path)[walls.path] > fewest)
        rank = np.where(less, walls.length, np.inf) + 1e-9 * np.arange(len(less))
        less &= (rank < rank[before]) & (rank < rank[after])
        if not less.any():
            return walls
        meet = np.where(bevel[:, None], corner, walls.start)
        walls = _joined_to_next(walls, less & ~bevel, after)
        start, end = walls.start.copy(), walls.end.copy()
        start[after[less]] = meet[less]
        end[before[less & inner]] = meet[less & inner]
        walls = walls._replace(start=start, end=end).take(~less)


def _turned(walls: _Walls, frame: FrameField, tolerance: float) -> _Walls:
    """Turns walls into the nearest direction of the frame if their ends hardly move."""
    px = max(tolerance, 1)
    at = nearest(frame, walls.centre)
    z = walls.direction[:, 0] + 1j * walls.direction[:, 1]
    u, v = (np.exp(1j * np.angle(w)) for w in directions(at))
    w = np.where(follows_u(z, (u, v)), u, v)
    sure = np.abs(at.c0)
    sine = np.abs((z * w.conj()).imag)
    turns = (sure > _SURE) & (sine * walls.length / 2 <= _TURN * px)
    turns &= (walls.length <= _LONG * px) | (sure > CERTAIN)
    # A slanted wall may be part of a round corner, unless it is short or joins two parallel walls.
    before, after = walls.neighbours()
    parallel = np.abs((z[before] * z[after].conj()).real) > _SAME
    joins = (before >= 0) & (after >= 0) & parallel
    turns &= (sine <= _SLANT) | (walls.length <= _SHORT) | joins
    z = np.where(turns, w, z)
    return walls._replace(direction=np.stack([z.real, z.imag], axis=1))


def _joined_to_next(walls: _Walls, which: np.ndarray, after: np.ndarray) -> _Walls:
    """Each wall after a chosen one becomes the line between the centres of both."""
    k = np.flatnonzero(which)
    j = after[k]
    share = walls.length[k] / (walls.length[k] + walls.length[j])
    centre, direction = walls.centre.copy(), walls.direction.copy()
    between = centre[j] - centre[k]
    direction[j] = between / np.maximum(np.hypot(*between.T), 1e-9)[:, None]
    centre[j] -= share[:, None] * between
    return walls._replace(centre=centre, direction=direction)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _joined(walls: _Walls, graph: Graph, positions: np.ndarray, tolerance: float) -> np.ndarray:
    """The lines of walls that meet, each vertex as near as possible to all of its lines."""
    before, after = walls.neighbours()
    # A knot is the graph's vertex at the end of an open path, else the end of a wall.
    firsts = graph.path_vertices[graph.path_starts[:-1]]
    lasts = graph.path_vertices[graph.path_starts[1:] - 1]
    end = np.where(after >= 0, len(positions) + np.arange(len(after)), lasts[walls.path])
    start = np.where(before >= 0, end[before], firsts[walls.path])
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

    first = np.flatnonzero(np.diff(walls.path, prepend=-1))
    which = np.insert(end, first, start[first])
    line = np.insert(walls.path, first, walls.path[first])
    lines = shapely.linestrings((place + shift)[which][:, ::-1], indices=line)
    simpler = shapely.simplify(lines, tolerance / 2, preserve_topology=False)
    return np.where(walls.ring[first] & (shapely.get_num_coordinates(simpler) < 4), lines, simpler)
