"""Maps like those that networks make of real footprints, and scores on them.

The footprints are those of ``bubenec``. Walls at any angle are cut into some; corners are rounded,
neighbours run into each other, blobs stand where no building is, and probabilities are noisy.
``python -m tests.polygons.realistic`` prints scores on the half of the footprints that was not used
for tuning, beside those of buildingregulariser (``pip install buildingregulariser``).
"""

from typing import NamedTuple

import numpy as np
import shapely
from scipy import ndimage

from classy_gc.polygons import polygonize
from classy_gc.polygons.metrics import measure, vertices
from classy_gc.table import aligned
from tests.polygons import bubenec
from tests.polygons.bubenec import Scene, filled

_MARGIN = 24  # px
_CUT = 0.35  # share of the buildings that lose a corner to a wall at any angle
_ROUND = (3.0, 8.0)  # px, the radii of an opening and a closing
_MOVED = ((1.2, 6.0), (1.6, 15.0))  # px: how far borders are displaced, over what distance
_NOISE, _NOISE_SMOOTH = 0.06, 5.0
_SURE = (0.6, 1.0)
_SURE_SMOOTH = 40.0
_BRIDGES = 0.3  # share of the neighbours within 12 px that run into each other
_BLOBS = 0.25  # a building
_BLUR = (1.5, 4.0)  # px, from place to place
_RIGHT = 8.0  # degrees
_STEP, _TURN = 6.0, 50.0  # px, degrees

#: name: buildings that touch are one; ``spread`` and ``size`` of :func:`realistic`
CASES = {"blocks": (True, 1.0, 1.0), "single buildings": (False, 1.5, 0.6)}


def realistic(
    whole: Scene, seed: int, half: int, spread: float = 1.0, size: float = 1.0
) -> tuple[Scene, np.ndarray]:
    """Half of the footprints, turned, with walls at any angle, and a network's map of them.

    Args:
        whole: of ``bubenec.scene``.
        seed: of the random numbers.
        half: 0, to tune on, or 1, to report.
        spread: factor on the distances between buildings (default: 1)
        size: of what is a pixel there (default: 1)

    Returns:
        The footprints in the pixels of the map, and the map.
    """
    random = np.random.default_rng([seed, half])
    order = np.argsort(shapely.get_x(shapely.centroid(whole.truth)), kind="stable")
    truth = shapely.affinity.rotate(
        shapely.MultiPolygon(whole.truth[order[half::2]].tolist()), random.uniform(0, 90)
    )
    truth = [_cut(p, random) if random.random() < _CUT else p for p in truth.geoms]
    middle = np.mean([shapely.get_coordinates(shapely.centroid(p))[0] for p in truth], axis=0)
    moved = []
    for p in truth:
        away = (shapely.get_coordinates(shapely.centroid(p))[0] - middle) * (spread - 1)
        p = shapely.affinity.translate(p, *away)
        moved.append(shapely.affinity.scale(p, size, size, origin=(0, 0)))
    truth = np.array(moved)
    west, north, east, south = shapely.total_bounds(truth)
    shape = int(south - north) + 2 * _MARGIN, int(east - west) + 2 * _MARGIN
    truth = shapely.transform(truth, lambda xy: xy - [west - _MARGIN, north - _MARGIN])
    scene = Scene(truth, shape, whole.transform)
    return scene, _map(scene, random)


def _cut(polygon: shapely.Polygon, random: np.random.Generator) -> shapely.Polygon:
    """The building without up to a quarter of it that lies beyond a line at any angle."""
    angle = random.uniform(0, 2 * np.pi)
    normal = np.array([np.cos(angle), np.sin(angle)])
    along = shapely.get_coordinates(polygon.exterior) @ normal
    far = 1e4
    for share in (random.uniform(0.65, 0.9), 0.95):
        at = along.min() + share * np.ptp(along)
        side = np.array([-normal[1], normal[0]])
        corners = [at * normal + far * side, at * normal - far * side]
        corners += [corners[1] - 2 * far * normal, corners[0] - 2 * far * normal]
        kept = polygon.intersection(shapely.Polygon(corners))
        if kept.geom_type == "Polygon" and kept.area > 0.75 * polygon.area:
            return kept
    return polygon


