import json
import resource
import sys

import geopandas
import numpy as np
import pyogrio.raw
import pytest
import rasterio
import rasterio.warp
import shapely
from pyogrio import read_info
from rasterio.crs import CRS
from rasterio.transform import Affine

from classy_gc.polygons import polygonize
from classy_gc.polygons.files import FORMATS, check_output, placed, read_polygons, write_polygons
from classy_gc.polygons.maps import open_map
from tests.polygons.map_files import PLACE, UTM, VALUES, saved, tiff
from tests.polygons.shapes import ROOMS


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("georeferenced", [True, False])
def test_round_trip(suffix, georeferenced, tmp_path):
    values = np.zeros((120, 160), np.float32)
    write, name = (tiff, "map.tif") if georeferenced else (saved, "map.npy")
    opened = open_map(write(tmp_path / name, values))
    path = tmp_path / f"found{suffix}"
    for _ in range(2):  # an older file is replaced
        write_polygons(path, np.array(ROOMS), np.array([0.75, 0.5]), opened)
    # FlatGeobuf sorts features in its own way.
    back = sorted(read_polygons(path, opened), key=lambda polygon: polygon.bounds)
    assert len(back) == 2
    for polygon, room in zip(back, ROOMS, strict=True):
        assert polygon.symmetric_difference(room).area < 1e-3
    if suffix == ".parquet":
        frame = geopandas.read_parquet(path)
        crs, fields, total = frame.crs, frame.columns[:-1].tolist(), frame.total_bounds
    else:
        info = read_info(path)
        crs, fields, total = info["crs"], info["fields"].tolist(), info["total_bounds"]
    assert fields == ["id", "mean_prob", "area", "perimeter"]
    bounds = shapely.total_bounds(np.array(ROOMS))
    if georeferenced:
        assert CRS.from_user_input(crs) == UTM
        bounds = (
            458000 + 0.5 * bounds[0],
            5551000 - 0.5 * bounds[3],
            458000 + 0.5 * bounds[2],
            5551000 - 0.5 * bounds[1],
        )
    assert total == pytest.approx(bounds)
    assert not [p for p in tmp_path.iterdir() if p.is_dir() or p.name.startswith(".")]
    if suffix == ".geojson":
        written = json.loads(path.read_text())
        assert ("crs" in written) == georeferenced
        assert [f["properties"]["mean_prob"] for f in written["features"]] == [0.75, 0.5]


def test_truth_of_another_crs_is_reprojected(tmp_path):
    place = Affine(0.3, 0, 458000, 0, -0.3, 5551000)
    values = np.zeros((120, 160), np.float32)
    ours = open_map(tiff(tmp_path / "utm.tif", values, UTM, place))
    write_polygons(tmp_path / "utm.gpkg", np.array(ROOMS), np.ones(2), ours)

    def there(xy):
        xy = xy * [0.3, -0.3] + [458000, 5551000]
        return np.stack(rasterio.warp.transform(UTM, "EPSG:4326", *xy.T), axis=1)

    degrees = shapely.to_wkb(shapely.transform(np.array(ROOMS), there))
    pyogrio.raw.write(
        tmp_path / "degrees.gpkg", degrees, [], [], geometry_type="Polygon", crs="EPSG:4326"
    )
    for name in ("utm.gpkg", "degrees.gpkg"):
        for polygon, room in zip(read_polygons(tmp_path / name, ours), ROOMS, strict=True):
            assert polygon.symmetric_difference(room).area < 0.1


def test_crs_of_one_alone(tmp_path):
    values = np.zeros((120, 160), np.float32)
    placed = open_map(tiff(tmp_path / "a.tif", values))
    pixels = open_map(saved(tmp_path / "a.npy", values))
    for interior, other in ((placed, pixels), (pixels, placed)):
        write_polygons(tmp_path / "a.gpkg", np.array(ROOMS), np.ones(2), interior)
        with pytest.raises(ValueError, match=r"a\.\w+ has a CRS, but .*a\.\w+ has none"):
            read_polygons(tmp_path / "a.gpkg", other)
    with pytest.raises(ValueError, match="cannot be read"):
        read_polygons(tmp_path / "none.gpkg", placed)
    write_polygons(tmp_path / "far.gpkg", np.array(ROOMS), np.ones(2), placed)
    far = open_map(tiff(tmp_path / "far.tif", values, UTM, Affine(1, 0, 9, 0, -1, 0)))
    with pytest.raises(ValueError, match="no polygons on"):
        read_polygons(tmp_path / "far.gpkg", far)
    # GeoJSON cannot say that these are pixels, and as degrees they are outside the CRS.
    write_polygons(tmp_path / "pixels.geojson", np.array(ROOMS), np.ones(2), pixels)
    with pytest.raises(ValueError, match="no polygons on"):
        read_polygons(tmp_path / "pixels.geojson", placed)


