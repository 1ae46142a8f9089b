"""Walls: straight pieces of paths, fitted, made fewer, turned into the frame, and joined again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely

from classy_gc.polygons.frame_field import FrameField, directions, follows_first, nearest
from classy_gc.polygons.graph import Graph

_TRIM = 2.5  # px at the ends of a wall that the fit ignores, since the blur of the map rounds them
_PULL = 0.01  # pull of a vertex's old place, relative to that of the lines of its walls
_BEVEL = 8.0, 3.0  # px: largest length and depth of a wall that rounds a corner
_FLAT = 0.2  # sine of the angle below which two walls have no corner between them
_ONE = 2.5  # px: distance up to which such walls in succession are one
_LONG = 44.0  # px: longer walls know their direction better than the frame does,
_CERTAIN = 0.95  # unless its |c0| is so high
_TURN = 4.5  # px by which the frame may move the ends of a wall
_SURE = 0.01  # of |c0|; below it the frame has no direction
_SLANT = 0.35  # sine of the angle to the frame from which on a wall may be part of a round corner
_SHORT = 9.0  # px: walls up to this length are no such part
_SAME = 0.8  # cosine of the angle up to which two walls are parallel for that


class Walls(NamedTuple):
    """Straight pieces of paths, in the order of the paths."""

    path: np.ndarray  # index of the path in the graph
    ring: np.ndarray  # whether the path is closed and has no junction
    start: np.ndarray  # positions, [walls, 2]
    end: np.ndarray
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


def fitted(points: np.ndarray, path: np.ndarray, ring: np.ndarray, knots: np.ndarray) -> Walls:
    """Fits a least-squares line to the points between each two knots of a path."""
    inside = path[knots[:-1]] == path[knots[1:]]
    start = knots[:-1][inside]
    end = knots[1:][inside]
    # The points of every wall, from its start to its end.
    size = end - start + 1
    wall = np.repeat(np.arange(len(start)), size)
    index = start[wall] + np.arange(len(wall)) - np.repeat(np.cumsum(size) - size, size)
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
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    of = path[start]
    return Walls(of, ring[of], points[start], points[end], centre, direction)


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
        one &= np.abs(_cross(walls.direction, b.direction)) < _FLAT
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


def turned(walls: Walls, frame: FrameField, tolerance: float) -> Walls:
    """Turns walls into the nearest direction of the frame if their ends hardly move."""
    px = max(tolerance, 1)
    at = nearest(frame, walls.centre)
    z = walls.direction[:, 0] + 1j * walls.direction[:, 1]
    u, v = (np.exp(1j * np.angle(w)) for w in directions(at))
    w = np.where(follows_first(z, (u, v)), u, v)
    sure = np.abs(at.c0)
    sine = np.abs((z * w.conj()).imag)
    turns = (sure > _SURE) & (sine * walls.length / 2 <= _TURN * px)
    turns &= (walls.length <= _LONG * px) | (sure > _CERTAIN)
    # A slanted wall may be part of a round corner, unless it is short or joins two parallel walls.
    before, after = walls.neighbours()
    joins = (before >= 0) & (after >= 0)
    joins &= np.abs((z[before] * z[after].conj()).real) > _SAME
    turns &= (sine <= _SLANT) | (walls.length <= _SHORT) | joins
    z = np.where(turns, w, z)
    return walls._replace(direction=np.stack([z.real, z.imag], axis=1))


def _joined_to_next(walls: Walls, which: np.ndarray, after: np.ndarray) -> Walls:
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


def joined(walls: Walls, graph: Graph, positions: np.ndarray, tolerance: float) -> np.ndarray:
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
    place = place + shift

    first = np.flatnonzero(np.diff(walls.path, prepend=-1))
    which = np.insert(end, first, start[first])
    line = np.insert(walls.path, first, walls.path[first])
    lines = shapely.linestrings(place[which][:, ::-1], indices=line)
    simpler = shapely.simplify(lines, tolerance / 2, preserve_topology=False)
    return np.where(walls.ring[first] & (shapely.get_num_coordinates(simpler) < 4), lines, simpler)
