import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import tqdm.std

from classy_gc import core
from classy_gc.polygons import (
    Graph,
    TensorPolyOptimizer,
    TensorSkeletonOptimizer,
    contours,
    from_directions,
    from_map,
    resample,
    skeleton,
)
from classy_gc.polygons.optimizers import shown
from tests.polygons.shapes import ROOMS, rectangle, rendered, rooms

BUILDINGS = [rectangle(20, 50, 30, (45, 50)), rectangle(20, 20, 30, (110, 40))]
BUILDINGS += [rectangle(20, 20, 20, (155, 100))]  # on the border of the image
MAP = rendered(BUILDINGS)
U = np.full(MAP.shape, np.exp(1j * np.radians(70)))
FRAME = from_directions(U, 1j * U)
POLY = Graph.of(resample(contours(MAP)), MAP.shape)
WALLS = np.zeros(MAP.shape)
WALLS[60:63, 5:90] = 1  # it crosses the first building and ends freely on both sides
SKELETON = Graph.of(resample(skeleton(MAP, WALLS, keep_tips=True)), MAP.shape)
CASES = {
    "contours": (TensorPolyOptimizer, POLY, core.SGD, torch.optim.SGD, {"momentum": 0.9}),
    "skeleton": (TensorSkeletonOptimizer, SKELETON, core.Adam, torch.optim.Adam, {}),
}
cases = pytest.mark.parametrize("case", CASES)
layouts = pytest.mark.parametrize("layout", ["2n", "n2"])


def built(case, **options):
    cls, graph, *_ = CASES[case]
    return cls(graph, MAP, FRAME, **options)


def means(optimizer):
    """The coordinates of each connected part, and whether all of its vertices may move."""
    parts = optimizer.graph.parts
    count = np.bincount(parts)[:, None]
    x = optimizer.positions.detach().double().numpy()
    sums = np.stack([np.bincount(parts, x[:, k]) for k in (0, 1)], axis=1)
    return sums / count, np.bincount(parts, optimizer.graph.fixed) == 0


@cases
@layouts
def test_what_gc_keeps(case, layout):
    optimizer = built(case, layout=layout)
    assert type(optimizer.optimizer) is CASES[case][2]
    x = optimizer.positions.detach().clone()
    before, free = means(optimizer)
    assert free.any()
    optimizer.optimize()
    y = optimizer.positions.detach()
    moved = (y - x).abs().amax(1)
    assert moved.max() > 0.2
    fixed = torch.from_numpy(optimizer.graph.fixed)
    assert fixed.any()
    assert torch.equal(y[fixed], x[fixed])
    if layout == "2n":
        after, _ = means(optimizer)
        assert np.abs(after - before)[free].max() < 1e-3  # of float32
        assert (y - x).sum(1).abs().max() > 0.2
    else:
        assert (y - x).sum(1).abs().max() < 2e-3  # row + column of each vertex
        assert (y - x).diff(dim=1).abs().max() > 0.2


@cases
@pytest.mark.parametrize("use_gc", [True, False])
def test_with_gc_an_outline_that_lies_beside_stays_there(case, use_gc):
    graph = dataclasses.replace(CASES[case][1], fixed=np.zeros_like(CASES[case][1].fixed))
    graph.positions[:] += [0.7, -0.7]
    optimizer = CASES[case][0](graph, MAP, FRAME, use_gc=use_gc)
    graph.positions[:] -= [0.7, -0.7]
    before, _ = means(optimizer)
    optimizer.optimize()
    column = [graph.positions[graph.parts == k, 1].max() for k in range(len(before))]
    free = (np.array(column) < 158) & (np.bincount(graph.parts, graph.degree == 1) == 0)
    drift = (means(optimizer)[0] - before)[free]  # neither on the border nor crossed by a wall
    if use_gc:
        assert np.abs(drift).max() < 1e-3  # of float32
    else:
        assert (drift * [-1, 1] > 0.05).all()


@cases
@layouts
def test_without_gc_it_is_torchs_optimizer_step_by_step(case, layout):
    cls, graph, _, plain, options = CASES[case]
    ours = built(case, layout=layout, use_gc=False, steps=60)
    theirs = copy.copy(ours)
    x = torch.nn.Parameter(ours.positions.detach().clone())
    reference = plain([x], lr=cls.LR, **options)
    fixed = torch.from_numpy(graph.fixed)
    start = x.detach().clone()
    for k in range(60):
        progress = k * cls.STEPS / 60
        type(theirs).positions = property(lambda self: x)
        try:
            reference.zero_grad()
            theirs.step_count = k
            theirs.energy().backward()
        finally:
            type(theirs).positions = POSITIONS[case]
        if case == "contours":
            x.grad.clamp_(-1, 1)
            factor = min(1.0, 0.1 + 0.9 * progress / 50)
        else:
            factor = 0.98**progress
        reference.param_groups[0]["lr"] = cls.LR * factor
        reference.step()
        with torch.no_grad():
            x[fixed] = start[fixed]
        ours.step()
        assert torch.allclose(ours.positions, x, atol=2e-3), k


