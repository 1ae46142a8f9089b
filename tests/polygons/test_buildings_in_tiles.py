import numpy as np
import pytest
import rasterio.features
import shapely
from rasterio.transform import Affine
from scipy import ndimage

from classy_gc.polygons import buildings, from_map, polygonize, polygonize_map
from classy_gc.polygons.maps import open_map
from tests.polygons.map_files import tiff
from tests.polygons.shapes import rectangle, rendered

SHAPE = (430, 510)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(buildings, "_CONTEXT", 64)


@pytest.fixture(scope="module")
def city():
    """Buildings on the borders of tiles of 128 px, one longer than a tile, and their walls."""
    random = np.random.default_rng(3)
    footprints = [
        rectangle(random.uniform(-40, 40), *random.uniform(18, 30, 2), (60 * i + 30, 60 * j + 30))
        for i in range(8)
        for j in range(7)
        if (i, j) not in {(1, 2), (2, 2), (3, 2), (4, 2), (5, 2)}
    ]
    footprints.append(rectangle(8, 260, 26, (240, 150)))
    interior = rendered(footprints, SHAPE)
    walls = np.float32(np.abs(ndimage.sobel(interior)) > 1.5)
    return interior, walls, from_map(interior)


def opened(path, array):
    np.save(path, array)
    return open_map(path)


@pytest.mark.parametrize(
    ("with_edges", "own_frame"), [(False, True), (True, False), (False, False)]
)
def test_tiles_give_what_the_whole_gives(with_edges, own_frame, city, tmp_path):
    interior, walls, frame = city
    walls = walls if with_edges else None
    options = {"steps": 15}
    whole = polygonize(interior, walls, frame, **options)
    found = polygonize_map(
        opened(tmp_path / "map.npy", interior),
        None if walls is None else opened(tmp_path / "walls.npy", walls),
        None if own_frame else frame,
        tile=128,
        **options,
    )
    for ours, theirs in ((found.polygons, whole.polygons), (found.before, whole.before)):
        assert len(ours) == len(theirs)
        mine, its = shapely.STRtree(theirs).query(ours, predicate="intersects")
        common = shapely.area(shapely.intersection(ours[mine], theirs[its]))
        union = shapely.area(shapely.union(ours[mine], theirs[its]))
        same = common / union > (0.9 if own_frame else 0.97)  # a window sees less of the map
        assert sorted(mine[same]) == list(range(len(ours)))
        assert sorted(its[same]) == list(range(len(theirs)))
    assert np.isfinite(found.probability).all()


def test_every_building_of_thousands_once(tmp_path):
    inside = np.arange(720) % 12 < 7
    interior = np.float32(np.outer(inside, inside))
    found = polygonize_map(opened(tmp_path / "map.npy", interior), tile=256, steps=1)
    assert len(found.polygons) == 60 * 60
    centres = shapely.get_coordinates(shapely.centroid(found.polygons)).round()
    assert len(np.unique(centres, axis=0)) == 60 * 60


def test_components_are_those_of_the_whole(tmp_path):
    random = np.random.default_rng(0)
    interior = np.float32(ndimage.gaussian_filter(random.random((150, 170)), 2) > 0.505)
    mask = ndimage.binary_dilation(interior > 0.5, np.ones((3, 3)))
    labels, count = ndimage.label(mask)
    found = buildings.components(opened(tmp_path / "map.npy", interior), None, 0.5, 16)
    assert len(found) == count
    for part in found:
        pixels = rasterio.features.rasterize([part], mask.shape) == 1
        (k,) = np.unique(labels[pixels])
        assert (pixels == (labels == k)).all()


@pytest.mark.parametrize("tile", [2048, 64])
def test_nothing(tile, tmp_path):
    interior = opened(tmp_path / "map.npy", np.full((300, 300), 0.25, np.float32))
    with pytest.raises(ValueError, match=r"no buildings found; the highest probability is 0.25"):
        polygonize_map(interior, tile=tile)


def test_pixels_that_would_become_too_many(tmp_path):
    """In degrees near a pole, a pixel is high and narrow."""
    place = Affine(4e-6, 0, 14, 0, -4e-6, 90)
    interior = open_map(tiff(tmp_path / "map.tif", np.ones((120, 160), np.float32), 4326, place))
    with pytest.raises(ValueError, match=r"0\.447 m high and .* wide on the ground; reproject"):
        polygonize_map(interior)


def test_values_out_of_range_in_one_tile(tmp_path):
    array = np.zeros((300, 300), np.float32)
    array[290, 290] = 1.5
    with pytest.raises(ValueError, match=r"not from 0 to 1\.5"):
        polygonize_map(opened(tmp_path / "map.npy", array), tile=64)
