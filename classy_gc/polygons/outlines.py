"""Outlines of a map of probabilities as paths: contours, and skeletons with common walls.

Positions are (row, column) in pixels, the centres of pixels at integers. Both kinds of paths close
along the border of the image, half a pixel outside the outermost centres.
"""

from itertools import pairwise

import numpy as np
import shapely
from scipy import ndimage, sparse
from skimage.graph import pixel_graph
from skimage.measure import find_contours
from skimage.morphology import skeletonize

from classy_gc.polygons.graph import connected
from classy_gc.polygons.maps import as_map

#: For the map of walls; less than a half, so that a wall does not break where the map is unsure.
EDGE_THRESHOLD = 0.4
_AT_BORDER = 0.75  # px
_SMOOTHINGS = 4  # means of three cells, which smooth the staircase of a slanted wall


def contours(interior: np.ndarray, threshold: float = 0.5, min_area: float = 0.0) -> list:
    """Closed paths along which the map crosses a probability (marching squares).

    Args:
        interior: probability of a building, shape ``[H, W]``.
        threshold: the probability (default: 0.5)
        min_area: paths that enclose less are left out, in px² (default: 0)

    Returns:
        The vertices of each path, shape ``[k, 2]``. A path along the border of the image is cut
        into several, so that its corners there are ends.

    Source: Lorensen and Cline, *Marching Cubes*, SIGGRAPH 1987; scikit-image's
    ``find_contours``.

    Example:
        >>> sorted(path[0].tolist() for path in contours(np.ones((4, 5))))
        [[-0.5, -0.5], [-0.5, 4.5], [3.5, -0.5], [3.5, 4.5]]
    """
    interior = as_map(interior)
    paths = find_contours(np.pad(interior, 1), threshold)
    closed = [path - 1 for path in paths if len(path) > 3 and shapely.Polygon(path).area > min_area]
    return [piece for path in closed for piece in _cut_at_border(path, interior.shape)]


def _cut_at_border(path: np.ndarray, shape: tuple[int, ...]) -> list:
    """Moves vertices near the image's border onto it, and cuts the path at its corners there."""
    borders = [np.array([-0.5, -0.5]), np.array(shape) - 0.5]
    near = [np.abs(path - border) <= _AT_BORDER for border in borders]
    path, on_axis = np.select(near, borders, path), near[0] | near[1]
    side = (on_axis[:-1] & on_axis[1:]) @ [1, 2]  # of the image that each edge lies on, or 0
    cuts = np.flatnonzero(np.diff(side)) + 1
    if len(cuts) and (path[0] == path[-1]).all():
        path = np.concatenate([path[cuts[0] : -1], path[: cuts[0] + 1]])
        cuts = np.flatnonzero(np.diff(np.roll(side, -cuts[0]))) + 1
    pieces = [path[a : b + 1] for a, b in pairwise([0, *cuts, len(path) - 1])]
    return [piece for piece in pieces if np.ptp(piece, axis=0).any()]


def skeleton(
    interior: np.ndarray,
    edges: np.ndarray | None = None,
    threshold: float = 0.5,
    keep_tips: bool = False,
) -> list:
    """The thinned walls of a map, as paths that meet in common junctions.

    Walls are the borders between building pixels and others, and the pixels that the map of edges
    marks.

    Args:
        interior: probability of a building, shape ``[H, W]``.
        edges: probability of a wall, as ``interior`` (default: None, the border alone)
        threshold: for ``interior`` (default: 0.5); that for ``edges`` is 0.4.
        keep_tips: keep paths with a loose end, which bound nothing (default: False)

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
    interior = as_map(interior)
    if edges is not None:
        edges = np.pad(as_map(edges, "edges", interior.shape) > EDGE_THRESHOLD, 1)
    walls = _walls(np.pad(interior > threshold, 1), edges)
    paths = [path / 2 - 1.5 for path in trace(skeletonize(walls), keep_tips)]
    return [_smoothed(p) for path in paths for p in _cut_at_border(path, interior.shape)]


def _walls(mask: np.ndarray, edges: np.ndarray | None) -> np.ndarray:
    """Cells of half a pixel that are walls: cracks between a building pixel and another, and edges.

    The centre of pixel (r, c) is cell (2r + 1, 2c + 1). Lines and bands are an odd number of cells
    wide, so that thinning has no side to prefer.
    """
    height, width = mask.shape
    cells = np.zeros((2 * height + 1, 2 * width + 1), bool)
    cells[2:-1:2, 1::2] = mask[1:] != mask[:-1]
    cells[1::2, 2:-1:2] = mask[:, 1:] != mask[:, :-1]
    between = cells[2:-1:2, 1:-2:2] | cells[2:-1:2, 3::2]
    cells[2:-1:2, 2:-1:2] = between | cells[1:-2:2, 2:-1:2] | cells[3::2, 2:-1:2]
    if edges is not None:
        bands = np.zeros_like(cells)
        bands[1::2, 1::2] = edges
        cells |= ndimage.binary_dilation(bands, np.ones((3, 3)))
    return cells


def _smoothed(path: np.ndarray) -> np.ndarray:
    """The path without the staircase of its cells, which would make it longer; its ends stay."""
    for _ in range(_SMOOTHINGS):
        middle = (path[:-2] + 2 * path[1:-1] + path[2:]) / 4
        path = np.concatenate([path[:1], middle, path[-1:]])
    return path


def trace(lines: np.ndarray, keep_tips: bool = True) -> list:
    """The paths along lines that are one pixel wide.

    Args:
        lines: booleans, shape ``[H, W]``.
        keep_tips: keep paths with a loose end (default: True)

    Returns:
        The vertices of each path, shape ``[k, 2]``. Pixels that touch each other at a junction
        become one vertex at their mean. A single pixel is not a path.

    Example:
        >>> plus = np.zeros((5, 5), bool)
        >>> plus[2] = plus[:, 2] = True
        >>> sorted(path[::2].tolist() for path in trace(plus))
        [[[0.0, 2.0], [2.0, 2.0]], [[2.0, 0.0], [2.0, 2.0]], ...]
    """
    pixels = np.argwhere(lines)
    # Pixels that touch at a corner are linked only if no third pixel joins them.
    straight, _ = pixel_graph(lines, connectivity=1)
    every, _ = pixel_graph(lines, connectivity=2)
    joined = (straight @ straight).astype(bool)
    links = np.stack(sparse.triu(every - every.multiply(joined)).nonzero(), axis=1)
    # Junction pixels that touch become one node at their mean.
    junction = np.bincount(links.ravel(), minlength=len(pixels)) > 2
    label = connected(links[junction[links].all(axis=1)], len(pixels))
    count = np.bincount(label)[:, None]
    place = np.stack([np.bincount(label, x) for x in pixels.T], axis=1) / count
    between = np.unique(np.sort(label[links], axis=1), axis=0)
    between = between[between[:, 0] != between[:, 1]]
    paths = _merged(shapely.linestrings(place[between]))
    if not keep_tips:
        tips = shapely.normalize(shapely.get_parts(shapely.polygonize_full(paths)[2]))
        tip = np.isin(shapely.to_wkb(shapely.normalize(paths)), shapely.to_wkb(tips))
        paths = _merged(paths[~tip])
    return [shapely.get_coordinates(path) for path in paths]


def _merged(lines: np.ndarray) -> np.ndarray:
    """Joins lines where exactly two meet."""
    return shapely.get_parts(shapely.line_merge(shapely.multilinestrings(lines)))
