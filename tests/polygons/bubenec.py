"""The example: real footprints, rasterized, degraded, and refined again.

``python -m tests.polygons.bubenec`` makes maps of the 144 buildings of momepy's ``bubenec``
(a part of Prague, from OpenStreetMap) at 0.3 m, as a network might put them out, turns them into
polygons, prints how close these are to the footprints, and draws them.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyogrio.raw
import rasterio.features
import rasterio.warp
import shapely
from rasterio.transform import Affine
from scipy import ndimage
from tqdm import tqdm

from classy_gc.polygons.buildings import METHODS, Buildings, faces, polygonize
from classy_gc.polygons.files import write_polygons
from classy_gc.polygons.frame_field import FrameField, from_directions, from_map
from classy_gc.polygons.graph import Graph, resample
from classy_gc.polygons.maps import Map, open_map
from classy_gc.polygons.metrics import Metrics, measure, picture, table
from classy_gc.polygons.optimizers import TensorSkeletonOptimizer
from classy_gc.polygons.outlines import contours, skeleton
from classy_gc.polygons.simplify import simplify
from classy_gc.table import aligned

_CRS = "EPSG:32633"  # metres
_PIXEL = 0.3  # m
_MARGIN = 20  # px around the buildings
_FINER = 4  # subpixels along an edge of a pixel

_MOVED, _SMOOTH = 1.0, 4.0  # px: how far borders are displaced, and over what distance that changes
_BLUR, _NOISE = 2.0, 0.05
_WALL = 2.5  # px, half of the width of a wall in the map of edges


class Scene(NamedTuple):
    """Footprints in the pixels of a map.

    Attributes:
        truth: polygons of shapely, in (x, y).
        shape: of the map.
        transform: from pixels to metres.
    """

    truth: np.ndarray
    shape: tuple[int, int]
    transform: Affine


def scene(joined: bool) -> Scene:
    """The footprints of Bubeneč.

    Args:
        joined: whether buildings that touch become one.

    Raises:
        ModuleNotFoundError: momepy, which has the data, is not installed.
    """
    # Its file alone: importing momepy would import pandas and more.
    spec = importlib.util.find_spec("momepy")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the footprints are momepy's: pip install momepy")
    file = Path(spec.origin).parent / "datasets" / "bubenec.gpkg"
    meta, _, geometry, _ = pyogrio.raw.read(file, layer="buildings", columns=[])

    def to_metres(xy: np.ndarray) -> np.ndarray:
        return np.stack(rasterio.warp.transform(meta["crs"], _CRS, *xy.T), axis=1)

    footprints = shapely.transform(shapely.from_wkb(geometry), to_metres)
    if joined:
        footprints = shapely.get_parts(shapely.union_all(footprints))
    west, south, east, north = shapely.total_bounds(footprints)
    origin = np.array([west - _MARGIN * _PIXEL, north + _MARGIN * _PIXEL])
    truth = shapely.transform(footprints, lambda xy: (xy - origin) / [_PIXEL, -_PIXEL])
    shape = (int((north - south) / _PIXEL) + 2 * _MARGIN, int((east - west) / _PIXEL) + 2 * _MARGIN)
    return Scene(truth, shape, Affine(_PIXEL, 0, origin[0], 0, -_PIXEL, origin[1]))


def maps(scene: Scene, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What a network might predict for a scene.

    Borders are displaced by a smooth random field of 1 px, blurred by 2 px, with 5 % of noise.

    Args:
        scene: with the footprints.
        seed: of the random numbers.

    Returns:
        The probability of a building, and of a wall; float32, of the shape of the scene.
    """
    random = np.random.default_rng(seed)

    def field() -> np.ndarray:
        x = ndimage.gaussian_filter(random.standard_normal(scene.shape), _SMOOTH, mode="wrap")
        return _MOVED * x / x.std()

    moved = np.indices(scene.shape) + np.stack([field(), field()])

    def degraded(geometries: np.ndarray) -> np.ndarray:
        x = ndimage.map_coordinates(filled(geometries, scene.shape), moved, order=1)
        x = ndimage.gaussian_filter(x, _BLUR) + _NOISE * random.standard_normal(scene.shape)
        return np.float32(x.clip(0, 1))

    walls = shapely.buffer(shapely.boundary(scene.truth), _WALL)
    return degraded(scene.truth), degraded(walls)


