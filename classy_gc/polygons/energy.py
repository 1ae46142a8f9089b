"""The energy of a graph of vertices: one function per term, and weights that change.

Positions are (row, column) in pixels, a tensor of shape ``[n, 2]``; each term is a scalar.

Source: Girard et al., *Polygonal Building Extraction by Frame Field Learning*, CVPR 2021,
https://arxiv.org/abs/2004.14875, section 3.3 and its supplement.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from classy_gc.polygons.frame_field import FrameField, directions, follows_u, nearest, polynomial

_SHORTEST = 0.1  # px; a shorter edge has no reliable direction


def sample(values: Tensor, positions: Tensor) -> Tensor:
    """The map at positions, bilinear between the centres of pixels and constant beyond.

    Args:
        values: shape ``[H, W]``.
        positions: shape ``[n, 2]``.

    Returns:
        Shape ``[n]``.

    Example:
        >>> sample(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.25]])).tolist()
        [0.25]
    """
    last = positions.new_tensor(values.shape) - 1
    grid = (2 * positions / last.clamp(min=1) - 1).flip(1)
    grid = grid.nan_to_num(0, 2, -2)  # at NaN grid_sample reads outside the map, and may crash
    return torch.nn.functional.grid_sample(
        values[None, None], grid[None, None], padding_mode="border", align_corners=True
    ).flatten()


def _places(positions: Tensor, vertices: Tensor) -> list[Tensor]:
    """The positions of each column of vertices; ``index_select`` is twice as fast as an index."""
    return [positions.index_select(0, column) for column in vertices.T]


def _tangents(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The direction, as a complex number, and the length from each start to its end."""
    vector = end - start
    length = torch.linalg.vector_norm(vector, dim=1)
    unit = vector / length.clamp(min=_SHORTEST)[:, None]
    return torch.view_as_complex(unit), length


def level(positions: Tensor, interior: Tensor, threshold: float = 0.5) -> Tensor:
    """``Σ (I(p) − ½)²`` over vertices: draws outlines to where the map crosses the threshold.

    Args:
        positions: shape ``[n, 2]``.
        interior: probability of a building, shape ``[H, W]``.
        threshold: in place of ½ (default: 0.5)

    Example:
        >>> level(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]])).item()
        0.25
    """
    return (sample(interior, positions) - threshold).square().sum()


def ridge(positions: Tensor, edges_map: Tensor) -> Tensor:
    """``Σ (1 − E(p))²`` over vertices: draws walls to the ridge of a map of walls.

    The paper does not have this term. Where buildings touch, the map of interiors is flat and does
    not show the wall between them.

    Args:
        positions: shape ``[n, 2]``.
        edges_map: probability of a wall, shape ``[H, W]``.

    Example:
        >>> ridge(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.5, 1.0]])).item()
        0.25
    """
    return (1 - sample(edges_map, positions)).square().sum()


def length(positions: Tensor, edges: Tensor) -> Tensor:
    """``Σ |e|²`` over edges: keeps vertices at equal distances and outlines smooth.

    Args:
        positions: shape ``[n, 2]``.
        edges: their two vertices, shape ``[m, 2]``.

    Example:
        >>> length(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0, 1]])).item()
        25.0
    """
    start, end = _places(positions, edges)
    return (end - start).square().sum()


def align(positions: Tensor, edges: Tensor, frame: FrameField) -> Tensor:
    """``Σ |f(e/|e|)|²`` over edges: turns them towards the frame field at their middle.

    Edges shorter than 0.1 px are left out.

    Args:
        positions: shape ``[n, 2]``.
        edges: their two vertices, shape ``[m, 2]``.
        frame: of tensors of shape ``[H, W]``.

    Example:
        >>> c0 = torch.full((2, 2), -1 + 0j)
        >>> diagonal = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        >>> round(align(diagonal, torch.tensor([[0, 1]]), FrameField(c0, 0 * c0)).item(), 3)
        4.0
    """
    start, end = _places(positions, edges)
    tangent, distance = _tangents(start, end)
    f = torch.view_as_real(polynomial(tangent, nearest(frame, (start + end) / 2)))
    return torch.where(distance > _SHORTEST, f.square().sum(1), 0).sum()


