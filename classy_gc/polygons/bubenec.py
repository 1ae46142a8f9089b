"""The example: footprints of Bubeneč, rasterized, degraded and refined again."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pyogrio
import rasterio.features
import rasterio.warp
import shapely
from rasterio.transform import Affine
from scipy import ndimage

CRS = "EPSG:32633"
_FINER = 4


def footprints() -> np.ndarray:
    spec = importlib.util.find_spec("momepy")
    file = Path(spec.origin).parent / "datasets" / "bubenec.gpkg"
    info, _, geometry, _ = pyogrio.raw.read(file, layer="buildings")

    def to_utm(xy):
        return np.stack(rasterio.warp.transform(info["crs"], CRS, *xy.T), axis=1)

    return shapely.transform(shapely.from_wkb(geometry), to_utm)


def _filled(geometries, shape):
    """How much of each pixel is covered."""
    finer = rasterio.features.rasterize(
        geometries, [n * _FINER for n in shape], transform=Affine.scale(1 / _FINER)
    )
    return finer.reshape(shape[0], _FINER, shape[1], _FINER).mean((1, 3), dtype=np.float32)


def degrade(polygons, shape, seed, field=1.0, correlation=4.0, blur=2.0, noise=0.05, wall=2.5):
    """polygons in pixels"""
    random = np.random.default_rng(seed)

    def smooth():
        x = ndimage.gaussian_filter(random.standard_normal(shape), correlation, mode="wrap")
        return field * x / x.std()

    moved = np.indices(shape) + np.stack([smooth(), smooth()])

    def degraded(x):
        x = ndimage.map_coordinates(x, moved, order=1, mode="nearest")
        x = ndimage.gaussian_filter(x, blur, mode="nearest")
        return np.clip(x + noise * random.standard_normal(shape), 0, 1).astype(np.float32)

    interior = degraded(_filled(polygons, shape))
    walls = shapely.buffer(shapely.boundary(polygons), wall)
    return interior, degraded(_filled(walls, shape))
