import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classy_gc.polygons import Graph, from_directions, resample
from classy_gc.polygons.frame_field import FrameField
from classy_gc.polygons.graph import oblique


def circle(radius, centre=(0.0, 0.0), n=100):
    angle = np.linspace(0, 2 * np.pi, n + 1)
    angle[-1] = 0
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius + centre


@given(st.lists(st.floats(1, 300), min_size=1, max_size=40))
def test_resampled_circles(radii):
    paths = [circle(r, (1000.0 * k, 0)) for k, r in enumerate(radii)]
    new = resample(paths, spacing=2)
    for old, path in zip(paths, new, strict=True):
        assert (path[0] == path[-1]).all()
        assert (path[0] == old[0]).all()
        length = np.hypot(*np.diff(old, axis=0).T).sum()
        assert max(4, length / 2) <= len(path) - 1 <= max(4, length / 2 + 2)
        assert len(path) % 2 == 1


def test_resampling_keeps_ends_and_equal_distances():
    plus = [np.array([[0.0, 0.0], [10.0 * np.cos(a), 10 * np.sin(a)]]) for a in (0, 2, 4)]
    graph = Graph.of(resample(plus))
    assert len(np.unique(graph.parts)) == 1
    for old, path in zip(plus, graph.paths(), strict=True):
        assert (path[[0, -1]] == old).all()
        steps = np.hypot(*np.diff(path, axis=0).T)
        assert np.allclose(steps, steps[0])
        assert steps[0] <= 2


def test_incidences():
    #   0 ─ a ─ 1 ─ 2, with 1 ─ 3, and a circle by itself
    paths = [
        np.array([[0.0, 0], [0, 1], [0, 2]]),
        np.array([[0.0, 2], [0, 3]]),
        np.array([[0.0, 2], [1, 2]]),
        np.array([[9.0, 9], [9, 11], [11, 9], [9, 9]]),
    ]
    graph = Graph.of(paths)
    assert len(graph.positions) == 8
    assert len(graph.edges) == 7
    assert sorted(np.bincount(graph.parts).tolist()) == [3, 5]
    centre = graph.positions[graph.turns[:, 1]].tolist()
    assert sorted(centre) == [[0, 1], [9, 9], [9, 11], [11, 9]]
    assert graph.positions[graph.junctions[:, 1]].tolist() == [[0, 2]] * 3
    assert len({frozenset(pair) for pair in graph.junctions[:, ::2].tolist()}) == 3
    fixed = graph.positions[graph.fixed].tolist()
    assert sorted(fixed) == [[0, 0], [0, 3], [1, 2]]
    for path, back in zip(paths, graph.paths(), strict=True):
        assert (path == back).all()


def test_the_border_is_fixed():
    square = np.array([[-0.5, -0.5], [-0.5, 3], [3, 3], [3, -0.5], [-0.5, -0.5]])
    graph = Graph.of([square], shape=(10, 10))
    assert graph.fixed.sum() == 3
    assert not graph.fixed[(graph.positions == 3).all(axis=1)].any()


@pytest.mark.parametrize("paths", [[], resample([])])
def test_no_paths(paths):
    graph = Graph.of(paths, (4, 4))
    assert graph.positions.shape == (0, 2)
    assert graph.edges.shape == (0, 2)
    assert graph.turns.shape == graph.junctions.shape == (0, 3)
    assert graph.paths() == []


def test_align_leaves_an_oblique_wall_to_a_frame_that_is_certain():
    wall = Graph.of([np.linspace([5, 5], [45, 45], 30)])
    u = np.ones((50, 50), complex)
    certain = from_directions(u, 1j * u)
    assert not oblique(wall, certain).any()
    assert oblique(wall, FrameField(*(0.9 * c for c in certain))).all()
