import importlib.util
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from PIL import Image
from rasterio.transform import Affine

from classy_gc.commands import main
from classy_gc.polygons import polygonize
from classy_gc.polygons.files import read_polygons, write_polygons
from classy_gc.polygons.maps import open_map
from tests.polygons.map_files import png, tiff
from tests.polygons.shapes import ROOMS, rectangle, rendered, rooms

TRUTH = [rectangle(20, 40, 24, (50, 60)), rectangle(20, 30, 30, (115, 60))]

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def files(here):
    """In the current folder: a map in each format, walls, a frame field and the truth."""
    interior = rendered(TRUTH)
    np.save("map.npy", interior)
    np.savez("map.npz", interior)
    png(Path("map.png"), np.uint8(np.rint(interior * 255)))
    tiff(Path("map.tif"), np.uint8(np.rint(interior * 255)))
    np.savez("frame.npz", np.zeros((4, *interior.shape)))
    np.save("rooms.npy", rooms()[0])
    np.save("walls.npy", rooms()[1])
    write_polygons("truth.gpkg", np.array(TRUTH), np.ones(2), open_map("map.tif"))
    return sorted(Path().iterdir())


def run(*arguments):
    return main(["polygonize", *arguments])


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp", ".fgb"])
@pytest.mark.parametrize("name", ["map.tif", "map.png", "map.npy", "map.npz"])
def test_every_map_to_every_format(name, suffix, files, capsys):
    assert run(name, "--output", f"out{suffix}", "--steps", "60") == 0
    out = capsys.readouterr().out
    assert "2 polygons in" in out
    assert f"out{suffix}" in out
    found = read_polygons(f"out{suffix}", open_map(name))
    for polygon, truth in zip(sorted(found, key=lambda p: p.bounds), TRUTH, strict=True):
        assert polygon.intersection(truth).area > 0.95 * polygon.union(truth).area
    crs = pyogrio.read_info(f"out{suffix}")["crs"]
    assert (crs == "EPSG:32633") == (name == "map.tif")


