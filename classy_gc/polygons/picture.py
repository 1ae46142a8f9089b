"""Draws the map with the outlines and their vertices, before and after the refinement."""

from typing import Any

import shapely

from classy_gc.plots import COLORS, new_figure
from classy_gc.polygons.buildings import Buildings
from classy_gc.polygons.maps import Map
from classy_gc.polygons.metrics import vertices

_LARGEST = 1500  # largest edge of the map in the picture, in pixels
_AFTER, _BEFORE = COLORS[:2]


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
        (buildings.before, _BEFORE, "before: as traced, simplified"),
        (buildings.polygons, _AFTER, "after: refined, walls fitted"),
    )
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, (polygons, color, title) in zip(axes, named, strict=True):
        ax.imshow(values, cmap="Greys", vmin=0, vmax=1.6, extent=(0, width, height, 0))
        lines = [shapely.get_coordinates(ring) for ring in shapely.get_rings(polygons)]
        ax.add_collection(LineCollection(lines, colors=color, linewidths=0.8))
        x, y = shapely.get_coordinates(polygons).T
        ax.plot(x, y, "o", color=color, ms=min(2, 1000 / max(height, width)))
        ax.tick_params(labelsize="x-small", length=2)
        counts = f"{len(polygons):,} polygons, {vertices(polygons):,} vertices"
        ax.set_title(f"{title}: {counts}", fontsize="medium")
    return figure
