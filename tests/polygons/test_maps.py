import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from classy_gc.polygons import polygonize
from classy_gc.polygons.frame_field import open_frame_field
from classy_gc.polygons.maps import check_same_place, open_map
from tests.polygons.map_files import ALL, PLACE, UTM, VALUES, damaged, png, saved, tiff, truncated

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


def scaled(path, values, **options):
    tiff(path, values)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [0.0001], [0.5]
    return path


@pytest.mark.parametrize(
    ("name", "write", "values", "expected", "scale"),
    [
        ("a.tif", scaled, np.int16([[-5000, 0, 5000]]), [0, 0.5, 1], "scale is 0.0001"),
        ("a.tif", scaled, np.uint16([[0, 5000]]), [0.5, 1], "its offset 0.5"),
        ("a.png", png, np.uint16([[0, 13107, 65535]]), [0, 0.2, 1], "65535 is taken"),
        ("a.png", png, np.array([[False, True]]), [0, 1], "taken for certain"),
        ("a.tif", lambda p, x: tiff(p, x, nbits=1), np.uint8([[0, 1]]), [0, 1], "1 is taken"),
        ("a.tif", tiff, np.uint8([[0, 100]]), [0, 100 / 255], "255 is taken for certain"),
        ("a.tif", tiff, np.float32([[-9e-4, 1.0009]]), [0, 1], "1 is taken"),
    ],
)
def test_scales(name, write, values, expected, scale, tmp_path):
    opened = open_map(write(tmp_path / name, values))
    assert opened.read(slice(0, 1), slice(0, values.shape[1]))[0] == pytest.approx(expected)
    assert scale in opened.scale


def test_bands(tmp_path):
    values = np.stack([BYTES, BYTES // 2, 255 - BYTES])
    tiff(tmp_path / "a.tif", values)
    assert np.allclose(open_map(tmp_path / "a.tif", 2).read(*ALL), values[1] / 255)
    with pytest.raises(ValueError, match=r"3 bands, .* --band 1 to 3, not 4"):
        open_map(tmp_path / "a.tif", 4)
    tiff(tmp_path / "alpha.tif", np.stack([BYTES, 0 * BYTES]), alpha="yes")
    Image.fromarray(np.stack([BYTES, 0 * BYTES], axis=2)).save(tmp_path / "alpha.png")
    for name in ("alpha.tif", "alpha.png"):
        assert np.allclose(open_map(tmp_path / name).read(*ALL), BYTES / 255)


def test_ground_control_points(tmp_path):
    at = [(0, 0), (0, 4), (3, 0), (3, 4)]
    points = [GroundControlPoint(r, c, *(PLACE * (c, r))) for r, c in at]
    opened = open_map(tiff(tmp_path / "a.tif", gcps=points, crs=UTM, transform=None))
    assert opened.crs == UTM
    assert opened.transform.almost_equals(PLACE)
    points[3].x += 9
    with pytest.raises(ValueError, match=r"no affine transform fits .* px off"):
        open_map(tiff(tmp_path / "b.tif", gcps=points, crs=UTM, transform=None))


RGB = np.zeros((3, 4, 3), np.uint8)


def cut_off(path, values):
    tiff(path, values)
    path.write_bytes(path.read_bytes()[:-9])


def only_alpha(path, values):
    with rasterio.open(tiff(path, values), "r+") as file:
        file.colorinterp = [ColorInterp.alpha]


@pytest.mark.parametrize(
    ("name", "write", "args", "match"),
    [
        ("map.jpg", png, (BYTES,), r"one of \.tif"),
        ("map.png", png, (RGB,), "has 3 bands, .* --band 1 to 3$"),
        ("map.tif", tiff, (np.zeros((3, 3, 4), np.uint8),), "has 3 bands, .* --band 1 to 3$"),
        ("map.tif", only_alpha, (BYTES,), "has no band but alpha"),
        ("map.tif", cut_off, (VALUES,), "cannot be read: .* band 1: IReadBlock failed"),
        ("map.tif", tiff, (BYTES.astype(np.int16),), r"int16 without a scale.* 0.0001 .*map\.tif`"),
        ("map.tif", tiff, (VALUES, None), r"no CRS, which the output needs.* EPSG:… .*map\.tif`"),
        ("map.tif", tiff, (VALUES * 2,), r"\[0, 1\], not from 0 to 2"),
        ("map.npy", saved, (BYTES,), r"\[0, 1\], not from 0 to 255"),
        ("map.npy", saved, (VALUES - 0.1,), r"not from -0.1 to 0.9"),
        ("map.npy", saved, (np.full((3, 4), np.nan),), "some values are NaN"),
        ("map.npy", saved, (RGB,), r"and real numbers, not \[3, 4, 3\] and uint8"),
        ("map.npy", saved, (VALUES * 1j,), "complex64"),
        ("map.npz", lambda path, x: saved(path, x, other=x), (VALUES,), "one array, .*other"),
        ("map.npz", lambda path, x: path.write_bytes(b"PK"), (VALUES,), "cannot be read"),
        ("map.npz", truncated, (VALUES,), "cannot be read"),
        ("map.npz", damaged, (VALUES,), "cannot be read"),
        ("map.tif", lambda path, x: path.write_bytes(b"II"), (VALUES,), "cannot be read"),
        ("map.png", lambda path, x: path.write_bytes(b"no"), (VALUES,), "cannot be read"),
        ("map.npy", lambda path, x: None, (VALUES,), "No such file"),
    ],
)
def test_bad_maps(name, write, args, match, tmp_path):
    write(tmp_path / name, *args)
    with pytest.raises(ValueError, match=match) as caught:
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
    with pytest.raises(ValueError, match=match):
        open_frame_field(tmp_path / "frame.npz", (3, 4))


@pytest.mark.parametrize("write", [truncated, damaged])
def test_a_frame_field_that_is_no_whole_npz(write, tmp_path):
    write(tmp_path / "frame.npz", VALUES)
    with pytest.raises(ValueError, match="cannot be read"):
        open_frame_field(tmp_path / "frame.npz", (3, 4))


def test_maps_that_do_not_lie_on_each_other(tmp_path):
    one = open_map(tiff(tmp_path / "one.tif"))
    with pytest.raises(ValueError, match=r"4×3, .* 3×4 pixels"):
        check_same_place(open_map(saved(tmp_path / "b.npy", VALUES.T)), one)
    degrees = [Affine(a, 0, 14, 0, -a, 50) for a in (2.7e-6, 5.4e-6)]
    a, b = (open_map(tiff(tmp_path / f"{t.a}.tif", VALUES, 4326, t)) for t in degrees)
    with pytest.raises(ValueError, match=r"lies .* px away"):
        check_same_place(a, b)
    nearly = degrees[0] * Affine.translation(1e-3, 0)
    check_same_place(a, open_map(tiff(tmp_path / "n.tif", VALUES, 4326, nearly)))
    with pytest.raises(ValueError, match="in different CRSs"):
        check_same_place(a, one)
    moved = open_map(tiff(tmp_path / "c.tif", transform=Affine(0.5, 0, 458001, 0, -0.5, 5551000)))
    with pytest.raises(ValueError, match="lies 2 px away"):
        polygonize(one, moved)
    with pytest.raises(ValueError, match="edges must come from open_map"):
        polygonize(one, VALUES)
    check_same_place(open_map(saved(tmp_path / "d.npy", VALUES)), one)