def test_truth_and_picture(files, capsys):
    flags = ["--truth", "truth.gpkg", "--picture", "out.png", "--steps", "60"]
    assert run("map.tif", "--output", "out.gpkg", *flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "IoU",
        "before",
        "after",
        "IoU:",
        "polygons",
        "picture",
    ]
    with Image.open("out.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for color in ((0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)):
        assert (np.abs(pixels.astype(int) - color).max(axis=1) < 40).sum() > 200


def test_edges_and_frame_field(files):
    assert run("rooms.npy", "--output", "one.geojson", "--steps", "30") == 0
    assert run("rooms.npy", "--edges", "walls.npy", "--output", "two.geojson") == 0
    interior = open_map("rooms.npy")
    assert [len(read_polygons(f, interior)) for f in ("one.geojson", "two.geojson")] == [1, 2]
    a, b = read_polygons("two.geojson", interior)
    assert a.intersection(b).area == 0
    assert shapely.union(a, b).symmetric_difference(shapely.union_all(ROOMS)).area < 200
    flags = ["--frame_field", "frame.npz", "--method", "skeleton", "--steps", "30"]
    assert run("map.npy", "--output", "framed.geojson", *flags) == 0


def test_one_polygon_metres_and_bands(files, capsys):
    degrees = Affine(1e-5, 0, 25, 0, -0.5e-5, 60)  # square on the ground: 0.56 m
    turned = rectangle(30, 71, 45)
    tiff(Path("band.tif"), np.stack([rendered(turned), 0 * rendered(turned)]), 4326, degrees)
    flags = ["--output", "out.parquet", "--band", "1", "--tolerance", "0.56m", "--min_area", "9m"]
    assert run("band.tif", *flags) == 0
    assert "1 polygon in" in capsys.readouterr().out
    assert run("band.tif", *flags[:-1], "900m") == 0
    with pytest.raises(SystemExit):
        run("band.tif", *flags[:-1], "1100m")
    assert "no buildings found" in capsys.readouterr().err


def test_pixels_that_are_not_square_on_the_ground(files):
    """A rectangle turned by 30° keeps its four corners."""
    turned = shapely.affinity.scale(rectangle(30, 71, 45), 2, 1, origin=(0, 0))
    place = Affine(0.5e-5, 0, 25, 0, -0.5e-5, 60)
    tiff(Path("wide.tif"), rendered(turned, (120, 320)), 4326, place)
    assert run("wide.tif", "--output", "out.gpkg") == 0
    (found,) = read_polygons("out.gpkg", open_map("wide.tif"))
    assert shapely.get_num_coordinates(found) == 5
    assert found.intersection(turned).area > 0.97 * found.union(turned).area
    found = polygonize(open_map("wide.tif"))
    assert found.crs == "EPSG:4326"
    assert found["area"][0] == pytest.approx(71 * 45 * 0.557 * 0.5585, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["no.tif"], ["no.tif", "No such file"]),
        (["map.jpg"], ["map.jpg", "one of .tif"]),
        (["rgb.png"], ["rgb.png has 3 bands", "--band 1 to 3"]),
        (["map.npy", "--output", "out.kml"], ["--output", ".fgb", "out.kml"]),
        (["map.npy", "--output", "no/out.gpkg"], ["no writable folder no"]),
        (["map.npy", "--edges", "small.npy"], ["small.npy is 3×4, map.npy 120×160"]),
        (["map.npy", "--edges", "walls.npy", "--method", "contours"], ["--edges", "skeleton"]),
        (["map.npy", "--frame_field", "map.npz"], ["frame field", "[4, height, width]"]),
        (["map.npy", "--threshold", "1"], ["threshold must", "between 0 and 1", "1.0"]),
        (["map.npy", "--threshold", "nan"], ["threshold must", "nan"]),
        (["map.npy", "--tolerance", "0"], ["tolerance must", "> 0"]),
        (["map.npy", "--min_area", "-1"], ["min_area must", ">= 0"]),
        (["map.npy", "--steps", "-1"], ["--steps", ">= 0"]),
        (["map.npy", "--tile", "30"], ["--tile", "multiple of 4"]),
        (["map.npy", "--method", "outlines"], ["--method", "contours"]),
        (["map.npy", "--picture", "out.pdf"], ["--picture", ".png"]),
        (["map.npy", "--device", "abacus"], ["--device abacus"]),
        (["map.npy", "--device", "meta"], ["--device meta"]),
        (["map.npy", "--truth", "truth.gpkg"], ["truth.gpkg has a CRS, but map.npy has none"]),
        (["map.tif", "--truth", "none.gpkg"], ["none.gpkg"]),
        (["map.png", "--picture", "./map.png"], ["--picture ./map.png", "is read"]),
        (["map.npy", "--edges", "map.png", "--picture", "map.png"], ["--picture map.png"]),
        (["map.tif", "--truth", "truth.gpkg", "--output", "truth.gpkg"], ["--output truth.gpkg"]),
        (["map.npy", "--frame_field", "map.npy"], ["frame field", "[4, height, width]"]),
        (["map.npy", "--min_area", "1e6"], ["map.npy: no buildings found", "1e6 (px²"]),
        (["dark.npy"], ["dark.npy: no buildings found", "0.3"]),
        (["bright.npy"], ["bright.npy", "[0, 1]", "2"]),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(arguments, fragments, files, capsys):
    png(Path("rgb.png"), np.zeros((3, 4, 3), np.uint8))
    for name, value in (("dark", 0.3), ("bright", 2.0)):
        np.save(f"{name}.npy", np.full((40, 40), value))
    np.save("small.npy", np.zeros((3, 4)))
    there = {path: path.read_bytes() for path in Path().iterdir()}
    output = [] if "--output" in arguments else ["--output", "out.gpkg"]
    with pytest.raises(SystemExit) as caught:
        run(*arguments, *output)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    for fragment in ["classy-gc polygonize: error: ", *fragments]:
        assert fragment in line
    assert {path: path.read_bytes() for path in Path().iterdir()} == there


def test_one_line_without_its_packages(files, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "rasterio" else find(name)
    )
    with pytest.raises(SystemExit):
        run("map.npy", "--output", "out.gpkg")
    assert "pip install 'classy-gc[polygons]'" in capsys.readouterr().err
