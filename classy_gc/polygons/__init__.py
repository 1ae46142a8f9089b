"""Outlines of buildings, refined with the GC optimizers until they follow a map."""

from classy_gc.polygons.frame_field import (
    FrameField,
    directions,
    from_channels,
    from_directions,
    from_map,
)
from classy_gc.polygons.graph import Graph, resample
from classy_gc.polygons.optimizers import TensorPolyOptimizer, TensorSkeletonOptimizer
from classy_gc.polygons.outlines import contours, skeleton, trace
