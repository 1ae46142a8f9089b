import json

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import rasterio.warp
import shapely
from PIL import Image
from pyogrio import read_info
from rasterio.crs import CRS
from rasterio.transform import Affine

from classy_gc.polygons.files import (
    FORMATS,
    InputError,
    check_output,
    check_same_size,
    open_frame_field,
    open_map,
    read_polygons,
    write_polygons,
)
from tests.polygons.shapes import ROOMS

UTM = CRS.from_epsg(32633)
PLACE = Affine(0.5, 0, 458000, 0, -0.5, 5551000)
VALUES = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
ALL = slice(0, 3), slice(0, 4)


def tiff(path, values=VALUES, crs=UTM, transform=PLACE, **options):
    values = np.atleast_3d(values.T).T
    count, height, width = values.shape
    size = (width, height, count)
    with rasterio.open(path, "w", "GTiff", *size, crs, transform, values.dtype, **options) as file:
        file.write(values)
    return path


def png(path, values, mode=None):
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path)
    return path


def saved(path, values, **arrays):
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        np.savez(path, values, **arrays)
    return path


def truncated(path, values):
    saved(path, values)
    path.write_bytes(path.read_bytes()[:-30])


def damaged(path, values):
    np.savez_compressed(path, np.tile(values, (9, 9)))
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)


BYTES = np.uint8(np.rint(VALUES * 255))


@pytest.mark.parametrize(
    ("name", "write", "values"),
    [
        ("map.tif", tiff, VALUES),
        ("map.TIFF", tiff, BYTES),
        ("map.png", png, BYTES),
        ("map.npy", saved, VALUES),
        ("map.npz", saved, VALUES.astype(float)),
        ("bool.npy", saved, VALUES > 0.5),
    ],
)
def test_maps(name, write, values, tmp_path):
    opened = open_map(write(tmp_path / name, values))
    expected = np.float32(values) / (255 if values.dtype == np.uint8 else 1)
    assert opened.shape == (3, 4)
    assert opened.read(*ALL).dtype == np.float32
    assert np.allclose(opened.read(*ALL), expected)
    assert np.allclose(opened.read(slice(1, 3), slice(2, 4)), expected[1:3, 2:4])
    assert opened.read(slice(0, 3, 2), slice(0, 4, 2)).shape == (2, 2)
    georeferenced = "tif" in name.lower()
    assert opened.crs == (UTM if georeferenced else None)
    assert opened.transform == (PLACE if georeferenced else Affine.identity())


def test_no_data_is_no_building(tmp_path):
    values = VALUES.copy()
    values[0] = -9999
    opened = open_map(tiff(tmp_path / "map.tif", values, nodata=-9999))
    assert not opened.read(*ALL)[0].any()


RGB = np.zeros((3, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "write", "args", "match"),
    [
        ("map.jpg", png, (BYTES,), r"one of \.tif"),
        ("map.png", png, (RGB,), "this PNG has RGB"),
        ("map.png", png, (BYTES, "P"), "this PNG has P"),
        ("map.tif", tiff, (np.zeros((3, 3, 4), np.uint8),), "this GeoTIFF has 3"),
        ("map.tif", tiff, (BYTES.astype(np.int16),), "not int16"),
        ("map.tif", tiff, (VALUES, None), "in no CRS, which the output needs"),
        ("map.tif", tiff, (VALUES * 2,), r"\[0, 1\], not from 0 to 2"),
        ("map.npy", saved, (BYTES,), r"\[0, 1\], not from 0 to 255"),
        ("map.npy", saved, (VALUES - 0.1,), r"not from -0.1 to 0.9"),
        ("map.npy", saved, (np.full((3, 4), np.nan),), "some are NaN"),
        ("map.npy", saved, (RGB,), r"\[3, 4, 3\] and uint8"),
        ("map.npy", saved, (VALUES * 1j,), "complex64"),
        ("map.npz", lambda path, x: saved(path, x, other=x), (VALUES,), "one array, .*other"),
        ("map.npz", lambda path, x: path.write_bytes(b"PK"), (VALUES,), "cannot be read"),
        ("map.npz", truncated, (VALUES,), "cannot be read.* not a whole one"),
        ("map.npz", damaged, (VALUES,), "cannot be read"),
        ("map.npz", lambda path, x: np.save(path.open("wb"), x), (VALUES,), "it is no .npz"),
        ("map.npy", lambda path, x: np.savez(path.open("wb"), x), (VALUES,), "cannot be read"),
        ("map.tif", lambda path, x: path.write_bytes(b"II"), (VALUES,), "cannot be read"),
        ("map.png", lambda path, x: path.write_bytes(b"no"), (VALUES,), "cannot be read"),
        ("map.npy", lambda path, x: None, (VALUES,), "no such file"),
    ],
)
def test_bad_maps(name, write, args, match, tmp_path):
    write(tmp_path / name, *args)
    with pytest.raises(InputError, match=match) as caught:
        open_map(tmp_path / name).read(*ALL)
    assert str(tmp_path / name) in str(caught.value)


