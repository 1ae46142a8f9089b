"""Outlines of buildings, refined with the GC optimizers until they follow a map.

Needs the packages of ``pip install 'classy-gc[polygons]'``.
"""

from classy_gc.polygons.buildings import Buildings, polygonize, polygonize_map
from classy_gc.polygons.energy import Weights
from classy_gc.polygons.files import write_polygons
from classy_gc.polygons.frame_field import (
    FrameField,
    directions,
    from_channels,
    from_directions,
    from_map,
)
from classy_gc.polygons.graph import Graph, resample
from classy_gc.polygons.maps import open_map
from classy_gc.polygons.metrics import measure
from classy_gc.polygons.optimizers import TensorPolyOptimizer, TensorSkeletonOptimizer
from classy_gc.polygons.outlines import contours, skeleton

__all__ = [
    "Buildings",
    "FrameField",
    "Graph",
    "TensorPolyOptimizer",
    "TensorSkeletonOptimizer",
    "Weights",
    "contours",
    "directions",
    "from_channels",
    "from_directions",
    "from_map",
    "measure",
    "open_map",
    "polygonize",
    "polygonize_map",
    "resample",
    "skeleton",
    "write_polygons",
]
