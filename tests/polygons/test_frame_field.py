import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from classy_gc.polygons.frame_field import (
    directions,
    from_channels,
    from_directions,
    from_map,
    polynomial,
)
from tests.polygons.shapes import rectangle, rendered

angles = st.floats(0, np.pi)


@given(angles, angles)
def test_directions_are_the_roots(a, b):
    u, v = np.exp([1j * a]), np.exp([1j * b])
    frame = from_directions(u, v)
    for root in (u, -u, v, -v):
        assert abs(polynomial(root, frame)) < 1e-12
    for root in directions(frame):
        assert abs(polynomial(root, frame)) < 1e-6
    found = np.sort_complex(np.concatenate(directions(frame)) ** 2)
    assert np.allclose(found, np.sort_complex(np.concatenate([u, v]) ** 2), atol=1e-6)


@given(angles)
def test_in_the_middle_of_a_right_angle(a):
    u = np.exp([1j * a])
    z = u * np.exp(0.25j * np.pi)
    assert abs(polynomial(z, from_directions(u, 1j * u))[0]) ** 2 == pytest.approx(4)


def test_channels_and_tensors():
    random = np.random.default_rng(0)
    u, v = np.exp(2j * np.pi * random.random((2, 3, 4)))
    frame = from_directions(u, v)
    channels = np.stack([frame.c0.real, frame.c0.imag, frame.c2.real, frame.c2.imag])
    for given_as in (channels, torch.as_tensor(channels)):
        assert all(map(np.allclose, from_channels(given_as), frame))
    tensors = directions(from_channels(torch.as_tensor(channels)))
    assert all(map(np.allclose, tensors, directions(frame)))


@pytest.mark.parametrize("shape", [(3, 2, 2), (4, 2), (1, 4, 2, 2)])
def test_channels_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"\[4, height, width\].*" + str(list(shape))[1:-1]):
        from_channels(np.zeros(shape))


@pytest.mark.parametrize("degrees", [0, 20, 45, 70])
def test_frame_of_a_map_follows_its_walls(degrees):
    frame = from_map(rendered(rectangle(degrees)))
    wall = np.exp(1j * np.radians(90 - degrees))  # of (row, column), where rotate turns (x, y)
    assert abs(frame.c0[60, 80]) > 0.8
    u, v = directions(frame)
    for direction in (u[60, 80], v[60, 80]):
        turn = np.angle((direction / wall) ** 4)
        assert abs(np.degrees(turn) / 4) < 0.5
    assert not np.any(frame.c2)


def test_a_flat_map_suggests_nothing():
    assert not np.any(from_map(np.full((30, 41), 0.3)).c0)
