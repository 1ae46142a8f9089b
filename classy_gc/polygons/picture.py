"""Draws the map with the outlines and their vertices, before and after the refinement."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely

from classy_gc.plots import COLORS, new_figure
from classy_gc.polygons.arrays import Buildings
from classy_gc.polygons.maps import Map
from classy_gc.polygons.metrics import vertices

_LARGEST = 1500  # largest edge of the map in the picture, in pixels
_DETAIL = 240  # px of the map along an edge of the detail
_AFTER, _BEFORE = COLORS[:2]


def picture(interior: Map, buildings: Buildings) -> Any:
    """The whole map and a detail of it, with the polygons before and after the refinement.

    Args:
        interior: the map.
        buildings: the map's, ``before`` included.

    Returns:
        A ``matplotlib`` Figure.
    """
    height, width = interior.shape
    full = (0, 0, width, height)
    detail = _busiest(buildings.polygons, width, height)
    panels = [full] if detail == full else [full, detail]
    ratios = [(y1 - y0) / (x1 - x0) for x0, y0, x1, y1 in panels]
    figure = new_figure(11, 5.4 * sum(ratios) + 0.7)
    axes = figure.subplots(
        len(panels), 2, squeeze=False, sharex="row", sharey="row", height_ratios=ratios
    )
    named = (
        (buildings.before, _BEFORE, "before: as traced, simplified"),
        (buildings.polygons, _AFTER, "after: refined, walls fitted"),
    )
    for row, (x0, y0, x1, y1) in zip(axes, panels, strict=True):
        step = max(1, -(-max(x1 - x0, y1 - y0) // _LARGEST))
        values = interior.read(slice(y0, y1, step), slice(x0, x1, step))
        is_detail = (x0, y0, x1, y1) != full
        for ax, (polygons, color, title) in zip(row, named, strict=True):
            ax.imshow(values, cmap="Greys", vmin=0, vmax=1.6, extent=(x0, x1, y1, y0))
            shown = polygons[shapely.intersects(polygons, shapely.box(x0, y0, x1, y1))]
            ax.set_xlim(x0, x1)
            ax.set_ylim(y1, y0)
            _draw(ax, shown, color, is_detail)
            ax.tick_params(labelsize="x-small", length=2)
            if not is_detail:
                counts = f"{len(polygons):,} polygons, {vertices(polygons):,} vertices"
                ax.set_title(f"{title}: {counts}", fontsize="medium")
                if detail != full:
                    left, top, right, bottom = detail
                    xs, ys = [left, right, right, left, left], [top, top, bottom, bottom, top]
                    ax.plot(xs, ys, color="black", linewidth=0.9, linestyle=(0, (4, 2)))
    return figure


def _draw(ax: Any, polygons: np.ndarray, color: str, is_detail: bool) -> None:
    from matplotlib.collections import LineCollection

    rings = shapely.get_rings(polygons)
    lines = [shapely.get_coordinates(ring) for ring in rings]
    ax.add_collection(LineCollection(lines, colors=color, linewidths=1.6 if is_detail else 0.8))
    if lines:
        x, y = np.concatenate([line[:-1] for line in lines]).T
        size = 4.5 if is_detail else min(2, 1000 / max(*ax.get_xlim(), *ax.get_ylim()))
        ax.plot(x, y, "o", color="white" if is_detail else color, mec=color, ms=size)


def _busiest(polygons: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """The box of the detail: where most vertices are, or all of a small map."""
    if max(width, height) <= 1.5 * _DETAIL:
        return 0, 0, width, height
    size = min(_DETAIL, width), min(_DETAIL, height)
    half = _DETAIL // 2
    xy = (shapely.get_coordinates(polygons) / half).astype(int)
    count = np.zeros((width // half + 2, height // half + 2), int)
    np.add.at(count, tuple(xy.clip(0, np.array(count.shape) - 1).T), 1)
    # Sums over 2×2 cells, since a detail is two cells wide.
    four = count[:-1, :-1] + count[1:, :-1] + count[:-1, 1:] + count[1:, 1:]
    column, row = np.unravel_index(four.argmax(), four.shape)
    left, top = min(column * half, width - size[0]), min(row * half, height - size[1])
    return int(left), int(top), int(left + size[0]), int(top + size[1])