def test_geojson_cannot_name_every_crs(tmp_path):
    own = CRS.from_proj4("+proj=tmerc +lat_0=50 +lon_0=14.4 +ellps=GRS80 +units=m")
    opened = open_map(tiff(tmp_path / "own.tif", crs=own))
    with pytest.raises(ValueError, match="GeoJSON needs a CRS with a code"):
        check_output(tmp_path / "a.geojson", opened)
    check_output(tmp_path / "a.gpkg", opened)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a.kml", "must end in one of"),
        ("a.SHP", r"must end in one of .*\.shp"),
        ("a.Shp", r"must end in one of .*\.shp"),
        ("a", "must end in"),
        ("no/a.gpkg", "no writable folder"),
        ("folder.gpkg", "is a folder"),
    ],
)
def test_bad_outputs(name, match, tmp_path):
    (tmp_path / "folder.gpkg").mkdir()
    opened = open_map(saved(tmp_path / "map.npy", VALUES))
    with pytest.raises(ValueError, match=match):
        check_output(tmp_path / name, opened)


def test_nothing_of_an_older_shapefile_is_read_as_ours(tmp_path):
    write_polygons(
        tmp_path / "out.shp", ROOMS, np.ones(len(ROOMS)), open_map(tiff(tmp_path / "a.tif"))
    )
    assert pyogrio.read_info(tmp_path / "out.shp")["crs"] == "EPSG:32633"
    (tmp_path / "out.qix").touch()
    (tmp_path / "out.txt").touch()
    np.save(tmp_path / "map.npy", VALUES)
    write_polygons(tmp_path / "out.shp", ROOMS, np.ones(len(ROOMS)), open_map(tmp_path / "map.npy"))
    assert pyogrio.read_info(tmp_path / "out.shp")["crs"] is None
    assert not (tmp_path / "out.qix").exists()
    assert (tmp_path / "out.txt").exists()


def test_other_layers_of_a_geopackage_are_not_lost(tmp_path):
    interior, path = open_map(tiff(tmp_path / "a.tif")), tmp_path / "out.gpkg"
    write_polygons(path, ROOMS, np.ones(len(ROOMS)), interior)
    check_output(path, interior)  # its own layer may be replaced
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(ROOMS),
        field_data=[],
        fields=[],
        geometry_type="Polygon",
        crs="EPSG:32633",
        layer="mine",
        append=True,
    )
    with pytest.raises(ValueError, match="holds other layers, which would be lost: mine"):
        check_output(path, interior)
    path.write_text("no GeoPackage")
    with pytest.raises(ValueError, match="exists, but is not a GeoPackage"):
        check_output(path, interior)


def test_areas_are_those_of_the_ground(tmp_path):
    room = ROOMS[1]  # 60 × 80 px
    for crs, place in ((UTM, PLACE), (3857, PLACE), (4326, Affine(1e-5, 0, 25, 0, -1e-5, 60))):
        opened = open_map(tiff(tmp_path / "a.tif", np.zeros((120, 160), np.float32), crs, place))
        height, width = opened.pixel_size
        columns = placed(np.array([room]), np.ones(1), opened)
        assert columns["area"][0] == pytest.approx(4800 * height * width, rel=1e-4)
        assert columns["perimeter"][0] == pytest.approx(120 * width + 160 * height, rel=1e-4)
    assert (height, width) == pytest.approx((1.1141, 0.5580), abs=1e-4)
    pixels = open_map(saved(tmp_path / "a.npy", np.zeros((120, 160), np.float32)))
    assert placed(np.array([room]), np.ones(1), pixels)["area"].tolist() == [4800]


@pytest.mark.parametrize("north", [90, 95])
def test_pixels_at_a_pole_or_beyond_have_no_size_on_the_ground(north, tmp_path):
    place = Affine(1e-5, 0, 25, 0, -1e-5, north + 5e-5)
    values = np.float32(np.pad(np.ones((6, 6)), 2))
    opened = open_map(tiff(tmp_path / "a.tif", values, 4326, place))
    assert opened.pixel_size is None
    assert len(polygonize(opened)) == 1


def test_what_collapses_in_the_crs_is_left_out(tmp_path):
    tiny = Affine(0.5, 0, 4e17, 0, -0.5, 5551000)  # float32 values there are 64 apart
    opened = open_map(tiff(tmp_path / "a.tif", transform=tiny))
    rooms = np.array([shapely.box(0, 0, 9, 9), shapely.box(0, 0, 4000, 9)])
    assert write_polygons(tmp_path / "a.gpkg", rooms, np.ones(2), opened) == 1


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_is_one_line_and_leaves_the_older_file(suffix, tmp_path):
    opened, path = open_map(tiff(tmp_path / "a.tif")), tmp_path / f"found{suffix}"
    write_polygons(path, np.array(ROOMS), np.ones(2), opened)
    older = path.read_bytes()
    circle = shapely.Point(100, 100).buffer(50, quad_segs=20000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
    try:
        with pytest.raises(ValueError, match=r"found\..* cannot be written: "):
            write_polygons(path, np.array([circle] * 3), np.ones(3), opened)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == older
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_geoparquet_needs_pyarrow(tmp_path, monkeypatch):
    opened = open_map(tiff(tmp_path / "a.tif"))
    check_output(tmp_path / "a.parquet", opened)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        check_output(tmp_path / "a.parquet", opened)