def _angles(positions: Tensor, turns: Tensor) -> Tensor:
    """How far the path turns at the middle one of each three vertices, as ``e^{iθ}``.

    Beside an edge that is too short it does not turn.
    """
    first, middle, last = _places(positions, turns)
    before, d1 = _tangents(first, middle)
    after, d2 = _tangents(middle, last)
    return torch.where(torch.minimum(d1, d2) > _SHORTEST, after * before.conj(), 1)


def curvature(positions: Tensor, turns: Tensor) -> Tensor:
    """``Σ |t₂ − t₁|² = Σ 2 − 2·cos θ`` over turns with tangents t₁ and t₂: straightens walls.

    Args:
        positions: shape ``[n, 2]``.
        turns: three vertices in a row each, shape ``[m, 3]``.

    Example:
        >>> corner = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> curvature(corner, torch.tensor([[0, 1, 2]])).item()
        2.0
    """
    return (2 - 2 * _angles(positions, turns).real).sum()


def corner(positions: Tensor, turns: Tensor) -> Tensor:
    """``Σ (1 − cos 8θ) / 32`` over turns: draws them to the next multiple of 45°.

    Near such a multiple the term is the squared distance to it in radians, as ``curvature`` is near
    0. At a junction, each pair of edges is a turn.

    Args:
        positions: shape ``[n, 2]``.
        turns: three vertices in a row each, shape ``[m, 3]``.

    Example:
        >>> right = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> round(corner(right, torch.tensor([[0, 1, 2]])).item(), 6)
        0.0
    """
    turn = _angles(positions, turns)
    for _ in range(3):
        turn = turn * turn
    return ((1 - turn.real) / 32).sum()


def are_corners(positions: Tensor, turns: Tensor, frame: FrameField) -> Tensor:
    """Which turns have one edge along each of the two directions of the frame.

    Args:
        positions: shape ``[n, 2]``.
        turns: three vertices in a row each, shape ``[m, 3]``.
        frame: of tensors of shape ``[H, W]``.

    Returns:
        Booleans, shape ``[m]``.

    Example:
        >>> c0 = torch.full((2, 2), -1 + 0j)
        >>> corner = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> are_corners(corner, torch.tensor([[0, 1, 2]]), FrameField(c0, 0 * c0)).tolist()
        [True]
    """
    first, middle, last = _places(positions, turns)
    at = directions(nearest(frame, middle))
    before, after = _tangents(first, middle)[0], _tangents(middle, last)[0]
    return follows_u(before, at) != follows_u(after, at)


class Weights:
    """The weight of each term at each step, interpolated linearly.

    Args:
        steps: at which weights are given, ascending.
        **terms: the weights of a term at these steps.

    Raises:
        ValueError: an unknown term, or not one weight per step.

    Example:
        >>> weights = Weights([0, 100], level=[1, 0.5], length=[0, 1])
        >>> weights(50)
        {'level': 0.75, 'length': 0.5}
    """

    TERMS = ("level", "ridge", "length", "align", "curvature", "corner", "junction")

    def __init__(self, steps: Sequence[float], **terms: Sequence[float]) -> None:
        for term, values in terms.items():
            if term not in self.TERMS:
                raise ValueError(f"there is no term {term!r} in the energy, only {self.TERMS}")
            if len(values) != len(steps):
                raise ValueError(f"{term} must have {len(steps)} weights, not {values}")
        self.steps, self.terms = list(steps), terms

    def __call__(self, step: float) -> Mapping[str, float]:
        """The weights that are not zero, by term."""
        values = {k: float(np.interp(step, self.steps, v)) for k, v in self.terms.items()}
        return {term: value for term, value in values.items() if value}
