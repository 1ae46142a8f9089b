"""Polygons from lines: the faces between them that are buildings."""

import numpy as np
import rasterio.features
import shapely


def faces(
    lines: np.ndarray, interior: np.ndarray, threshold: float = 0.5, min_area: float = 10.0
) -> tuple[np.ndarray, np.ndarray]:
    """The faces between lines over which the map has a high mean.

    Lines are cut where they cross, so that neighbours share a wall to the last bit.

    Args:
        lines: shapely lines in (column, row).
        interior: probability of a building, shape ``[H, W]``.
        threshold: the least mean probability of a face (default: 0.5)
        min_area: smaller faces and holes are left out, in px² (default: 10)

    Returns:
        Shapely polygons in (x, y) = (column + ½, row + ½), to which the transform of a raster
        applies unchanged, and the mean probability of each; both of shape ``[n]``.

    Example:
        >>> ring = shapely.LinearRing([(-0.5, -0.5), (3.5, -0.5), (3.5, 3.5), (-0.5, 3.5)])
        >>> polygons, probability = faces(np.array([ring]), np.ones((8, 8)))
        >>> polygons[0].bounds, probability.tolist()
        ((0.0, 0.0, 4.0, 4.0), [1.0])
    """
    # Walls fitted on the image's border may end a little outside.
    size = np.array(interior.shape[::-1], float)
    lines = shapely.transform(lines, lambda xy: np.clip(xy + 0.5, 0, size))
    polygons = shapely.get_parts(shapely.polygonize(shapely.get_parts(shapely.union_all(lines))))
    polygons = polygons[shapely.area(polygons) >= min_area]
    if not len(polygons):
        return polygons, np.empty(0)
    numbered = zip(polygons, range(1, len(polygons) + 1), strict=True)
    face = rasterio.features.rasterize(numbered, interior.shape, dtype="int32")
    inside = face > 0
    face = face[inside] - 1
    total = np.bincount(face, interior[inside], len(polygons))
    mean = total / np.maximum(np.bincount(face, minlength=len(polygons)), 1)
    kept = mean > threshold
    return _without_small_holes(polygons[kept], min_area), mean[kept]


def _without_small_holes(polygons: np.ndarray, min_area: float) -> np.ndarray:
    for k in np.flatnonzero(shapely.get_num_interior_rings(polygons)):
        holes = [h for h in polygons[k].interiors if shapely.Polygon(h).area >= min_area]
        polygons[k] = shapely.Polygon(polygons[k].exterior, holes)
    return polygons
