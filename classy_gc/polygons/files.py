"""Reads and writes polygons in the formats of a GIS."""

from __future__ import annotations

import os
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyogrio.raw
import rasterio.warp
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.transform import Affine

from classy_gc.polygons.arrays import Buildings, InputError
from classy_gc.polygons.maps import Map

#: GDAL's name of the format of each suffix.
FORMATS = {
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".gpkg": "GPKG",
    ".shp": "ESRI Shapefile",
    ".fgb": "FlatGeobuf",
    ".parquet": "GeoParquet",
}
# Files that may lie beside a shapefile, besides those that are always written.
_BESIDE_SHAPES = (".prj", ".cpg", ".qix", ".qpj", ".sbn", ".sbx", ".shp.xml")


def check_output(path: str | Path, interior: Map) -> None:
    """Refuses an output file that cannot be written, before anything is computed.

    Args:
        path: of the output file.
        interior: the map whose CRS the polygons will have.

    Raises:
        InputError: an unknown suffix, no folder, a GeoPackage that holds other layers, or a CRS
            that the format cannot name.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--output must end in one of {', '.join(FORMATS)}, not {str(path)!r}")
    if path.suffix.lower() == ".parquet" and not all(map(find_spec, ("geopandas", "pyarrow"))):
        raise InputError(f"--output {path} needs more packages: pip install geopandas pyarrow")
    if path.is_dir():
        raise InputError(f"--output {path} is a folder")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--output {path}: there is no writable folder {path.parent}")
    if FORMATS[path.suffix.lower()] == "GPKG" and path.exists():
        try:
            others = [name for name, _ in pyogrio.list_layers(path) if name != path.stem]
        except (DataSourceError, DataLayerError):
            raise InputError(f"--output {path} exists, but is not a GeoPackage") from None
        if others:
            raise InputError(
                f"--output {path} holds other layers, which would be lost: {', '.join(others)}"
            )
    named = interior.crs is None or interior.crs.to_authority() is not None
    if FORMATS[path.suffix.lower()] == "GeoJSON" and not named:
        raise InputError(
            f"--output {path}: GeoJSON needs a CRS with a code, and that of {interior.path} has "
            "none; .gpkg, .shp and .fgb can hold it"
        )


def attributes(
    polygons: np.ndarray, probability: np.ndarray, interior: Map
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Polygons in the CRS of a map, and the attributes of each.

    Args:
        polygons: in pixels, (x, y), with the corner of the first pixel at (0, 0).
        probability: of each polygon.
        interior: the map that they were found in.

    Returns:
        The polygons, where those that the transform made invalid are repaired and those that
        collapsed are left out; and ``id``, from 1, ``mean_prob``, ``area`` and ``perimeter``, in
        metres on the ground, or in pixels without a CRS.
    """
    height, width = interior.pixel_size or (1.0, 1.0)
    there = shapely.transform(polygons, lambda xy: _apply(interior.transform, xy))
    there, index = shapely.get_parts(shapely.make_valid(there), return_index=True)
    kept = (shapely.get_type_id(there) == 3) & (shapely.area(there) > 0)
    there, index = shapely.orient_polygons(there[kept]), index[kept]
    ground = shapely.transform(np.asarray(polygons)[index], lambda xy: xy * [width, height])
    return there, {
        "id": np.arange(1, len(index) + 1),
        "mean_prob": np.float64(probability)[index].round(4),
        "area": shapely.area(ground).round(3),
        "perimeter": shapely.length(ground).round(3),
    }


def placed(polygons: np.ndarray, probability: np.ndarray, interior: Map) -> Any:
    """What :func:`attributes` returns, as a GeoDataFrame, or as ``Buildings`` without geopandas."""
    found, columns = attributes(polygons, probability, interior)
    if find_spec("geopandas") is None:
        return Buildings(found, columns["mean_prob"], None)
    import geopandas

    return geopandas.GeoDataFrame(columns, geometry=found, crs=interior.crs)


def write_polygons(
    path: str | Path, polygons: np.ndarray, probability: np.ndarray, interior: Map
) -> int:
    """Writes polygons in the CRS of the map, else in its pixels.

    An existing file is replaced once the new one is complete.

    Args:
        path: of the file; its suffix, one of ``FORMATS``, decides the format.
        polygons: in pixels, (x, y), the corner of the first pixel at (0, 0).
        probability: of each polygon, written as ``mean_prob``.
        interior: the map that they were found in.

    Returns:
        How many polygons it wrote; the transform may make one collapse.

    Raises:
        InputError: the file cannot be written; the message says why.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            count = _write(Path(folder) / path.name, polygons, probability, interior)
            parts = list(Path(folder).iterdir())
            for part in parts:
                part.replace(path.parent / part.name)
    except (OSError, RuntimeError) as error:  # pyogrio raises RuntimeError
        raise InputError(f"{path} cannot be written: {error}") from error
    if path.suffix.lower() == ".shp":  # a GIS would read the old file's index or CRS with it
        written = {part.name for part in parts}
        for suffix in _BESIDE_SHAPES:
            beside = path.with_suffix(suffix)
            if beside.name not in written:
                beside.unlink(missing_ok=True)
    return count


def _write(path: Path, polygons: np.ndarray, probability: np.ndarray, interior: Map) -> int:
    if path.suffix.lower() == ".parquet":
        frame = placed(polygons, probability, interior)
        frame.to_parquet(path)
        return len(frame)
    there, columns = attributes(polygons, probability, interior)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        pyogrio.raw.write(
            path,
            geometry=shapely.to_wkb(there),
            field_data=list(columns.values()),
            fields=list(columns),
            geometry_type="Polygon",
            crs=None if interior.crs is None else interior.crs.to_wkt(),
            driver=FORMATS[path.suffix.lower()],
        )
    if pyogrio.read_info(path, force_feature_count=True)["features"] != len(there):
        raise OSError("the file is incomplete; the disk may be full")
    return len(there)


def _apply(transform: Affine, xy: np.ndarray) -> np.ndarray:
    a, b, c, d, e, f = transform[:6]
    x, y = xy.T
    return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)


def read_polygons(path: str | Path, interior: Map) -> np.ndarray:
    """Reads polygons and places them in the pixels of a map.

    Args:
        path: of a file that GDAL reads; only the first layer is used.
        interior: the map.

    Returns:
        Shapely polygons in (x, y), cut at the border of the map; each part of a multipolygon is a
        polygon.

    Raises:
        InputError: no such file, no polygons on the map, or only one of the two has a CRS.
    """
    try:
        if Path(path).suffix.lower() == ".parquet":
            import geopandas

            frame = geopandas.read_parquet(path)
            polygons, crs = shapely.force_2d(frame.geometry.to_numpy()), frame.crs
        else:
            meta, _, geometry, _ = pyogrio.raw.read(path, columns=[], force_2d=True)
            polygons, crs = shapely.from_wkb(geometry), meta["crs"]
    except (RuntimeError, OSError, ValueError, ImportError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if interior.crs is None:
        # GeoJSON has no way to say that its coordinates are pixels.
        if crs and Path(path).suffix.lower() not in (".geojson", ".json"):
            raise InputError(f"{path} is in {_short(crs)}, but {interior.path} has no CRS")
    elif not crs:
        raise InputError(f"{path} has no CRS, but {interior.path} is in {_short(interior.crs)}")
    elif CRS.from_user_input(crs) != interior.crs:
        polygons = shapely.transform(
            polygons, lambda xy: np.stack(rasterio.warp.transform(crs, interior.crs, *xy.T), axis=1)
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
    return ":".join(authority) if authority else "a custom CRS"
