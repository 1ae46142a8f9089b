import numpy as np
import pytest
import torch
from scipy import ndimage

from classy_gc.polygons import FrameField, from_directions
from classy_gc.polygons import energy as terms
from classy_gc.polygons.energy import Weights
from classy_gc.polygons.frame_field import nearest

RANDOM = np.random.default_rng(0)
MAP = torch.from_numpy(ndimage.gaussian_filter(RANDOM.random((12, 15)), 1))
FRAME = FrameField(
    *map(torch.from_numpy, from_directions(*np.exp(1j * RANDOM.random((2, 12, 15)))))
)
POINTS = torch.from_numpy(1.3 + 8 * RANDOM.random((9, 2)))
EDGES = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 8]])
TURNS = torch.tensor([[0, 1, 2], [1, 2, 3], [4, 5, 6], [5, 6, 7]])

CASES = {
    "level": lambda p: terms.level(p, MAP, 0.4),
    "ridge": lambda p: terms.ridge(p, MAP),
    "length": lambda p: terms.length(p, EDGES),
    "align": lambda p: terms.align(p, EDGES, FRAME),
    "curvature": lambda p: terms.curvature(p, TURNS),
    "corner": lambda p: terms.corner(p, TURNS),
}


@pytest.mark.parametrize("term", CASES)
def test_gradients_are_those_of_finite_differences(term):
    assert torch.autograd.gradcheck(CASES[term], POINTS.clone().requires_grad_(), eps=1e-6)


@pytest.mark.parametrize("term", CASES)
def test_values(term):
    """Compared with the formulas, written out for one vertex at a time."""
    p = POINTS.numpy()

    def tangent(a, b):
        z = complex(*(p[b] - p[a]))
        return z / abs(z)

    def turn(a, b, c):
        return tangent(b, c) / tangent(a, b)

    def f(a, b):
        row, column = np.rint((p[a] + p[b]) / 2).astype(int)
        z, c0, c2 = tangent(a, b), FRAME.c0[row, column].item(), FRAME.c2[row, column].item()
        return z**4 + c2 * z**2 + c0

    def at(q):
        return ndimage.map_coordinates(MAP.numpy(), q[:, None], order=1)[0]

    expected = {
        "level": lambda: sum((at(q) - 0.4) ** 2 for q in p),
        "ridge": lambda: sum((1 - at(q)) ** 2 for q in p),
        "length": lambda: sum(((p[b] - p[a]) ** 2).sum() for a, b in EDGES.tolist()),
        "align": lambda: sum(abs(f(a, b)) ** 2 for a, b in EDGES.tolist()),
        "curvature": lambda: sum(abs(turn(*t) - 1) ** 2 for t in TURNS.tolist()),
        "corner": lambda: sum((1 - (turn(*t) ** 8).real) / 32 for t in TURNS.tolist()),
    }
    assert CASES[term](POINTS).item() == pytest.approx(expected[term](), rel=1e-9)


def test_edges_under_a_tenth_of_a_pixel_are_skipped():
    points = torch.tensor([[1.0, 1.0], [1.05, 1.08], [4.0, 1.0]], dtype=torch.float64)
    points.requires_grad_()
    short, long = torch.tensor([[0, 1]]), torch.tensor([[1, 2]])
    assert terms.align(points, short, FRAME).item() == 0
    both = terms.align(points, torch.cat([short, long]), FRAME)
    assert both.item() == terms.align(points, long, FRAME).item() > 0
    both.backward()
    assert not points.grad[0].any()
    same = points.detach()[[0, 0, 2]].requires_grad_()
    for term in (terms.align(same, short, FRAME), terms.curvature(same, torch.tensor([[0, 1, 2]]))):
        term.backward()
    assert torch.isfinite(same.grad).all()


def test_beyond_the_border_the_map_is_constant():
    outside = torch.tensor([[-3.0, 2], [20, 2], [5, -1], [5, 99]], dtype=torch.float64)
    inside = torch.tensor([[0.0, 2], [11, 2], [5, 0], [5, 14]], dtype=torch.float64)
    assert torch.allclose(terms.sample(MAP, outside), terms.sample(MAP, inside))


def test_weights():
    weights = Weights([0, 100, 200], level=[1, 0, 0], align=[0, 0.5, 0.5])
    assert weights(0) == {"level": 1}
    assert weights(25) == {"level": 0.75, "align": 0.125}
    assert weights(1000) == {"align": 0.5}
    with pytest.raises(ValueError, match=r"'lenght'.*'length'"):
        Weights([0], lenght=[1])
    with pytest.raises(ValueError, match=r"level must have 2 weights"):
        Weights([0, 1], level=[1])


def test_positions_that_are_not_finite_read_no_other_memory():
    """``grid_sample`` ends in a segmentation fault at some of them."""
    points = torch.tensor([[1.0, np.nan], [np.inf, 2], [-np.inf, 3], [1e38, -1e38]] * 999)
    frame = FrameField(*(c.to(torch.complex64) for c in FRAME))
    assert terms.sample(MAP.float(), points).abs().max() <= MAP.max()
    assert torch.isfinite(nearest(frame, points).c0).all()