def _map(scene: Scene, random: np.random.Generator) -> np.ndarray:
    seen = []
    for polygon in scene.truth:
        r = random.uniform(*_ROUND)
        opened = polygon.buffer(-r).buffer(r)
        seen.append(opened.buffer(r).buffer(-r) if opened.area > 0.6 * polygon.area else polygon)
    seen = np.array(seen)
    a, b = shapely.STRtree(scene.truth).query(scene.truth, predicate="dwithin", distance=12)
    for k, j in zip(a[a < b], b[a < b], strict=True):
        if random.random() < _BRIDGES:
            pair = shapely.union_all(scene.truth[[k, j]])
            seen = np.append(seen, pair.buffer(7).buffer(-7))
    height, width = scene.shape
    for _ in range(int(_BLOBS * len(scene.truth))):
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        radius = random.uniform(5, 14) * (1 + 0.35 * np.sin(2 * angle + random.uniform(0, 6)))
        centre = random.uniform(20, [width - 20, height - 20])
        blob = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None] + centre
        seen = np.append(seen, shapely.Polygon(blob).buffer(0))

    def smooth(sigma: float) -> np.ndarray:
        x = ndimage.gaussian_filter(random.standard_normal(scene.shape), sigma, mode="wrap")
        return x / x.std()

    moved = np.indices(scene.shape).astype(float)
    for amount, over in _MOVED:
        moved += amount * np.stack([smooth(over), smooth(over)])
    x = ndimage.map_coordinates(filled(seen, scene.shape), moved, order=1)
    sharp, dull = (ndimage.gaussian_filter(x, sigma) for sigma in _BLUR)
    x = sharp + (dull - sharp) * (0.5 + 0.5 * smooth(_SURE_SMOOTH)).clip(0, 1)
    low, high = _SURE
    sure = (low + high) / 2 + (high - low) / 4 * smooth(_SURE_SMOOTH)
    return np.float32((x * sure.clip(low, high) + _NOISE * smooth(_NOISE_SMOOTH)).clip(0, 1))


class Score(NamedTuple):
    """``iou``, ``vertices`` and ``hausdorff`` as in ``Metrics``.

    ``right``: the share of turns within 8° of a right angle; ``steps``: walls shorter than 6 px
    between opposite turns of over 50°, for 100 true vertices.
    """

    iou: float
    vertices: float
    hausdorff: float
    right: float
    steps: float


def score(polygons: np.ndarray, truth: np.ndarray) -> Score:
    measured = measure(polygons, truth)
    right, steps = shape_of(polygons)
    steps = 100 * steps / vertices(truth)
    return Score(measured.iou, measured.vertices, measured.hausdorff, right, steps)


def shape_of(polygons: np.ndarray) -> tuple[float, int]:
    """The share of right angles, and the number of steps."""
    turns, steps = [], 0
    for ring in shapely.get_rings(polygons):
        x, y = np.diff(shapely.get_coordinates(ring), axis=0).T
        z = x + 1j * y
        turn = np.degrees(np.angle(np.roll(z, -1) / z))
        before = np.roll(turn, 1)
        opposite = (turn * before < 0) & (np.minimum(abs(turn), abs(before)) > _TURN)
        steps += int((opposite & (np.abs(z) < _STEP)).sum())
        turns.append(turn)
    turn = np.abs(np.concatenate(turns))
    return float((np.abs(turn - 90) < _RIGHT).mean()), steps


def regularised(polygons: np.ndarray) -> np.ndarray:
    """Polygons as buildingregulariser leaves them."""
    from buildingregulariser import regularize_geodataframe
    from geopandas import GeoDataFrame

    frame = GeoDataFrame(geometry=polygons, crs="EPSG:32633")
    frame = regularize_geodataframe(
        frame, parallel_threshold=2.0, simplify_tolerance=1.0, num_cores=1
    )
    parts = shapely.get_parts(shapely.make_valid(frame.geometry.to_numpy()))
    return parts[shapely.get_type_id(parts) == 3]


def main(seeds: int = 2) -> None:
    """Prints the scores of both cases, means over seeds."""
    for name, (joined, spread, size) in CASES.items():
        scores: dict[str, list[Score]] = {}
        for seed in range(seeds):
            half, interior = realistic(bubenec.scene(joined), seed, 1, spread, size)
            found = polygonize(interior)
            for way, polygons in (
                ("truth", half.truth),
                ("Douglas and Peucker, 1 px", found.before),
                ("buildingregulariser", regularised(found.before)),
                ("here", found.polygons),
            ):
                scores.setdefault(way, []).append(score(polygons, half.truth))
        rows = [[f"{len(half.truth)} {name}", *Score._fields]]
        for way, values in scores.items():
            rows.append([way, *(f"{x:.3f}" for x in np.mean(values, axis=0))])
        print(aligned(rows, numbers=True), end="\n\n")


if __name__ == "__main__":
    main()
