"""Maps from GeoTIFF, PNG and NumPy files; polygons from and to what a GIS opens."""

from __future__ import annotations

import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyogrio.raw
import rasterio
import rasterio.warp
import shapely
from PIL import Image
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from classy_gc.polygons.frame_field import FrameField, from_channels

#: suffix: GDAL's name of the format
FORMATS = {
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".gpkg": "GPKG",
    ".shp": "ESRI Shapefile",
    ".fgb": "FlatGeobuf",
}
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


def check_output(path: str | Path, interior: Map) -> None:
    """Refuses what cannot be written, before anything is computed for it.

    Args:
        path: of the polygons.
        interior: whose CRS they will have.

    Raises:
        InputError: an unknown suffix, no folder, or a CRS that the format cannot name.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--output must end in one of {', '.join(FORMATS)}, not {str(path)!r}")
    if path.is_dir():
        raise InputError(f"--output {path} is a folder")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--output {path}: there is no writable folder {path.parent}")
    named = interior.crs is None or interior.crs.to_authority() is not None
    if FORMATS[path.suffix.lower()] == "GeoJSON" and not named:
        raise InputError(
            f"--output {path}: GeoJSON needs a CRS with a code, and that of {interior.path} has "
            "none; .gpkg, .shp and .fgb can hold it"
        )


def write_polygons(
    path: str | Path, polygons: np.ndarray, probability: np.ndarray, interior: Map
) -> None:
    """Writes polygons in the CRS of the map, else in its pixels.

    An older file is replaced once the new one is whole.

    Args:
        path: a suffix of ``FORMATS`` decides the format.
        polygons: in pixels, (x, y), the corner of the first pixel at (0, 0).
        probability: of each, the field ``mean_prob``.
        interior: the map that they were found in.
    """
    path = Path(path)
    placed = shapely.transform(polygons, lambda xy: _apply(interior.transform, xy))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            pyogrio.raw.write(
                Path(folder) / path.name,
                geometry=shapely.to_wkb(shapely.orient_polygons(placed)),
                field_data=[np.float64(probability).round(4)],
                fields=["mean_prob"],
                geometry_type="Polygon",
                crs=None if interior.crs is None else interior.crs.to_wkt(),
                driver=FORMATS[path.suffix.lower()],
            )
        for part in Path(folder).iterdir():
            part.replace(path.parent / part.name)


def _apply(transform: Affine, xy: np.ndarray) -> np.ndarray:
    a, b, c, d, e, f = transform[:6]
    x, y = xy.T
    return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)


def read_polygons(path: str | Path, interior: Map) -> np.ndarray:
    """Reads polygons and places them in the pixels of a map.

    Args:
        path: of anything that GDAL reads; its first layer.
        interior: the map.

    Returns:
        Of shapely, in (x, y); what lies outside the map is cut off, and several parts are several
        polygons.

    Raises:
        InputError: no such file, no polygons on the map, or a CRS that only one of them has.
    """
    try:
        meta, _, geometry, _ = pyogrio.raw.read(path, columns=[], force_2d=True)
    except (DataSourceError, DataLayerError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    polygons = shapely.from_wkb(geometry)
    crs = meta["crs"]
    if interior.crs is None:
        # GeoJSON has no way to say that its coordinates are pixels.
        if crs and Path(path).suffix.lower() not in (".geojson", ".json"):
            raise InputError(f"{path} is in {_short(crs)}, but {interior.path} has no CRS")
    elif not crs:
        raise InputError(f"{path} has no CRS, but {interior.path} is in {_short(interior.crs)}")
    elif CRS.from_user_input(crs) != interior.crs:
        polygons = shapely.transform(
            polygons,
            lambda xy: np.stack(rasterio.warp.transform(crs, interior.crs, *xy.T), axis=1),
        )
    polygons = shapely.transform(polygons, lambda xy: _apply(~interior.transform, xy))
    height, width = interior.shape
    polygons = shapely.intersection(shapely.make_valid(polygons), shapely.box(0, 0, width, height))
    polygons = shapely.get_parts(polygons)
    polygons = polygons[(shapely.get_type_id(polygons) == 3) & (shapely.area(polygons) > 0)]
    if not len(polygons):
        raise InputError(f"{path} has no polygons on {interior.path}")
    return polygons


def _short(crs: Any) -> str:
    authority = CRS.from_user_input(crs).to_authority()
    return ":".join(authority) if authority else "a CRS of its own"
