"""Graphs of vertices: paths through the plane that may share their ends.

Positions are (row, column) in pixels, the centres of pixels at integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from classy_gc.polygons.frame_field import CERTAIN, FrameField, directions, nearest

# (edges, share, degrees): so many edges are a straight wall if the distance of their ends is at
# least this share of their length; it is oblique if it lies at least so many degrees off the frame.
_WINDOWS = ((7, 0.96, 30), (15, 0.98, 12))


@dataclass(frozen=True)
class Graph:
    """Vertices, and paths through them.

    Attributes:
        positions: of the vertices, (row, column); float64, shape ``[n, 2]``.
        path_vertices: which vertices the paths go through, one path after the other; a closed
            path ends with its first vertex; integers, shape ``[m]``.
        path_starts: where in ``path_vertices`` each path starts, and ``m`` at the end; shape
            ``[paths + 1]``.
        fixed: vertices that stay where they are; booleans, shape ``[n]``.

    Example:
        >>> square = np.array([[0, 0], [0, 4], [4, 4], [4, 0], [0, 0]])
        >>> graph = Graph.of([square])
        >>> graph.positions.shape, graph.edges.shape, graph.turns.shape
        ((4, 2), (4, 2), (4, 3))
    """

    positions: np.ndarray
    path_vertices: np.ndarray
    path_starts: np.ndarray
    fixed: np.ndarray

    @classmethod
    def of(cls, paths: Sequence[np.ndarray], shape: tuple[int, int] | None = None) -> "Graph":
        """The graph of paths; ends at the same position become one vertex.

        Args:
            paths: the vertices of each path, shape ``[k, 2]``, k ≥ 2; a closed path ends where it
                starts.
            shape: of the image. Vertices on its border are fixed, as are ends that meet no other
                path (default: None, no border).
        """
        starts = np.cumsum([0, *map(len, paths)])
        points = np.concatenate([np.empty((0, 2)), *paths]).astype(float)
        ends = np.concatenate([starts[:-1], starts[1:] - 1])
        nodes, node = np.unique(points[ends], axis=0, return_inverse=True)
        # The ends come first, then the vertices between them.
        between = np.delete(np.arange(len(points)), ends)
        vertices = np.empty(len(points), int)
        vertices[ends] = node.ravel()
        vertices[between] = len(nodes) + np.arange(len(between))
        positions = np.concatenate([nodes, points[between]])
        fixed = np.bincount(node.ravel(), minlength=len(positions)) == 1
        if shape is not None:
            fixed |= (positions <= -0.5).any(1) | (positions >= np.array(shape) - 0.5).any(1)
        return cls(positions, vertices, starts, fixed)

    def paths(self, positions: np.ndarray | None = None) -> list[np.ndarray]:
        """The positions along each path, shape ``[k, 2]``.

        Args:
            positions: of the vertices (default: None, those of the graph).
        """
        points = (self.positions if positions is None else positions)[self.path_vertices]
        return np.split(points, self.path_starts[1:-1]) if len(self.path_starts) > 1 else []

    @cached_property
    def edges(self) -> np.ndarray:
        """The two vertices of each edge, shape ``[edges, 2]``."""
        pairs = np.stack([self.path_vertices[:-1], self.path_vertices[1:]], axis=1)
        return np.delete(pairs, self.path_starts[1:-1] - 1, axis=0)

    @cached_property
    def degree(self) -> np.ndarray:
        """How many edges meet at each vertex, shape ``[n]``."""
        return np.bincount(self.edges.ravel(), minlength=len(self.positions))

    @cached_property
    def closed(self) -> np.ndarray:
        """Which paths are closed and meet no other, shape ``[paths]``."""
        first = self.path_vertices[self.path_starts[:-1]]
        last = self.path_vertices[self.path_starts[1:] - 1]
        return (first == last) & (self.degree[last] == 2)

    def along(self, steps: int) -> np.ndarray:
        """The index in ``path_vertices`` of the vertex some steps further along the path.

        Args:
            steps: number of edges, negative to go back. Closed paths wrap around, others stop at
                their ends.

        Returns:
            An index for each of ``path_vertices``, shape ``[m]``.
        """
        path = np.repeat(np.arange(len(self.closed)), np.diff(self.path_starts))
        first = self.path_starts[path]
        last = self.path_starts[path + 1] - 1
        there = np.arange(len(path)) + steps
        around = first + (there - first) % np.maximum(last - first, 1)
        return np.where(self.closed[path], around, np.clip(there, first, last))

    @cached_property
    def turns(self) -> np.ndarray:
        """Each vertex where two edges meet, between its two neighbours, shape ``[turns, 3]``."""
        return self._meetings(self.degree == 2)

    @cached_property
    def junctions(self) -> np.ndarray:
        """As ``turns``, each pair of edges at the vertices where more than two meet."""
        return self._meetings(self.degree > 2)

    def _meetings(self, at: np.ndarray) -> np.ndarray:
        ends = np.concatenate([self.edges, self.edges[:, ::-1]])
        ends = ends[at[ends[:, 0]]]
        ends = ends[np.argsort(ends[:, 0], kind="stable")]
        corners = [np.empty((0, 3), int)]
        # The k-th edge after each one, while it meets the same vertex.
        for k in range(1, int(self.degree[at].max(initial=0))):
            same = ends[k:, 0] == ends[:-k, 0]
            first, second = ends[:-k][same], ends[k:][same]
            corners.append(np.stack([first[:, 1], first[:, 0], second[:, 1]], axis=1))
        return np.concatenate(corners)

    @cached_property
    def parts(self) -> np.ndarray:
        """Which connected part each vertex belongs to, numbered from 0, shape ``[n]``."""
        return connected(self.edges, len(self.positions))


def oblique(graph: Graph, frame: FrameField) -> np.ndarray:
    """Which edges belong to straight walls oblique to the frame's directions.

    ``align`` would turn such walls into saw teeth. Round corners are not straight, so ``align``
    still sharpens them. A wall off a frame that is certain is the map's fault.
    """
    x = graph.positions[graph.path_vertices]
    z = x[:, 0] + 1j * x[:, 1]
    step = np.abs(z[graph.along(1)] - z)
    on_wall = np.zeros(len(x), bool)
    for edges, straight, degrees in _WINDOWS:
        along = [graph.along(k) for k in range(edges + 1)]
        chord = z[along[-1]] - z
        length = sum(step[k] for k in along[:-1])
        whole = along[-1] != along[-2]  # fewer edges are left at the end of a path
        at = nearest(frame, x[along[edges // 2]])
        near = [np.abs((chord * w.conj()).real) / np.abs(w).clip(1e-9) for w in directions(at)]
        here = whole & (np.abs(chord) > straight * length)
        here &= np.maximum(*near) < np.cos(np.radians(degrees)) * np.abs(chord)
        here &= np.abs(at.c0) <= CERTAIN
        for k in along[:-1]:
            on_wall[k[here]] = True
    return np.delete(on_wall, graph.path_starts[1:] - 1)  # no edge starts at the end of a path


def lay_out(graph: Graph, layout: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The place of each coordinate in a flat buffer, and the shapes of the tensors in it."""
    n = len(graph.positions)
    if layout == "n2":
        return np.arange(2 * n).reshape(n, 2), [(n, 2)]
    # Parts of equal size share one tensor, so that there are few tensors.
    size = np.bincount(graph.parts)[graph.parts]
    place = np.empty((n, 2), int)
    shapes = []
    begin = 0
    for m in np.unique(size).tolist():
        vertices = np.flatnonzero(size == m)
        vertices = vertices[np.argsort(graph.parts[vertices], kind="stable")]
        index = begin + np.arange(2 * len(vertices)).reshape(-1, 2, m)
        place[vertices] = index.transpose(0, 2, 1).reshape(-1, 2)
        shapes.append((index.size // m, m))
        begin += index.size
    return place, shapes


def connected(pairs: np.ndarray, n: int) -> np.ndarray:
    """Numbers the connected parts of a graph.

    Args:
        pairs: of linked nodes, shape ``[m, 2]``.
        n: the number of nodes.

    Returns:
        The part of each node, from 0, shape ``[n]``.

    Example:
        >>> connected(np.array([[0, 2]]), 3).tolist()
        [0, 1, 0]
    """
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(links, directed=False)[1]


def resample(paths: Sequence[np.ndarray], spacing: float = 1.9) -> list[np.ndarray]:
    """Puts vertices at equal distances on each path; its ends stay.

    The number of edges is even, so that few sizes share a tensor, and four at least of a closed
    path.

    Args:
        paths: the vertices of each path, shape ``[k, 2]``; a closed path ends where it starts.
        spacing: the greatest distance along the path, in pixels (default: 1.9)

    Returns:
        New paths, in the form of ``paths``.

    Raises:
        ValueError: vertices that are not finite.

    Example:
        >>> (path,) = resample([np.array([[0.0, 0], [0, 30]])], spacing=10)
        >>> path[:, 1].tolist()
        [0.0, 7.5, 15.0, 22.5, 30.0]
    """
    resampled = []
    for path in paths:
        if not np.isfinite(path).all():
            raise ValueError("the vertices of a path must be finite")
        place = np.cumsum(np.hypot(*np.diff(path, axis=0, prepend=path[:1]).T))
        fewest = 4 if (path[0] == path[-1]).all() else 2
        edges = max(2 * int(np.ceil(place[-1] / (2 * spacing))), fewest)
        along = np.linspace(0, place[-1], edges + 1)
        resampled.append(np.stack([np.interp(along, place, x) for x in path.T], axis=1))
    return resampled