def filled(geometries: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The covered share of each pixel."""
    finer = rasterio.features.rasterize(
        geometries, [n * _FINER for n in shape], transform=Affine.scale(1 / _FINER)
    )
    of_pixels = finer.reshape(shape[0], _FINER, shape[1], _FINER)
    return of_pixels.mean(axis=(1, 3), dtype=np.float32)


def true_frame(scene: Scene) -> FrameField:
    """The frame field of the true walls: each pixel has that of the nearest wall."""
    ring, number = shapely.get_coordinates(shapely.get_rings(scene.truth), return_index=True)
    lines = np.stack([ring[:-1], ring[1:]], axis=1)[number[:-1] == number[1:]]
    numbered = zip(shapely.linestrings(lines), range(1, len(lines) + 1), strict=True)
    wall = rasterio.features.rasterize(numbered, scene.shape, all_touched=True, dtype="int32")
    at = ndimage.distance_transform_edt(wall == 0, return_distances=False, return_indices=True)
    x, y = (lines[:, 1] - lines[:, 0]).T
    u = (y + 1j * x) / np.hypot(x, y)
    u = np.complex64(u[wall[tuple(at)] - 1])
    return from_directions(u, 1j * u)


Rows = dict[str, Callable[[np.ndarray, np.ndarray, FrameField], dict[str, Any]]]
#: row of the table: options of ``polygonize``
_BLOCKS: Rows = {
    "GC": lambda interior, edges, frame: {},
    'GC, layout "n2"': lambda interior, edges, frame: {"layout": "n2"},
    "GC off": lambda interior, edges, frame: {"use_gc": False},
    "GC, true frame field": lambda interior, edges, frame: {"frame": frame},
}
_BUILDINGS: Rows = {
    "GC": lambda interior, edges, frame: {"edges": edges},
    "GC, published weights": lambda interior, edges, frame: {
        "edges": edges,
        "weights": TensorSkeletonOptimizer.PUBLISHED_WEIGHTS,
    },
    "GC off": lambda interior, edges, frame: {"edges": edges, "use_gc": False},
    "GC, true frame field": lambda interior, edges, frame: {"edges": edges, "frame": frame},
}


def compare(scene: Scene, rows: Rows, seeds: int) -> dict[str, Metrics]:
    """Means over seeds of what is measured, before the refinement and for every row."""
    frame = true_frame(scene)
    measured: dict[str, list[Metrics]] = {}
    for seed in tqdm(range(seeds), "seeds", leave=False, disable=None):
        interior, edges = maps(scene, seed)
        for name, options in rows.items():
            found = polygonize(interior, **options(interior, edges, frame))
            if name == next(iter(rows)):
                measured.setdefault("before", []).append(measure(found.before, scene.truth))
            measured.setdefault(name, []).append(measure(found.polygons, scene.truth))
    return {name: Metrics(*np.mean(values, axis=0)) for name, values in measured.items()}


def write(scene: Scene, name: str, folder: Path, with_edges: bool) -> tuple[Map, Map | None]:
    """Writes the maps of seed 0 as GeoTIFF and the footprints as GeoPackage."""
    written = []
    for suffix, values in zip(("", "_edges"), maps(scene, 0), strict=True):
        if suffix and not with_edges:
            break
        path = folder / f"{name}{suffix}.tif"
        height, width = scene.shape
        with rasterio.open(
            path, "w", "GTiff", width, height, 1, _CRS, scene.transform, "uint8", compress="deflate"
        ) as file:
            file.write(np.uint8(np.rint(values * 255)), 1)
        written.append(open_map(path))
    write_polygons(folder / f"{name}.gpkg", scene.truth, np.ones(len(scene.truth)), written[0])
    return written[0], written[1] if with_edges else None


def speed() -> str:
    """Seconds of the CPU for every stage on maps of 1024² pixels, as text."""
    blocks = maps(scene(joined=True), 0)[0][200:1224, 200:1224]
    inside = np.arange(1024) % 16 < 12
    tiny = ndimage.gaussian_filter(np.float32(np.outer(inside, inside)), 1)
    stages = ("frame", "outlines", "refine", "polygonize")
    rows: list[list[Any]] = [["1024² px", "polygons", "vertices", "tensors", *stages]]
    for name, interior in (("blocks", blocks), ("tiny buildings", tiny)):
        for method, optimizer in METHODS.items():
            times = [time.process_time()]
            frame = from_map(interior)
            times.append(time.process_time())
            paths = contours(interior) if method == "contours" else skeleton(interior)
            graph = Graph.of(resample(paths), interior.shape)
            times.append(time.process_time())
            refine = optimizer(graph, interior, frame)
            positions = refine.optimize()
            times.append(time.process_time())
            polygons, _ = faces(simplify(graph, positions, 1.0, frame), interior)
            times.append(time.process_time())
            tensors = len(refine.optimizer.param_groups[0]["params"])
            counts = [f"{n:,}" for n in (len(polygons), len(positions), tensors)]
            seconds = [f"{t:.2f} s" for t in np.diff(times)]
            rows.append([f"{name}, {method}", *counts, *seconds])
    return aligned(rows, numbers=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the example.

    Args:
        argv: the flags (default: None, those of the process).
    """
    parser = argparse.ArgumentParser(prog="python -m tests.polygons.bubenec")
    parser.add_argument(
        "--output_folder", default="output_bubenec", type=Path, help="(default output_bubenec)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of the degradation (default 3)")
    parser.add_argument("--speed", action="store_true", help="time every stage, and nothing else")
    args = parser.parse_args(argv)
    if args.speed:
        print(speed())
        return
    args.output_folder.mkdir(parents=True, exist_ok=True)
    for joined, name, rows in ((True, "blocks", _BLOCKS), (False, "buildings", _BUILDINGS)):
        footprints = scene(joined)
        interior, edges = write(footprints, name, args.output_folder, with_edges=not joined)
        everywhere = slice(0, footprints.shape[0]), slice(0, footprints.shape[1])
        found = polygonize(interior.read(*everywhere), edges.read(*everywhere) if edges else None)
        _draw(interior, found, args.output_folder / f"{name}.png")
        method = "contours" if joined else "skeleton, with a map of edges"
        print(f"{len(footprints.truth)} {name}, {method}, mean of {args.seeds} seeds")
        print(table(compare(footprints, rows, args.seeds)), end="\n\n")
    files = ", ".join(sorted(path.name for path in args.output_folder.iterdir()))
    print(f"written to {args.output_folder}: {files}")


def _draw(interior: Map, found: Buildings, path: Path) -> None:
    picture(interior, found).savefig(path, dpi=150)


if __name__ == "__main__":
    main()
