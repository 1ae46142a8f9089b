"""Reads maps of probabilities and frame fields from GeoTIFF, PNG and NumPy files."""

import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine, from_gcps
from rasterio.windows import Window

from classy_gc.polygons.arrays import InputError, as_frame, check_form, in_range, size_text
from classy_gc.polygons.frame_field import FrameField, from_channels
from classy_gc.polygons.ground import pixel_size

_IMAGES = (".tif", ".tiff", ".png")
_MAPS = (*_IMAGES, ".npy", ".npz")
_PIXELS = Affine.identity()
_UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)
_BESIDE = 0.1  # px by which two transforms of the same pixels may differ
_BENT = 0.5  # px by which ground control points may miss an affine transform


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
        """Height and width of a pixel in metres on the ground, None without a CRS."""
        return pixel_size(self.shape, self.transform, self.crs)


def open_map(path: str | Path, band: int | None = None) -> Map:
    """Opens a map of probabilities.

    Args:
        path: of a GeoTIFF or PNG (bytes 0–255; 16-bit PNG 0–65535; other integers with a scale that
            GDAL knows; floating point in [0, 1]; missing data count as 0), or of an array of shape
            ``[H, W]`` in [0, 1], a ``.npy`` or the only one in a ``.npz``. GeoTIFF and ``.npy`` are
            never read as a whole.
        band: number of the band of an image, from 1 (default: None, the only one that is not alpha)

    Raises:
        InputError: no such file, another format, several bands, integers without a scale, or a
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
        raise InputError(f"{path}: a map must be one of {', '.join(_MAPS)}")
    if suffix in _IMAGES:
        return _open_image(path, band)
    arrays = _arrays(path)
    if len(arrays) != 1:
        raise InputError(f"{path}: a map is one array, but this file has {list(arrays)}")
    (array,) = arrays.values()
    if band not in (None, 1):
        raise InputError(f"{path} is one array and has no band {band}")
    check_form(array, f"{path}: a map")

    def read(rows: slice, columns: slice) -> np.ndarray:
        return in_range(array[rows, columns], f"{path}: probabilities")

    return Map(path, array.shape, _PIXELS, None, read)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` by name, or that of a ``.npy``, which stays in the file."""
    try:
        loaded = np.load(path, mmap_mode="r")
        return {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except _UNREADABLE as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _open_image(path: Path, band: int | None) -> Map:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            source = rasterio.open(path)
        except RasterioError as error:
            raise InputError(f"{path} cannot be read: {error}") from error
    bands = [k for k in source.indexes if source.colorinterp[k - 1] != ColorInterp.alpha]
    if band is None and len(bands) == 1:
        band = bands[0]
    if band not in bands:
        choice = f"choose the map's with --band 1 to {bands[-1]}"
        choice += "" if band is None else f", not {band}"
        raise InputError(f"{path} has {len(bands)} bands, {choice}")
    one, offset, words = _scale(source, band)
    transform, crs = _place(source)
    masked = MaskFlags.alpha not in source.mask_flag_enums[band - 1]

    def read(rows: slice, columns: slice) -> np.ndarray:
        window = Window.from_slices((rows.start, rows.stop), (columns.start, columns.stop))
        size = tuple(len(range(s.start, s.stop, s.step or 1)) for s in (rows, columns))
        try:
            values = source.read(band, window=window, out_shape=size, masked=masked)
        except RasterioError as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        values = np.ma.filled(values * np.float32(one) + np.float32(offset), 0)
        return in_range(values, f"{path}: probabilities")

    return Map(path, source.shape, transform, crs, read, words)


def _scale(source: rasterio.DatasetReader, band: int) -> tuple[float, float, str]:
    """The factor and offset of the values, and both in words."""
    kind = np.dtype(source.dtypes[band - 1])
    scale, offset = source.scales[band - 1], source.offsets[band - 1]
    if (scale, offset) != (1, 0):
        return scale, offset, f"the file's scale is {scale:g}, its offset {offset:g}"
    if kind.kind == "f":
        return 1, 0, Map._field_defaults["scale"]
    bits = int(source.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", 8 * kind.itemsize))
    if kind != np.uint8 and source.driver != "PNG":
        raise InputError(
            f"{source.name} has {kind} without a scale; a map has bytes (0–255), floating point "
            f"(0–1), or a scale: `gdal_edit.py -scale 0.0001 {source.name}` sets it"
        )
    return 1 / (2**bits - 1), 0, f"{2**bits - 1} is taken for certain"


def _place(source: rasterio.DatasetReader) -> tuple[Affine, CRS | None]:
    """The transform to the CRS, fitted to ground control points if the file has no other."""
    points, crs = source.gcps
    if source.crs is not None or not points:
        placed = source.transform != _PIXELS or source.rpcs is not None
        if source.crs is None and placed:
            raise InputError(
                f"{source.name} is georeferenced, but has no CRS, which the output needs; "
                f"`rio edit-info --crs EPSG:… {source.name}` adds it"
            )
        return source.transform, source.crs
    transform = from_gcps(points)
    missed = [np.hypot(*np.subtract(~transform * (p.x, p.y), (p.col, p.row))) for p in points]
    if not max(missed) <= _BENT:
        raise InputError(
            f"{source.name} has ground control points that no affine transform fits (one is "
            f"{max(missed):.1f} px off); `gdalwarp` makes a raster with one"
        )
    return transform, crs


def open_frame_field(path: str | Path, shape: tuple[int, int]) -> FrameField:
    """Reads a frame field.

    Args:
        path: of an ``.npz`` with complex ``c0`` and ``c2`` of shape ``[H, W]``, or with one array
            of four channels: real and imaginary parts of c0, then of c2.
        shape: the shape it must have.

    Raises:
        InputError: no such file, other arrays, another shape, or values that are not finite.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "frame.npz")
        >>> np.savez(path, np.ones((4, 2, 3)))
        >>> open_frame_field(path, (2, 3)).c2.shape
        (2, 3)
    """
    arrays = _arrays(Path(path))
    if len(arrays) == 1:
        frame = from_channels(*arrays.values())
    elif arrays.keys() == {"c0", "c2"}:
        frame = FrameField(**arrays)
    else:
        raise InputError(f"{path} must hold c0 and c2, or four channels, not {list(arrays)}")
    return as_frame(frame, shape, f"the frame field {path}")


def check_same_place(edges: Map, interior: Map) -> None:
    """Refuses two maps that do not cover the same pixels.

    Raises:
        InputError: with both sizes, or with the number of pixels by which the maps are apart.
    """
    if not isinstance(edges, Map):
        kind = type(edges).__name__
        raise InputError(f"edges must come from open_map, as interior does, not {kind}")
    if edges.shape != interior.shape:
        raise InputError(
            f"{edges.path} is {size_text(edges.shape)}, {interior.path} "
            f"{size_text(interior.shape)} pixels"
        )
    if edges.crs is None or interior.crs is None:
        return
    if edges.crs != interior.crs:
        raise InputError(f"{edges.path} and {interior.path} are in different CRSs")
    height, width = interior.shape
    between = ~interior.transform * edges.transform
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    beside = max(np.hypot(*np.subtract(between * xy, xy)) for xy in corners)
    if not beside <= _BESIDE:
        raise InputError(f"{edges.path} lies {beside:.3g} px away from {interior.path}")
