"""Maps of probabilities and frame fields, from GeoTIFF, PNG and NumPy files."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
import rasterio.warp
from PIL import Image
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from classy_gc.polygons.frame_field import FrameField, from_channels

_MAPS = (".tif", ".tiff", ".png", ".npy", ".npz")
_PIXELS = Affine.identity()
_UNREADABLE = (RasterioError, OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


class InputError(ValueError):
    """What a file or option is at fault for, in one line."""


class Map(NamedTuple):
    """A map of probabilities that is read piece by piece.

    Attributes:
        path: of the file.
        shape: height and width in pixels.
        transform: from (x, y) in pixels, the corner of the first pixel at (0, 0), to the CRS.
        crs: of the file, or None: coordinates are pixels.
        read: ``read(rows, columns)``, two slices with a step, gives float32 in [0, 1].
    """

    path: Path
    shape: tuple[int, int]
    transform: Affine
    crs: CRS | None
    read: Callable[[slice, slice], np.ndarray]


def open_map(path: str | Path) -> Map:
    """Opens a map of probabilities.

    Args:
        path: of a GeoTIFF of one band (bytes 0–255, or floating point in [0, 1]; what is no data
            is 0), a grey PNG (0–255), or an array of shape ``[H, W]`` in [0, 1], ``.npy`` or the
            only one of an ``.npz``. GeoTIFF and ``.npy`` are never read as a whole.

    Raises:
        InputError: no such file, another format, several bands, or a transform without a CRS; and
            at ``read``, values outside the range.

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
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    try:
        if suffix in (".tif", ".tiff"):
            return _open_tiff(path)
        if suffix == ".png":
            with Image.open(path) as image:
                if image.mode not in ("1", "L"):
                    raise InputError(
                        f"{path}: a map has one band of bytes, this PNG has {image.mode}"
                    )
                array = np.asarray(image.convert("L"))
            return _of_array(path, array, 255)
        # Unlike np.load it takes no other format of NumPy for a .npy.
        array = np.lib.format.open_memmap(path, "r") if suffix == ".npy" else _only_array(path)
    except _UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read: {error}") from error
    return _of_array(path, array, 1)


def _only_array(path: Path) -> np.ndarray:
    arrays = _npz(path)
    if len(arrays) != 1:
        raise InputError(f"{path}: a map is one array, this file has {list(arrays)}")
    return arrays.popitem()[1]


def _npz(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no .npz, or not a whole one")
    with np.load(path) as arrays:
        return dict(arrays)


def _of_array(path: Path, array: np.ndarray, scale: float) -> Map:
    if array.ndim != 2 or not array.size or array.dtype.kind not in "buif":
        raise InputError(
            f"{path}: a map has the shape [height, width] and real numbers, not "
            f"{list(array.shape)} and {array.dtype}"
        )

    def read(rows: slice, columns: slice) -> np.ndarray:
        return _checked(path, np.float32(array[rows, columns]) / np.float32(scale))

    return Map(path, array.shape, _PIXELS, None, read)


def _open_tiff(path: Path) -> Map:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        source = rasterio.open(path)
    if source.count != 1:
        raise InputError(f"{path}: a map has one band, this GeoTIFF has {source.count}")
    kind = np.dtype(source.dtypes[0])
    if kind != np.uint8 and kind.kind != "f":
        raise InputError(f"{path}: a map has bytes (0–255) or floating point (0–1), not {kind}")
    if source.crs is None and source.transform != _PIXELS:
        raise InputError(
            f"{path} is georeferenced, but in no CRS, which the output needs; "
            f"`rio edit-info --crs EPSG:… {path}` adds it"
        )
    scale = np.float32(255 if kind == np.uint8 else 1)

    def read(rows: slice, columns: slice) -> np.ndarray:
        window = Window.from_slices((rows.start, rows.stop), (columns.start, columns.stop))
        size = tuple(len(range(s.start, s.stop, s.step or 1)) for s in (rows, columns))
        try:
            values = source.read(1, window=window, out_shape=size, masked=True)
        except RasterioError as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        return _checked(path, np.float32(values.filled(0)) / scale)

    return Map(path, source.shape, source.transform, source.crs, read)


def _checked(path: Path, values: np.ndarray) -> np.ndarray:
    if np.isnan(values).any():
        raise InputError(f"{path}: probabilities must lie in [0, 1], some are NaN")
    if values.min(initial=0) < 0 or values.max(initial=0) > 1:
        raise InputError(
            f"{path}: probabilities must lie in [0, 1], not from {values.min():g} to "
            f"{values.max():g}"
        )
    return values


def open_frame_field(path: str | Path, shape: tuple[int, int]) -> FrameField:
    """Reads a frame field.

    Args:
        path: of an ``.npz`` with complex ``c0`` and ``c2`` of shape ``[H, W]``, or with one array
            of four channels: real and imaginary part of c0, then of c2.
        shape: that it must have.

    Raises:
        InputError: no such file, other arrays, another shape, or values that are not finite.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "frame.npz")
        >>> np.savez(path, np.ones((4, 2, 3)))
        >>> open_frame_field(path, (2, 3)).c2.shape
        (2, 3)
    """
    path = Path(path)
    try:
        arrays = _npz(path)
        if arrays.keys() == {"c0", "c2"}:
            channels = (arrays["c0"], arrays["c2"])
        elif len(arrays) == 1:
            channels = from_channels(arrays.popitem()[1])
        else:
            raise ValueError(f"it must hold c0 and c2, or four channels, not {list(arrays)}")
        frame = FrameField(*(c.astype(np.complex64) for c in channels))
    except _UNREADABLE as error:
        raise InputError(f"the frame field {path} cannot be read: {error}") from error
    for c in frame:
        if c.shape != tuple(shape):
            raise InputError(
                f"the frame field {path} is {_size(c.shape)}, the map {_size(shape)} pixels"
            )
        if not np.isfinite(c).all():
            raise InputError(f"the frame field {path} has values that are not finite")
    return frame


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def check_same_size(edges: Map, interior: Map) -> None:
    """Refuses two maps that do not lie on each other.

    Raises:
        InputError: naming both sizes, or both files where they are georeferenced otherwise.
    """
    if edges.shape != interior.shape:
        raise InputError(
            f"{edges.path} is {_size(edges.shape)}, {interior.path} {_size(interior.shape)} pixels"
        )
    both = edges.crs is not None and interior.crs is not None
    if both and not (
        edges.crs == interior.crs and edges.transform.almost_equals(interior.transform)
    ):
        raise InputError(f"{edges.path} and {interior.path} are georeferenced otherwise")