def test_frame_fields(tmp_path):
    random = np.random.default_rng(0)
    channels = random.random((4, 3, 4))
    c0, c2 = channels[0] + 1j * channels[1], channels[2] + 1j * channels[3]
    np.savez(tmp_path / "channels.npz", channels)
    np.savez(tmp_path / "named.npz", c0=c0, c2=c2)
    for name in ("channels.npz", "named.npz"):
        frame = open_frame_field(tmp_path / name, (3, 4))
        assert np.allclose(frame, [c0, c2])


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"c0": VALUES}, r"\[4, height, width\]"),
        ({"c0": VALUES, "c3": VALUES}, "not .*c3"),
        ({"c0": VALUES.T, "c2": VALUES.T}, "is 4×3, the map 3×4"),
        ({"x": np.full((4, 3, 4), np.nan)}, "not finite"),
        (None, "cannot be read"),
    ],
)
def test_bad_frame_fields(arrays, match, tmp_path):
    if arrays:
        np.savez(tmp_path / "frame.npz", **arrays)
    with pytest.raises(InputError, match=match):
        open_frame_field(tmp_path / "frame.npz", (3, 4))


@pytest.mark.parametrize("write", [truncated, damaged, lambda path, x: np.save(path.open("wb"), x)])
def test_a_frame_field_that_is_no_whole_npz(write, tmp_path):
    write(tmp_path / "frame.npz", VALUES)
    with pytest.raises(InputError, match=r"frame field .* cannot be read"):
        open_frame_field(tmp_path / "frame.npz", (3, 4))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("georeferenced", [True, False])
def test_round_trip(suffix, georeferenced, tmp_path):
    values = np.zeros((120, 160), np.float32)
    write, name = (tiff, "map.tif") if georeferenced else (saved, "map.npy")
    opened = open_map(write(tmp_path / name, values))
    path = tmp_path / f"found{suffix}"
    for _ in range(2):  # an older file is replaced
        write_polygons(path, np.array(ROOMS), np.array([0.75, 0.5]), opened)
    # FlatGeobuf has an order of its own.
    back = sorted(read_polygons(path, opened), key=lambda polygon: polygon.bounds)
    assert len(back) == 2
    for polygon, room in zip(back, ROOMS, strict=True):
        assert polygon.symmetric_difference(room).area < 1e-3
    info = read_info(path)
    assert info["fields"].tolist() == ["mean_prob"]
    bounds = shapely.total_bounds(np.array(ROOMS))
    if georeferenced:
        assert CRS.from_user_input(info["crs"]) == UTM
        bounds = (
            458000 + 0.5 * bounds[0],
            5551000 - 0.5 * bounds[3],
            458000 + 0.5 * bounds[2],
            5551000 - 0.5 * bounds[1],
        )
    assert info["total_bounds"] == pytest.approx(bounds)
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
        with pytest.raises(InputError, match=r"EPSG:32633|has no CRS"):
            read_polygons(tmp_path / "a.gpkg", other)
    with pytest.raises(InputError, match="cannot be read"):
        read_polygons(tmp_path / "none.gpkg", placed)
    write_polygons(tmp_path / "far.gpkg", np.array(ROOMS), np.ones(2), placed)
    far = open_map(tiff(tmp_path / "far.tif", values, UTM, Affine(1, 0, 9, 0, -1, 0)))
    with pytest.raises(InputError, match="no polygons on"):
        read_polygons(tmp_path / "far.gpkg", far)


def test_geojson_cannot_name_every_crs(tmp_path):
    own = CRS.from_proj4("+proj=tmerc +lat_0=50 +lon_0=14.4 +ellps=GRS80 +units=m")
    opened = open_map(tiff(tmp_path / "own.tif", crs=own))
    with pytest.raises(InputError, match="GeoJSON needs a CRS with a code"):
        check_output(tmp_path / "a.geojson", opened)
    check_output(tmp_path / "a.gpkg", opened)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a.kml", "must end in one of"),
        ("a", "must end in"),
        ("no/a.gpkg", "no writable folder"),
        ("folder.gpkg", "is a folder"),
    ],
)
def test_bad_outputs(name, match, tmp_path):
    (tmp_path / "folder.gpkg").mkdir()
    opened = open_map(saved(tmp_path / "map.npy", VALUES))
    with pytest.raises(InputError, match=match):
        check_output(tmp_path / name, opened)


def test_maps_that_do_not_lie_on_each_other(tmp_path):
    one = open_map(tiff(tmp_path / "one.tif"))
    with pytest.raises(InputError, match=r"4×3, .* 3×4 pixels"):
        check_same_size(open_map(saved(tmp_path / "b.npy", VALUES.T)), one)
    moved = open_map(tiff(tmp_path / "c.tif", transform=Affine(0.5, 0, 458001, 0, -0.5, 5551000)))
    with pytest.raises(InputError, match="georeferenced otherwise"):
        check_same_size(moved, one)
    check_same_size(open_map(saved(tmp_path / "d.npy", VALUES)), one)