@cases
def test_energy_falls(case):
    optimizer = built(case)
    weights = optimizer.weights(optimizer.STEPS)
    optimizer.weights = lambda step: weights
    before = optimizer.energy().item()
    optimizer.optimize()
    assert optimizer.energy().item() < 0.6 * before


def test_published_layout_loses_half_of_every_move():
    energies = {}
    interior = rendered(BUILDINGS[:2])
    graph = Graph.of(resample(contours(interior)))
    for layout in ("2n", "n2"):
        optimizer = TensorPolyOptimizer(graph, interior, FRAME, layout=layout)
        optimizer.optimize()
        energies[layout] = optimizer.energy().item()
    assert energies["n2"] > 2 * energies["2n"]


def test_rows_are_coordinates_of_one_part_each():
    equal = [rectangle(0, 10, 10, (20 * k, 60)) for k in range(1, 8)]
    graph = Graph.of(resample(contours(rendered(equal))))
    optimizer = TensorPolyOptimizer(graph, MAP, FRAME)
    (p,) = optimizer.optimizer.param_groups[0]["params"]  # seven of equal size
    n = len(graph.positions) // 7
    assert p.shape == (14, n)
    rows = {tuple(row) for row in p.detach().numpy().tolist()}
    for part in range(7):
        for axis in (0, 1):
            assert tuple(np.float32(graph.positions[graph.parts == part, axis]).tolist()) in rows


def test_tensors_are_few():
    random = np.random.default_rng(0)
    sizes = random.integers(4, 300, 500)
    angles = [np.linspace(0, 2 * np.pi, 200)] * 500
    paths = []
    for k, (size, angle) in enumerate(zip(sizes, angles, strict=True)):
        path = np.stack([np.cos(angle), np.sin(angle)], axis=1) * size / np.pi
        path[-1] = path[0]
        paths.append(path + np.array([1000.0 * k, 0]))
    graph = Graph.of(resample(paths))
    optimizer = TensorPolyOptimizer(graph, MAP, FRAME)
    params = optimizer.optimizer.param_groups[0]["params"]
    assert len(params) < 160
    assert sum(p.shape[0] for p in params) == 1000
    any_counts = Graph.of(paths)  # of one size
    assert len(TensorPolyOptimizer(any_counts, MAP, FRAME).optimizer.param_groups[0]["params"]) == 1


@cases
def test_nothing_to_refine(case):
    optimizer = CASES[case][0](Graph.of([]), MAP, FRAME)
    assert optimizer.optimize().shape == (0, 2)


def test_edges_draw_the_wall_between_rooms():
    interior, edges = rooms()
    graph = Graph.of(resample(skeleton(interior, edges)), interior.shape)
    wall = (np.abs(graph.positions - [60, 79.5]) < [30, 5]).all(axis=1)
    graph.positions[wall, 1] += 0.7
    off = []
    for given in (None, edges):
        optimizer = TensorSkeletonOptimizer(graph, interior, from_map(interior), given)
        off.append(np.abs(optimizer.optimize()[wall, 1] - (ROOMS[1].bounds[0] - 0.5)).mean())
    assert off[1] < 0.15 < 0.25 < off[0]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"layout": "nn"}, r"layout must be one of .*'nn'"),
        ({"steps": -1}, "steps must be >= 0, not -1"),
        ({"edges": np.zeros((3, 4))}, "edges is 3×4, interior 120×160"),
        ({"frame": from_map(np.zeros((3, 4)))}, "frame field is 3×4, the map 120×160"),
    ],
)
def test_bad_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        TensorPolyOptimizer(**{"graph": POLY, "interior": MAP, "frame": FRAME, **options})


def test_without_a_terminal_it_is_a_line_a_minute(monkeypatch, capsys):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(tqdm.std, "time", lambda: clock.now)
    for _ in shown(range(2000), "tiles"):
        clock.now += 0.125  # 250 seconds in all
    lines = [line.strip() for line in capsys.readouterr().err.split("\n")]
    assert lines == [f"tiles: {n} of 2000" for n in (480, 960, 1440, 1920)] + [""]


POSITIONS = {case: CASES[case][0].positions for case in CASES}
