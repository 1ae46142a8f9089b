"""Reads and writes polygons in the formats of a GIS."""

import os
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import shapely

from classy_gc.polygons.maps import Map

#: Suffixes of the formats that are written.
FORMATS = (".geojson", ".gpkg", ".shp", ".fgb", ".parquet")
# Files that may lie beside a shapefile, besides those that are always written.
_BESIDE_SHAPES = (".prj", ".cpg", ".qix", ".qpj", ".sbn", ".sbx", ".shp.xml")


def check_output(path: str | Path, interior: Map) -> None:
    """Refuses an output file that cannot be written, before anything is computed.

    Args:
        path: of the output file.
        interior: the map whose CRS the polygons will have.

    Raises:
        ValueError: an unknown suffix, no folder, a GeoPackage that holds other layers, or a CRS
            that the format cannot name.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    # GDAL would write .shp where the suffix is .SHP.
    if suffix not in FORMATS or (suffix == ".shp" and path.suffix != ".shp"):
        raise ValueError(f"--output must end in one of {', '.join(FORMATS)}, not {str(path)!r}")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError(f"--output {path} needs one more package: pip install pyarrow")
    if path.is_dir():
        raise ValueError(f"--output {path} is a folder")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"--output {path}: there is no writable folder {path.parent}")
    if suffix == ".gpkg" and path.exists():
        try:
            others = ", ".join(name for name, _ in pyogrio.list_layers(path) if name != path.stem)
        except RuntimeError:
            raise ValueError(f"--output {path} exists, but is not a GeoPackage") from None
        if others:
            raise ValueError(f"--output {path} holds other layers, which would be lost: {others}")
    named = interior.crs is None or interior.crs.to_authority() is not None
    if suffix == ".geojson" and not named:
        others = f".gpkg, .shp and .fgb can hold that of {interior.path}"
        raise ValueError(f"--output {path}: GeoJSON needs a CRS with a code; {others}")


def placed(polygons: np.ndarray, probability: np.ndarray, interior: Map) -> geopandas.GeoDataFrame:
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
    pixels = geopandas.GeoSeries(polygons)
    there = pixels.affine_transform(interior.transform.to_shapely()).make_valid().explode()
    there = there[(there.geom_type == "Polygon") & (there.area > 0)]
    ground = pixels[there.index].scale(width, height)
    columns = {
        "id": np.arange(1, len(there) + 1),
        "mean_prob": np.asarray(probability, float)[there.index].round(4),
        "area": ground.area.to_numpy().round(3),
        "perimeter": ground.length.to_numpy().round(3),
    }
    there = shapely.orient_polygons(there.to_numpy())
    return geopandas.GeoDataFrame(columns, geometry=there, crs=interior.crs)


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
        ValueError: the file cannot be written; the message says why.
    """
    path, frame = Path(path), placed(polygons, probability, interior)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            _write(Path(folder) / path.name, frame)
            if path.suffix.lower() == ".shp":
                # A GIS would read the old file's index or CRS with the new one.
                for suffix in _BESIDE_SHAPES:
                    path.with_suffix(suffix).unlink(missing_ok=True)
            for part in Path(folder).iterdir():
                part.replace(path.parent / part.name)
    except (OSError, RuntimeError) as error:  # pyogrio raises RuntimeError
        raise ValueError(f"{path} cannot be written: {error}") from error
    return len(frame)


def _write(path: Path, frame: geopandas.GeoDataFrame) -> None:
    if path.suffix.lower() == ".parquet":
        frame.to_parquet(path)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        frame.to_file(path, geometry_type="Polygon")  # in the format of its suffix
    if pyogrio.read_info(path, force_feature_count=True)["features"] != len(frame):
        raise OSError("the file is incomplete; the disk may be full")


def read_polygons(path: str | Path, interior: Map) -> np.ndarray:
    """Reads polygons and places them in the pixels of a map.

    Args:
        path: of a file that GDAL reads; only the first layer is used.
        interior: the map.

    Returns:
        Shapely polygons in (x, y), cut at the border of the map; each part of a multipolygon is a
        polygon.

    Raises:
        ValueError: no such file, no polygons on the map, or only one of the two has a CRS.
    """
    path = Path(path)
    try:
        parquet = path.suffix.lower() == ".parquet"
        table = geopandas.read_parquet(path) if parquet else geopandas.read_file(path, columns=[])
        polygons = table.geometry
    except (RuntimeError, OSError, ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    # GeoJSON has no way to say that its coordinates are pixels.
    if path.suffix.lower() == ".geojson" and interior.crs is None:
        polygons = polygons.set_crs(None, allow_override=True)
    if (polygons.crs is None) != (interior.crs is None):
        which = (interior.path, path) if polygons.crs is None else (path, interior.path)
        raise ValueError("{} has a CRS, but {} has none".format(*which))
    if interior.crs is not None:
        polygons = polygons.to_crs(interior.crs)
        # GEOS refuses what is outside the CRS, such as pixels that GeoJSON passes for degrees.
        polygons = polygons[np.isfinite(polygons.bounds).all(axis=1)]
    polygons = polygons.set_crs(None, allow_override=True).force_2d().make_valid()
    polygons = polygons.affine_transform((~interior.transform).to_shapely())
    polygons = polygons.intersection(shapely.box(0, 0, *interior.shape[::-1])).explode()
    polygons = polygons[(polygons.geom_type == "Polygon") & (polygons.area > 0)].to_numpy()
    if not len(polygons):
        raise ValueError(f"{path} has no polygons on {interior.path}")
    return polygons
