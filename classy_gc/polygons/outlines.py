"""Outlines of a map of probabilities as paths: contours, and skeletons with common walls.

Positions are (row, column) in pixels, the centres of pixels at integers. Both close along the
border of the image, which lies half a pixel outside the outermost centres.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours
from skimage.morphology import skeletonize

from classy_gc.polygons.graph import connected

#: of the map of walls; below a half, so that a wall does not break where the map is unsure
EDGE_THRESHOLD = 0.4
_SQUARE = np.ones((3, 3), bool)
# Of the eight neighbours of a pixel one of each opposite two; those of an edge first.
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def contours(interior: np.ndarray, threshold: float = 0.5, min_area: float = 0.0) -> list:
    """Where the map crosses a probability (marching squares), as closed paths.

    Args:
        interior: probability of a building, shape ``[H, W]``.
        threshold: the probability (default: 0.5)
        min_area: paths around less than this, in px², are left out (default: 0)

    Returns:
        The vertices of each path, shape ``[k, 2]``, the last equal to the first.

    Source: Lorensen and Cline, *Marching Cubes*, SIGGRAPH 1987; scikit-image's
    ``find_contours``.

    Example:
        >>> (path,) = contours(np.ones((2, 3)))
        >>> path.min(axis=0).tolist(), path.max(axis=0).tolist()
        ([-0.5, -0.5], [1.5, 2.5])
    """
    found = find_contours(np.pad(interior, 1), threshold)
    inside = np.array([-0.5, -0.5]), np.array(interior.shape) - 0.5
    paths = [np.clip(path - 1, *inside) for path in found]
    return [path for path in paths if len(path) > 3 and abs(_area(path)) > min_area]


def _area(path: np.ndarray) -> float:
    rows, columns = (path - path[0]).T
    return 0.5 * float(rows[:-1] @ columns[1:] - rows[1:] @ columns[:-1])


def skeleton(
    interior: np.ndarray,
    edges: np.ndarray | None = None,
    threshold: float = 0.5,
    keep_tips: bool = False,
) -> list:
    """The thinned walls of a map, as paths that meet in common junctions.

    Walls are the border of the buildings, two pixels wide, and what the map of edges says.

    Args:
        interior: probability of a building, shape ``[H, W]``.
        edges: probability of a wall, as ``interior`` (default: None, the border alone)
        threshold: of ``interior`` (default: 0.5); that of ``edges`` is 0.4.
        keep_tips: also paths that end alone, which bound nothing (default: False)

    Returns:
        The vertices of each path, shape ``[k, 2]``; at a junction the ends of paths are equal.

    Source: Girard et al., section 3.3, https://arxiv.org/abs/2004.14875; the thinning is
    scikit-image's ``skeletonize``.

    Example:
        >>> rooms = np.zeros((12, 20))
        >>> rooms[2:10, 2:18] = 1
        >>> wall = np.zeros((12, 20))
        >>> wall[2:10, 9:11] = 1
        >>> len(skeleton(rooms)), len(skeleton(rooms, wall))
        (1, 3)
    """
    mask = np.pad(np.asarray(interior) > threshold, 2)
    walls = ndimage.binary_dilation(mask, _SQUARE) & ~ndimage.binary_erosion(mask, _SQUARE)
    if edges is not None:
        walls |= np.pad(np.asarray(edges) > EDGE_THRESHOLD, 2)
    paths = trace(skeletonize(walls), keep_tips)
    last = np.array(interior.shape) - 1
    for path in paths:
        path -= 2
        # Of a building on the image's border the thinned wall runs just inside or outside.
        for axis in (0, 1):
            path[path[:, axis] <= 0.5, axis] = -0.5
            path[path[:, axis] >= last[axis] - 0.5, axis] = last[axis] + 0.5
    return [path for path in paths if np.ptp(path, axis=0).any()]


def trace(lines: np.ndarray, keep_tips: bool = True) -> list:
    """The paths along lines that are one pixel wide.

    Args:
        lines: booleans, shape ``[H, W]``.
        keep_tips: also paths that end alone (default: True)

    Returns:
        The vertices of each path, shape ``[k, 2]``. Pixels that touch each other at a junction
        are one vertex at their mean. A line of one pixel is no path.

    Example:
        >>> plus = np.zeros((5, 5), bool)
        >>> plus[2] = plus[:, 2] = True
        >>> sorted(path[::2].tolist() for path in trace(plus))
        [[[0.0, 2.0], [2.0, 2.0]], [[2.0, 0.0], [2.0, 2.0]], ...]
    """
    pixels = np.argwhere(lines)
    links = _links(lines, len(pixels))
    if not keep_tips:
        links = links[_in_cycles(links, len(pixels))]
    degree = np.bincount(links.ravel(), minlength=len(pixels))
    is_node = (degree > 0) & (degree != 2)

    # Junction pixels that touch are one node; so is each tip.
    junction = degree > 2
    both = links[junction[links].all(axis=1)]
    label = connected(both, len(pixels))
    count = np.maximum(np.bincount(label), 1)[:, None]
    centre = np.stack([np.bincount(label, x) for x in pixels.T], axis=1) / count
    place = pixels.astype(float)
    place[junction] = centre[label[junction]]

    between = links[~junction[links].all(axis=1)]
    neighbours: list[list[int]] = [[] for _ in pixels]
    for a, b in zip(*between.T.tolist(), strict=True):
        neighbours[a].append(b)
        neighbours[b].append(a)
    nodes = is_node.tolist()
    paths = []
    # From each node along each of its links to the next node; then what is left is closed.
    for start in [*np.flatnonzero(is_node).tolist(), *np.flatnonzero(degree == 2).tolist()]:
        while neighbours[start]:
            path, here = [start], start
            while True:
                there = neighbours[here].pop()
                neighbours[there].remove(here)
                path.append(there)
                here = there
                if nodes[here] or here == start:
                    break
            paths.append(place[path])
    return paths


def _links(lines: np.ndarray, n: int) -> np.ndarray:
    """Pairs of pixels that touch; those at a corner only where no third joins them."""
    index = np.full(np.add(lines.shape, 2), -1)
    index[1:-1, 1:-1][lines] = np.arange(n)
    height, width = lines.shape
    found = []
    for row, column in _NEIGHBOURS:
        here = index[1:-1, 1:-1]
        there = index[1 + row : 1 + row + height, 1 + column : 1 + column + width]
        linked = (here >= 0) & (there >= 0)
        if row and column:
            beside = index[1:-1, 1 + column : 1 + column + width]
            below = index[2 : 2 + height, 1:-1]
            linked &= (beside < 0) & (below < 0)
        found.append(np.stack([here[linked], there[linked]], axis=1))
    return np.concatenate(found)


def _in_cycles(links: np.ndarray, n: int) -> np.ndarray:
    """Which links are left when tips are taken away until there are none."""
    kept = np.ones(len(links), bool)
    beside: list[list[int]] = [[] for _ in range(n)]
    ends = links.T.tolist()
    for k, (a, b) in enumerate(zip(*ends, strict=True)):
        beside[a].append(k)
        beside[b].append(k)
    degree = np.bincount(links.ravel(), minlength=n)
    tips = np.flatnonzero(degree == 1).tolist()
    degree = degree.tolist()
    while tips:
        tip = tips.pop()
        for k in beside[tip]:
            if kept[k]:
                kept[k] = False
                for end in (ends[0][k], ends[1][k]):
                    degree[end] -= 1
                    if degree[end] == 1:
                        tips.append(end)
    return kept
