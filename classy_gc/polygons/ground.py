"""The size of pixels on the ground, and maps resampled to square pixels."""

import numpy as np
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.transform import Affine
from scipy import ndimage

from classy_gc.polygons.arrays import InputError
from classy_gc.polygons.frame_field import FrameField, directions, from_directions

_SQUARE = 0.01  # relative difference allowed between the edges of a square pixel


def pixel_size(shape: tuple[int, int], transform: Affine, crs: CRS | None) -> tuple | None:
    """Height and width of the pixel in the middle of a map.

    Args:
        shape: of the map.
        transform: from (x, y) in pixels to the CRS.
        crs: of the map, or None for a map in pixels.

    Returns:
        Metres on the ground; None without a CRS, or where the CRS gives none, as at a pole.

    Example:
        >>> at_60_degrees = Affine(1e-5, 0, 25, 0, -1e-5, 60)
        >>> [round(x, 3) for x in pixel_size((2, 2), at_60_degrees, CRS.from_epsg(4326))]
        [1.114, 0.558]
    """
    if crs is None:
        return None
    x, y = shape[1] / 2, shape[0] / 2
    xs, ys = np.transpose([transform * xy for xy in ((x, y), (x, y + 1), (x + 1, y))])
    try:
        to_degrees = Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
        east, north = to_degrees.transform(xs, ys, errcheck=True)
    except ProjError:
        return None
    middle = [east[0]] * 2, [north[0]] * 2
    height, width = Geod(ellps="WGS84").inv(*middle, east[1:], north[1:])[2].tolist()
    return (height, width) if 0 < height < np.inf and 0 < width < np.inf else None


def to_square(size: tuple[float, float] | None) -> np.ndarray:
    """How many square pixels replace a pixel, down and across; the shorter edge stays.

    Example:
        >>> to_square((1.0, 0.5)).tolist(), to_square((1.0, 1.001)).tolist()
        ([2.0, 1.0], [1.0, 1.0])
    """
    if size is None or max(size) <= (1 + _SQUARE) * min(size):
        return np.ones(2)
    return np.array(size) / min(size)


def in_pixels(
    value: float | str, size: tuple[float, float] | None, power: int, pixels: float = 1.0
) -> float:
    """Converts a length or an area to square pixels.

    Args:
        value: in pixels of the map, or in metres as text that ends in ``m``.
        size: from :func:`pixel_size`.
        power: 1 for a length, 2 for an area.
        pixels: how many square pixels replace one of the map (default: 1)

    Raises:
        InputError: other text, or metres for a map without a CRS.

    Example:
        >>> in_pixels("0.5m", (0.25, 0.25), 1), in_pixels(10, None, 2)
        (2.0, 10.0)
    """
    try:
        number = float(str(value).removesuffix("m"))
    except ValueError:
        raise InputError(f"{value!r} must be a number of pixels, or metres like '0.5m'") from None
    if not str(value).endswith("m"):
        return number * float(pixels)
    if size is None:
        raise InputError(f"{value}: metres need a map with a CRS; give it in pixels")
    return number / min(size) ** power


def square_map(values: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """The map resampled to the square pixels of :func:`to_square`, bilinearly."""
    if (ratio == 1).all():
        return values
    return ndimage.zoom(values, ratio, order=1, mode="nearest", grid_mode=True)


def square_frame(frame: FrameField, ratio: np.ndarray) -> FrameField:
    """The frame field on the pixels of :func:`square_map`, with its directions adapted."""
    if (ratio == 1).all():
        return frame
    turned = []
    for w in directions(frame):
        z = w.real * ratio[0] + 1j * w.imag * ratio[1]
        turned.append(z * np.abs(w) / np.maximum(np.abs(z), 1e-9))
    return FrameField(*(square_map(c, ratio) for c in from_directions(*turned)))
