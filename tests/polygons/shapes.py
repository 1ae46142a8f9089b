"""Maps with known outlines."""

import numpy as np
import rasterio.features
import shapely
from rasterio.transform import Affine
from scipy import ndimage

SHAPE = (120, 160)
FINER = 8


def rendered(polygons, shape=SHAPE, blur=1.0):
    """The map of polygons in (x, y), where the first pixel has its corner at (0, 0)."""
    finer = rasterio.features.rasterize(
        np.atleast_1d(polygons), [n * FINER for n in shape], transform=Affine.scale(1 / FINER)
    )
    covered = finer.reshape(shape[0], FINER, shape[1], FINER).mean(axis=(1, 3), dtype=np.float32)
    return ndimage.gaussian_filter(covered, blur)


def rectangle(degrees=0, width=80, height=40, centre=(80, 60)):
    box = shapely.box(-width / 2, -height / 2, width / 2, height / 2)
    turned = shapely.affinity.rotate(box, degrees, origin=(0, 0))
    return shapely.affinity.translate(turned, *centre)


#: Two rooms with a common wall, the left with a courtyard, and the map of the walls.
ROOMS = (
    shapely.Polygon(
        [(20, 20), (80, 20), (80, 100), (20, 100)], [[(40, 45), (60, 45), (60, 75), (40, 75)]]
    ),
    shapely.box(80, 20, 140, 100),
)


def rooms():
    walls = [shapely.boundary(room).buffer(1.5) for room in ROOMS]
    return rendered(shapely.union_all(ROOMS)), rendered(walls)
