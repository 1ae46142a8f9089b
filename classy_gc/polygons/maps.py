"""Maps of probabilities: arrays from outside, and files that are read in pieces."""

import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import torch
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine, from_gcps
from rasterio.windows import Window

from classy_gc.table import counted

_IMAGES = (".tif", ".tiff", ".png")
_MAPS = (*_IMAGES, ".npy", ".npz")
_PIXELS = Affine.identity()
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
_ROUNDING = 1e-3  # by which a probability may miss [0, 1]
_BESIDE = 0.1  # px by which two transforms of the same pixels may differ
_BENT = 0.5  # px by which ground control points may miss an affine transform


def as_array(values: Any) -> np.ndarray:
    """A NumPy array made from an array, a tensor of any device and precision, or lists.

    Masked elements become 0.

    Example:
        >>> as_array(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)).tolist()
        [1.0, 1.0]
        >>> as_array(np.ma.masked_greater([1, 2, 3], 2)).tolist()
        [1, 2, 0]
    """
    if isinstance(values, torch.Tensor):
        values = values.float() if values.dtype == torch.bfloat16 else values
        values = values.numpy(force=True)
    return np.ascontiguousarray(np.ma.filled(values, 0))


def as_map(values: Any, name: str = "interior", shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A map of probabilities as an array of float32.

    Args:
        values: anything that :func:`as_array` takes, shape ``[H, W]``, in [0, 1]. Values outside by
            less than 0.001 are clipped, since rounding explains them.
        name: what messages call the map (default: ``"interior"``)
        shape: the shape it must have (default: None, any)

    Raises:
        ValueError: another shape, other numbers, NaN, or values outside the range.

    Example:
        >>> as_map([[0, 0.5], [1, 1.0000002]]).tolist()
        [[0.0, 0.5], [1.0, 1.0]]
    """
    try:
        values = as_array(values)
    except ValueError as error:  # lists of unequal length
        raise ValueError(f"{name} must be one array [height, width]: {error}") from error
    check_form(values, name)
    if shape is not None:
        check_size(name, values.shape, "interior", shape)
    return in_range(values, name)


def check_form(values: np.ndarray, name: str) -> None:
    """Refuses an array whose shape or kind of numbers cannot be a map's; see :func:`as_map`."""
    if values.ndim != 2 or not values.size or values.dtype.kind not in "buif":
        found = f"not {list(values.shape)} and {values.dtype}"
        raise ValueError(f"{name} must have the shape [height, width] and real numbers, {found}")


def in_range(values: np.ndarray, name: str) -> np.ndarray:
    """Probabilities as float32; see :func:`as_map`."""
    values = np.array(values, np.float32)  # a copy: torch warns of memory that is read-only
    low, high = values.min(), values.max()
    if np.isnan(low):
        raise ValueError(f"{name} must lie in [0, 1], but some values are NaN")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ValueError(f"{name} must lie in [0, 1], not from {low:g} to {high:g}")
    return values.clip(0, 1) if low < 0 or high > 1 else values


def check_size(name: str, shape: tuple[int, ...], other: str, expected: tuple[int, ...]) -> None:
    """Refuses an array that has not the shape of another one.

    Args:
        name: what the message calls the array.
        shape: of the array, in pixels.
        other: what the message calls the other one.
        expected: the shape of that one.

    Raises:
        ValueError: with both names and shapes.
    """
    if shape != tuple(expected):
        ours, its = ("×".join(map(str, x)) for x in (shape, expected))
        raise ValueError(f"{name} is {ours}, {other} {its} pixels")


class Map(NamedTuple):
    """A map of probabilities that is read in pieces.

    Attributes:
        path: of the file.
        shape: height and width in pixels.
        transform: from (x, y) in pixels, with the corner of the first pixel at (0, 0), to the CRS.
        crs: of the file, or None if coordinates are pixels.
        read: ``read(rows, columns)`` takes two slices, which may have a step, and returns float32
            in [0, 1].
        scale: says in words which value of the file means a probability of 1.
    """

    path: Path
    shape: tuple[int, int]
    transform: Affine
    crs: CRS | None
    read: Callable[[slice, slice], np.ndarray]
    scale: str = "1 is taken for certain"

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """Height and width of the pixel in the middle, in metres on the ground.

        None without a CRS, or where the CRS gives none, as at a pole.
        """
        if self.crs is None:
            return None
        x, y = self.shape[1] / 2, self.shape[0] / 2
        xs, ys = np.transpose([self.transform * xy for xy in ((x, y), (x, y + 1), (x + 1, y))])
        try:
            to_degrees = Transformer.from_crs(self.crs.to_wkt(), "EPSG:4326", always_xy=True)
            east, north = to_degrees.transform(xs, ys, errcheck=True)
        except ProjError:
            return None
        middle = [east[0]] * 2, [north[0]] * 2
        height, width = Geod(ellps="WGS84").inv(*middle, east[1:], north[1:])[2].tolist()
        return (height, width) if 0 < height < np.inf and 0 < width < np.inf else None


def open_map(path: str | Path, band: int | None = None) -> Map:
    """Opens a map of probabilities.

    Args:
        path: of a GeoTIFF or PNG (bytes 0–255; 16-bit PNG 0–65535; other integers with a scale that
            GDAL knows; floating point in [0, 1]; missing data count as 0), or of an array of shape
            ``[H, W]`` in [0, 1], a ``.npy`` or the only one in a ``.npz``. GeoTIFF and ``.npy`` are
            never read as a whole.
        band: number of the band of an image, from 1 (default: None, the only one that is not alpha)

    Raises:
        ValueError: no such file, another format, several bands, integers without a scale, or a
            georeference without a CRS; ``read`` raises it for values outside the range.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "map.npy")
        >>> np.save(path, np.eye(3))
        >>> open_map(path).read(slice(0, 1), slice(0, 3)).tolist()
        [[1.0, 0.0, 0.0]]
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _MAPS:
        raise ValueError(f"{path}: a map must be one of {', '.join(_MAPS)}")
    if suffix in _IMAGES:
        return _open_image(path, band)
    arrays = load_arrays(path)
    if len(arrays) != 1:
        raise ValueError(f"{path}: a map is one array, but this file has {list(arrays)}")
    (array,) = arrays.values()
    if band not in (None, 1):
        raise ValueError(f"{path} is one array and has no band {band}")
    check_form(array, f"{path}: a map")

    def read(rows: slice, columns: slice) -> np.ndarray:
        return in_range(array[rows, columns], f"{path}: probabilities")

    return Map(path, array.shape, _PIXELS, None, read)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` by name, or that of a ``.npy``, which stays in the file.

    Args:
        path: of the file.

    Raises:
        ValueError: no such file, or one that NumPy cannot read.
    """
    try:
        loaded = np.load(path, mmap_mode="r")
        return {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except _UNREADABLE as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _open_image(path: Path, band: int | None) -> Map:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            source = rasterio.open(path)
        except RasterioError as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
    bands = [k for k in source.indexes if source.colorinterp[k - 1] != ColorInterp.alpha]
    if not bands:
        raise ValueError(f"{path} has no band but alpha")
    if band is None and len(bands) == 1:
        band = bands[0]
    if band not in bands:
        asked = "" if band is None else f", not {band}"
        choice = f"choose the map's with --band 1 to {bands[-1]}{asked}"
        raise ValueError(f"{path} has {counted(len(bands), 'band')}, {choice}")
    one, offset, words = _scale(source, band)
    masked = MaskFlags.alpha not in source.mask_flag_enums[band - 1]

    def read(rows: slice, columns: slice) -> np.ndarray:
        window = Window.from_slices((rows.start, rows.stop), (columns.start, columns.stop))
        size = tuple(len(range(s.start, s.stop, s.step or 1)) for s in (rows, columns))
        try:
            values = source.read(band, window=window, out_shape=size, masked=masked)
        except RasterioError as error:
            raise ValueError(f"{path} cannot be read: {error.__cause__ or error}") from error
        values = np.ma.filled(values * np.float32(one) + np.float32(offset), 0)
        return in_range(values, f"{path}: probabilities")

    return Map(path, source.shape, *_place(source), read, words)


def _scale(source: rasterio.DatasetReader, band: int) -> tuple[float, float, str]:
    """The factor and offset of the values, and both in words."""
    kind = np.dtype(source.dtypes[band - 1])
    scale, offset = source.scales[band - 1], source.offsets[band - 1]
    if (scale, offset) != (1, 0):
        return scale, offset, f"the file's scale is {scale:g}, its offset {offset:g}"
    if kind.kind == "f":
        return 1, 0, "1 is taken for certain"
    bits = int(source.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", 8 * kind.itemsize))
    if kind != np.uint8 and source.driver != "PNG":
        allowed = "bytes (0–255), floating point (0–1), or a scale"
        remedy = f"`gdal_edit.py -scale 0.0001 {source.name}` sets one"
        raise ValueError(f"{source.name} has {kind} without a scale; a map has {allowed}: {remedy}")
    return 1 / (2**bits - 1), 0, f"{2**bits - 1} is taken for certain"


def _place(source: rasterio.DatasetReader) -> tuple[Affine, CRS | None]:
    """The transform to the CRS, fitted to ground control points if the file has no other."""
    points, crs = source.gcps
    if source.crs is None and points:
        transform = from_gcps(points)
        missed = [np.hypot(*np.subtract(~transform * (p.x, p.y), (p.col, p.row))) for p in points]
        if not max(missed) <= _BENT:
            off = f"one is {max(missed):.1f} px off; `gdalwarp` mends it"
            raise ValueError(f"no affine transform fits the control points of {source.name}: {off}")
        return transform, crs
    if source.crs is None and (source.transform != _PIXELS or source.rpcs is not None):
        advice = f"which the output needs; `rio edit-info --crs EPSG:… {source.name}` adds it"
        raise ValueError(f"{source.name} is georeferenced, but has no CRS, {advice}")
    return source.transform, source.crs


def check_same_place(edges: Map, interior: Map) -> None:
    """Refuses two maps that do not cover the same pixels.

    Raises:
        ValueError: with both sizes, or with the number of pixels by which the maps are apart.
    """
    if not isinstance(edges, Map):
        raise ValueError(f"edges must come from open_map, not {type(edges).__name__}")
    check_size(str(edges.path), edges.shape, str(interior.path), interior.shape)
    if edges.crs is None or interior.crs is None:
        return
    if edges.crs != interior.crs:
        raise ValueError(f"{edges.path} and {interior.path} are in different CRSs")
    height, width = interior.shape
    between = ~interior.transform * edges.transform
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    beside = max(np.hypot(*np.subtract(between * xy, xy)) for xy in corners)
    if not beside <= _BESIDE:
        raise ValueError(f"{edges.path} lies {beside:.3g} px away from {interior.path}")


def in_pixels(
    name: str, value: float | str, size: tuple[float, float] | None, power: int, pixels: float = 1.0
) -> float:
    """Converts a length or an area to square pixels.

    Args:
        name: what messages call the value.
        value: in pixels of the map, or in metres as text that ends in ``m``.
        size: ``Map.pixel_size``.
        power: 1 for a length, 2 for an area.
        pixels: how many square pixels replace one of the map (default: 1)

    Raises:
        ValueError: other text, or metres for a map without a CRS.

    Example:
        >>> in_pixels("tolerance", "0.5m", (0.25, 0.25), 1), in_pixels("min_area", 10, None, 2)
        (2.0, 10.0)
    """
    try:
        number = float(str(value).removesuffix("m"))
    except ValueError:
        allowed = "a number of pixels, or metres like '0.5m'"
        raise ValueError(f"{name} must be {allowed}, not {value!r}") from None
    if not str(value).endswith("m"):
        return number * float(pixels)
    if size is None:
        raise ValueError(f"{name} {value}: metres need a map with a CRS; give it in pixels")
    return number / min(size) ** power
