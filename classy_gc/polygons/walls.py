"""Walls: straight pieces of paths, fitted, turned into the frame, fewer, and joined again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely

from classy_gc.polygons.frame_field import FrameField, directions, nearest
from classy_gc.polygons.graph import Graph

_TRIM = 2.5  # px at the ends of a wall that the fit ignores, since the blur of the map rounds them
_PULL = 0.01  # pull of a vertex's old place, relative to that of the lines of its walls
_FAR = 5.0  # px: a vertex whose lines meet farther from it stays
_BEVEL = 8.0, 3.0  # px: largest length and depth of a wall that rounds a corner
_FLAT = 0.3  # sine of the angle below which two walls have no corner between them
_PARALLEL = 0.1
_ONE = 0.2, 2.5  # sine and px: angle and distance up to which walls in succession are one
_LONG = 44.0  # px: longer walls know their direction better than the frame does,
_CERTAIN = 0.95  # unless its |c0| is so high
_TURN = 3.0  # px by which the frame may move the ends of a wall
_SURE = 0.03  # of |c0|; below it the frame has no direction
_SLANT = 0.35  # sine of the angle to the frame from which on a wall may be part of a round corner
_SHORT = 9.0  # px: walls up to this length are no such part
_SAME = 0.8  # cosine of the angle up to which two walls are parallel for that
_STEP = 2.5  # px: parallel walls farther apart have a step between them


class Walls(NamedTuple):
    """Straight pieces of paths, in the order of the paths."""

    path: np.ndarray
    ring: np.ndarray  # whether the path is closed and has no junction
    start: np.ndarray  # positions, [walls, 2]
    end: np.ndarray
    start_node: np.ndarray  # vertex of the graph if the path starts here, else −1
    end_node: np.ndarray
    centre: np.ndarray
    direction: np.ndarray  # of unit length

    def take(self, which: np.ndarray) -> Walls:
        return Walls(*(x[which] for x in self))

    @property
    def length(self) -> np.ndarray:
        return np.hypot(*(self.end - self.start).T)

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """The walls before and after each along its path; −1 where there is none."""
        k = np.arange(len(self.path))
        first = np.diff(self.path, prepend=-1) != 0
        last = np.diff(self.path, append=-1) != 0
        starts, ends = k[first], k[last]
        which = np.cumsum(first) - 1
        before = np.where(first, np.where(self.ring, ends[which], -1), k - 1)
        after = np.where(last, np.where(self.ring, starts[which], -1), k + 1)
        return before, after


def fitted(
    points: np.ndarray, vertices: np.ndarray, path: np.ndarray, ring: np.ndarray, kept: np.ndarray
) -> Walls:
    """Fits a least-squares line to the points of each wall."""
    knots = np.flatnonzero(kept)
    inside = path[knots[:-1]] == path[knots[1:]]
    start = knots[:-1][inside]
    end = knots[1:][inside]
    wall, index = ranges(start, end)
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
    return Walls(
        path=of,
        ring=ring[of],
        start=points[start],
        end=points[end],
        start_node=np.where(first & node, vertices[start], -1),
        end_node=np.where(last & node, vertices[end], -1),
        centre=centre,
        direction=np.stack([np.cos(angle), np.sin(angle)], axis=1),
    )


def fewer(walls: Walls, tolerance: float) -> Walls:
    """Drops walls that round a corner, and joins those that nearly continue each other."""
    px = max(tolerance, 1)
    while True:
        before, after = walls.neighbours()
        a, b = walls.take(before), walls.take(after)
        inner = (before >= 0) & (after >= 0)
        shorter = inner & (walls.length <= np.minimum(a.length, b.length))
        sine = _cross(a.direction, b.direction)
        gap = b.centre - a.centre
        far = _cross(gap, b.direction) / np.where(np.abs(sine) > _FLAT, sine, np.inf)
        corner = a.centre + a.direction * far[:, None]
        middle = (walls.start + walls.end) / 2
        depth = np.hypot(*(corner - middle).T)
        bevel = shorter & (np.abs(sine) > _FLAT)
        bevel &= (walls.length <= _BEVEL[0] * px) & (depth <= _BEVEL[1] * px)
        # Walls that follow each other.
        chord, next_chord = walls.end - walls.start, b.end - b.start
        one = (after >= 0) & ((chord * next_chord).sum(axis=1) > 0)
        one &= np.abs(_cross(walls.direction, b.direction)) < _ONE[0]
        one &= np.abs(_cross(b.centre - walls.centre, walls.direction)) <= _ONE[1] * px
        # The shortest of adjacent walls goes first; the others are looked at again.
        less = (bevel | one) & (np.bincount(walls.path)[walls.path] > 4)
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


def turned(walls: Walls, frame: FrameField, tolerance: float) -> Walls:
    """Turns walls into the nearest direction of the frame if their ends hardly move."""
    at = nearest(frame, walls.centre)
    z = walls.direction[:, 0] + 1j * walls.direction[:, 1]
    u, v = (w / np.maximum(np.abs(w), 1e-9) for w in directions(at))
    w = np.where(np.abs((z * u.conj()).real) > np.abs((z * v.conj()).real), u, v)
    sine, sure = np.abs((z * w.conj()).imag), np.abs(at.c0)
    turns = (sure > _SURE) & (sine * walls.length / 2 <= _TURN * max(tolerance, 1))
    turns &= (walls.length <= _LONG * max(tolerance, 1)) | (sure > _CERTAIN)
    # A slanted wall may be part of a round corner, unless it is short or joins two parallel walls.
    before, after = walls.neighbours()
    joins = (before >= 0) & (after >= 0)
    joins &= np.abs((z[before] * z[after].conj()).real) > _SAME
    turns &= (sine <= _SLANT) | (walls.length <= _SHORT) | joins
    z = np.where(turns, w, z)
    return walls._replace(direction=np.stack([z.real, z.imag], axis=1))


def stepped(walls: Walls, tolerance: float) -> Walls:
    """Puts a short wall between parallel walls that follow each other on different lines."""
    _, after = walls.neighbours()
    b = walls.take(after)
    across = _foot(walls.end, b) - _foot(walls.end, walls)
    step = (after >= 0) & (np.hypot(*across.T) > _STEP * max(tolerance, 1))
    step &= np.abs(_cross(walls.direction, b.direction)) < _PARALLEL
    step &= ((walls.end - walls.start) * (b.end - b.start)).sum(axis=1) > 0
    k = np.flatnonzero(step)
    start, end = walls.start.copy(), walls.end.copy()
    middle = walls.end[k]
    end[k] = middle - across[k] / 2
    start[after[k]] = middle + across[k] / 2
    steps = walls.take(k)._replace(
        start=end[k],
        end=start[after[k]],
        start_node=np.full(len(k), -1),
        centre=middle,
        direction=across[k] / np.hypot(*across[k].T)[:, None],
    )
    walls = walls._replace(start=start, end=end)
    return Walls(*(np.insert(x, k + 1, new, axis=0) for x, new in zip(walls, steps, strict=True)))


def _foot(points: np.ndarray, walls: Walls) -> np.ndarray:
    """The nearest point on the line of the wall."""
    along = ((points - walls.centre) * walls.direction).sum(axis=1)
    return walls.centre + along[:, None] * walls.direction


def _joined_to_next(walls: Walls, which: np.ndarray, after: np.ndarray) -> Walls:
    """Each wall after a chosen one becomes the line between the centres of both."""
    k = np.flatnonzero(which)
    j = after[k]
    share = walls.length[k] / (walls.length[k] + walls.length[j])
    centre, direction, node = walls.centre.copy(), walls.direction.copy(), walls.start_node.copy()
    between = centre[j] - centre[k]
    direction[j] = between / np.maximum(np.hypot(*between.T), 1e-9)[:, None]
    centre[j] -= share[:, None] * between
    node[j] = node[k]
    return walls._replace(centre=centre, direction=direction, start_node=node)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def joined(walls: Walls, graph: Graph, positions: np.ndarray, tolerance: float) -> np.ndarray:
    """The lines of walls that meet, each vertex as near as possible to all of its lines."""
    _, after = walls.neighbours()
    n, nodes = len(walls.path), len(positions)
    # A knot is the graph's vertex at the end of a path, else the end of a wall.
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
    shift[np.hypot(*shift.T) > _FAR * max(tolerance, 1)] = 0
    place = place + shift

    first = np.diff(walls.path, prepend=-1) != 0
    which = np.insert(end, np.flatnonzero(first), start[first])
    line = np.insert(walls.path, np.flatnonzero(first), walls.path[first])
    lines = shapely.linestrings(
        place[which][:, ::-1], indices=np.unique(line, return_inverse=True)[1]
    )
    simpler = shapely.simplify(lines, tolerance / 4, preserve_topology=False)
    return np.where(walls.ring[first] & (shapely.get_num_coordinates(simpler) < 4), lines, simpler)


def ranges(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts from each start to its end; returns the index of the range and the number."""
    size = end - start + 1
    of = np.repeat(np.arange(len(start)), size)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(size) - size, size) + start[of]
