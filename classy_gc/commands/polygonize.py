"""``classy-gc polygonize``: polygons of the buildings in a map of probabilities."""

import argparse
import importlib.util
import time
from pathlib import Path

from classy_gc import plots
from classy_gc.table import counted

_NEEDED = ("shapely", "skimage", "scipy", "PIL", "rasterio", "geopandas")


def _check_flags(args: argparse.Namespace) -> None:
    if args.tile <= 0 or args.tile % 4:
        raise ValueError(f"--tile must be a multiple of 4, and > 0, not {args.tile}")
    if args.method == "contours" and args.edges:
        raise ValueError("--edges goes with --method skeleton, not contours")
    inputs = (args.map, args.edges, args.frame_field, args.truth)
    read = {Path(path).resolve() for path in inputs if path}
    for flag in ("output", "picture"):
        path = getattr(args, flag)
        if path and Path(path).resolve() in read:
            raise ValueError(f"--{flag} {path} would replace a file that is read")


def _check_device(name: str) -> None:
    import torch

    try:
        torch.zeros(1, device=name).item()  # the device `meta` has no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name}: {reason}") from error


def run(args: argparse.Namespace) -> int:
    """Writes the polygons of the buildings in a map of probabilities to a file.

    Args:
        args: the flags.

    Returns:
        0. Bad input exits with code 2 and one line on stderr, and nothing is written.
    """
    if not all(map(importlib.util.find_spec, _NEEDED)):
        raise ValueError("polygons need more packages: pip install 'classy-gc[polygons]'")
    _check_flags(args)
    _check_device(args.device)
    # Imported only now, so that errors of flags come at once.
    from classy_gc.polygons import files, maps, metrics, polygonize_map
    from classy_gc.polygons.frame_field import open_frame_field

    interior = maps.open_map(args.map, args.band)
    files.check_output(args.output, interior)
    edges = maps.open_map(args.edges) if args.edges else None
    frame = open_frame_field(args.frame_field, interior.shape) if args.frame_field else None
    truth = files.read_polygons(args.truth, interior) if args.truth else None
    flags = ("tile", "threshold", "method", "tolerance", "min_area", "steps", "device")
    options = {flag: getattr(args, flag) for flag in flags}
    start = time.perf_counter()
    buildings = polygonize_map(interior, edges, frame, **options)
    seconds = time.perf_counter() - start
    count = files.write_polygons(args.output, buildings.polygons, buildings.probability, interior)
    print(f"{counted(count, 'polygon')} in {seconds:.1f} s")
    if count < len(buildings.polygons):
        print(f"  {len(buildings.polygons) - count:,} collapsed in the map's CRS, and are left out")
    if truth is not None:
        found = {"before": buildings.before, "after": buildings.polygons}
        print(metrics.table({name: metrics.measure(p, truth) for name, p in found.items()}))
        print(metrics.OVER)
    print(f"  polygons  {args.output}")
    if args.picture:
        plots.save(metrics.picture(interior, buildings), args.picture)
        print(f"  picture   {args.picture}")
    return 0
