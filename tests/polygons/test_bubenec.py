"""The example, on real footprints."""

import pytest
import shapely

from classy_gc.polygons import measure, polygonize
from tests.polygons import bubenec


@pytest.mark.parametrize(("blocks", "count"), [(True, 28), (False, 144)])
def test_footprints(blocks, count):
    scene = bubenec.scene(blocks)
    assert len(scene.truth) == count
    assert shapely.is_valid(scene.truth).all()
    height, width = scene.shape
    assert shapely.total_bounds(scene.truth) == pytest.approx(
        [20, 20, width - 20, height - 20], abs=1
    )
    area = shapely.area(scene.truth).sum() * 0.3**2
    assert area == pytest.approx(43151, abs=10)  # m², the same for both


@pytest.mark.parametrize("blocks", [True, False])
def test_figures(blocks):
    """What refinement promises, on one seed."""
    scene = bubenec.scene(blocks)
    interior, edges = bubenec.maps(scene, 0)
    found = polygonize(interior, None if blocks else edges)
    before, after = (measure(p, scene.truth) for p in (found.before, found.polygons))
    iou, angle, vertices = (0.945, 44, 0.7) if blocks else (0.935, 37.5, 0.82)
    assert after.matched == len(scene.truth)
    assert after.iou >= max(iou, before.iou)
    assert after.angle <= angle < before.angle
    assert after.vertices <= vertices < before.vertices
    assert after.hausdorff <= (3.2 if blocks else 3.6) < before.hausdorff


def test_the_command(tmp_path, monkeypatch, capsys):
    whole = bubenec.scene(joined=True)
    corner = shapely.box(830, 20, 1030, 200)  # three buildings
    some = whole.truth[shapely.within(whole.truth, corner)]
    truth = shapely.transform(some, lambda xy: xy - [830, 20])
    monkeypatch.setattr(
        bubenec, "scene", lambda joined: whole._replace(truth=truth, shape=(180, 200))
    )
    bubenec.main(["--output_folder", str(tmp_path / "out"), "--seeds", "1"])
    out = capsys.readouterr().out
    for line in (
        f"{len(truth)} blocks, contours, mean of 1 seeds",
        "GC, published weights",
        "before",
    ):
        assert line in out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"blocks.tif", "blocks.gpkg", "blocks.png", "buildings_edges.tif"}
