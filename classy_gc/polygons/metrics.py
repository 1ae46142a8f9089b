"""Compares polygons with the true ones, and draws them before and after the refinement."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import shapely

from classy_gc.plots import COLORS, new_figure
from classy_gc.polygons.buildings import Buildings
from classy_gc.polygons.maps import Map
from classy_gc.table import aligned, counted

_STRETCH = 2.0
_LARGEST = 1500  # largest edge of the map in the picture, in pixels

#: Which buildings each column of :func:`table` covers.
OVER = (
    "IoU: mean over the true buildings. F1, precision, recall: a building is found if IoU > 0.5 "
    "(matched). angle, Hausdorff: mean over these. vertices: of all found, over all true."
)


class Metrics(NamedTuple):
    """How polygons compare with the true ones.

    Attributes:
        iou: intersection over union of each true polygon and the polygon that it shares most area
            with; mean over true polygons.
        angle: the largest tangent-angle error of a polygon, in degrees, mean over polygons.
        vertices: the number of vertices over that of the truth.
        hausdorff: distance between the outlines of a polygon and its true one, mean over polygons,
            in the unit of the coordinates.
        matched: the number of polygons whose IoU with a true one exceeds 0.5; only they count for
            ``angle`` and ``hausdorff``.
        precision: the share of polygons that are matched.
        recall: the share of true polygons that are matched.
        f1: the harmonic mean of precision and recall.
    """

    iou: float
    angle: float
    vertices: float
    hausdorff: float
    matched: int
    precision: float
    recall: float
    f1: float


def measure(polygons: np.ndarray, truth: np.ndarray) -> Metrics:
    """Compares polygons with the true ones.

    Args:
        polygons: shapely polygons, shape ``[n]``.
        truth: shapely polygons, shape ``[m]``.

    Returns:
        The metrics; NaN where there is nothing to measure.

    Example:
        >>> square = np.array([shapely.box(0, 0, 10, 10)])
        >>> measure(square, square)
        Metrics(iou=1.0, angle=0.0, vertices=1.0, hausdorff=0.0, matched=1, ...)
    """
    polygons, truth = np.atleast_1d(polygons), np.atleast_1d(truth)
    mine, its = shapely.STRtree(truth).query(polygons, predicate="intersects")
    common = shapely.area(shapely.intersection(polygons[mine], truth[its]))
    iou = common / (shapely.area(polygons[mine]) + shapely.area(truth[its]) - common)
    best = np.zeros(len(truth))
    np.maximum.at(best, its, iou)
    mine, its = mine[iou > 0.5], its[iou > 0.5]
    angles = [angle_error(*pair) for pair in zip(polygons[mine], truth[its], strict=True)]
    ours, true = shapely.boundary(polygons[mine]), shapely.boundary(truth[its])
    distances = shapely.hausdorff_distance(ours, true, densify=0.1)
    return Metrics(
        iou=float(best.mean()) if len(truth) else float("nan"),
        angle=float(np.nanmean(angles)) if np.isfinite(angles).any() else float("nan"),
        vertices=vertices(polygons) / vertices(truth) if len(truth) else float("nan"),
        hausdorff=float(np.mean(distances)) if len(mine) else float("nan"),
        matched=len(mine),
        precision=len(mine) / len(polygons) if len(polygons) else float("nan"),
        recall=len(mine) / len(truth) if len(truth) else float("nan"),
        f1=2 * len(mine) / max(len(polygons) + len(truth), 1),
    )


def vertices(polygons: np.ndarray) -> int:
    """The number of vertices of polygons; a shared one counts for each.

    Example:
        >>> vertices(np.array([shapely.box(0, 0, 1, 1)]))
        4
    """
    rings = shapely.get_rings(polygons)
    return int(shapely.get_num_coordinates(rings).sum()) - len(rings)


def angle_error(polygon: shapely.Polygon, truth: shapely.Polygon, spacing: float = 2.0) -> float:
    """The largest angle between an outline and the true one beside it.

    Samples of the outline are projected onto the true one. A piece between two samples is left out
    if its length changes more than twofold.

    Args:
        polygon: whose outline is sampled.
        truth: the true one.
        spacing: of the samples, in the unit of the coordinates (default: 2)

    Returns:
        Degrees; NaN where no piece is left.

    Source: Girard et al., section 4.2, https://arxiv.org/abs/2004.14875.

    Example:
        >>> box = shapely.box(0, 0, 40, 40)
        >>> tilted = shapely.Polygon([(0, 0), (40, 4), (40, 40), (0, 40)])
        >>> round(angle_error(tilted, box), 1)
        5.7
    """
    boundary = shapely.boundary(truth)
    shapely.prepare(boundary)
    worst = float("nan")
    for ring in shapely.get_rings(polygon):
        points = shapely.points(shapely.get_coordinates(shapely.segmentize(ring, spacing)))
        lines = shapely.get_coordinates(shapely.shortest_line(points, boundary)).reshape(-1, 2, 2)
        ours, true = np.diff(lines, axis=0).transpose(1, 2, 0)
        length, other = np.hypot(*ours), np.hypot(*true)
        kept = (other < _STRETCH * length) & (length < _STRETCH * other)
        cosine = (ours * true).sum(axis=0)[kept] / (length * other)[kept]
        worst = np.fmax(worst, np.degrees(np.arccos(np.clip(cosine, -1, 1))).max(initial=-np.inf))
    return float(worst) if np.isfinite(worst) else float("nan")


def table(rows: Mapping[str, Metrics]) -> str:
    """Metrics as a text table with one row each.

    Args:
        rows: the metrics by name.

    Example:
        >>> print(table({"after": Metrics(0.9, 50.0, 1.5, 4.0, 3, 0.75, 0.6, 0.67)}))
                 IoU    F1  precision  recall  angle  Hausdorff  vertices  matched
        after  0.900  0.67       0.75    0.60  50.0°     4.0 px      1.50        3
    """
    header = ["", "IoU", "F1", "precision", "recall", "angle", "Hausdorff", "vertices", "matched"]
    cells = [header]
    for name, m in rows.items():
        shares = [f"{share:.2f}" for share in (m.f1, m.precision, m.recall)]
        outline = [f"{m.angle:.1f}°", f"{m.hausdorff:.1f} px", f"{m.vertices:.2f}"]
        cells.append([name, f"{m.iou:.3f}", *shares, *outline, f"{m.matched:g}"])
    return aligned(cells, numbers=True)


def picture(interior: Map, buildings: Buildings) -> Any:
    """The map twice, with the polygons before and after the refinement.

    Args:
        interior: the map.
        buildings: the map's, ``before`` included.

    Returns:
        A ``matplotlib`` Figure.
    """
    from matplotlib.collections import LineCollection

    height, width = interior.shape
    step = -(-max(height, width) // _LARGEST)
    values = interior.read(slice(0, height, step), slice(0, width, step))
    figure = new_figure(11, 5.4 * height / width + 0.7)
    named = (
        (buildings.before, COLORS[1], "before: as traced, simplified"),
        (buildings.polygons, COLORS[0], "after: refined, walls fitted"),
    )
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, (polygons, color, title) in zip(axes, named, strict=True):
        ax.imshow(values, cmap="Greys", vmin=0, vmax=1.6, extent=(0, width, height, 0))
        lines = [shapely.get_coordinates(ring) for ring in shapely.get_rings(polygons)]
        ax.add_collection(LineCollection(lines, colors=color, linewidths=0.8))
        x, y = shapely.get_coordinates(polygons).T
        ax.plot(x, y, "o", color=color, ms=min(2, 1000 / max(height, width)))
        ax.tick_params(labelsize="x-small", length=2)
        counts = f"{counted(len(polygons), 'polygon')}, {vertices(polygons):,} vertices"
        ax.set_title(f"{title}: {counts}", fontsize="medium")
    return figure
