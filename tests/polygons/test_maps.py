import numpy as np
import pytest
from rasterio.transform import Affine

from classy_gc.polygons.maps import (
    InputError,
    check_same_size,
    open_frame_field,
    open_map,
)
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


def test_maps_that_do_not_lie_on_each_other(tmp_path):
    one = open_map(tiff(tmp_path / "one.tif"))
    with pytest.raises(InputError, match=r"4×3, .* 3×4 pixels"):
        check_same_size(open_map(saved(tmp_path / "b.npy", VALUES.T)), one)
    moved = open_map(tiff(tmp_path / "c.tif", transform=Affine(0.5, 0, 458001, 0, -0.5, 5551000)))
    with pytest.raises(InputError, match="georeferenced otherwise"):
        check_same_size(moved, one)
    check_same_size(open_map(saved(tmp_path / "d.npy", VALUES)), one)
