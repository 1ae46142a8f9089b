"""Moves the vertices of outlines with the GC optimizers until their energy is low."""

import math
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from classy_gc.core import SGD, Adam
from classy_gc.polygons import energy
from classy_gc.polygons.energy import Weights
from classy_gc.polygons.frame_field import FrameField, as_frame
from classy_gc.polygons.graph import Graph, lay_out, oblique
from classy_gc.polygons.maps import as_map

_LAYOUTS = ("2n", "n2")
_CORNERS_EVERY = 10  # steps; turns become corners slowly


def shown(items: Collection, label: str) -> Iterable:
    """Yields items and shows their progress on stderr: a bar on a terminal, else a line a minute.

    Args:
        items: to iterate over.
        label: names the work.

    Example:
        >>> list(shown(range(3), "steps"))
        [0, 1, 2]
    """
    options = {"desc": label, "leave": False, "delay": 1}
    if not sys.stderr.isatty():
        options |= {"delay": 60, "mininterval": 60, "bar_format": "{desc}: {n} of {total}\n"}
    return tqdm(items, **options)


class _VertexOptimizer:
    """The common base of the optimizers of vertices."""

    STEPS: int
    WEIGHTS: Weights
    WEIGHTS_ALONE: Weights | None = None
    LR: float
    CLAMP = math.inf  # of gradients
    _optimizer: Callable[[list[Tensor], bool], torch.optim.Optimizer]
    _lr_factor: Callable[[float], float]

    def __init__(
        self,
        graph: Graph,
        interior: Any,
        frame: FrameField,
        edges: Any = None,
        layout: str = "2n",
        use_gc: bool = True,
        weights: Weights | None = None,
        lr: float | None = None,
        steps: int | None = None,
        threshold: float = 0.5,
        device: str | torch.device = "cpu",
    ) -> None:
        if layout not in _LAYOUTS:
            raise ValueError(f"layout must be one of {_LAYOUTS}, not {layout!r}")
        if steps is not None and steps < 0:
            raise ValueError(f"steps must be >= 0, not {steps}")
        self.graph, self.threshold = graph, threshold
        self.weights = weights or (edges is None and self.WEIGHTS_ALONE) or self.WEIGHTS
        self.steps = self.STEPS if steps is None else steps
        self.lr = self.LR if lr is None else lr
        self.step_count = 0

        def tensor(x: np.ndarray) -> Tensor:
            return torch.as_tensor(x, device=device)

        interior = as_map(interior)
        frame = as_frame(frame, interior.shape)
        self.interior, self.frame = tensor(interior), FrameField(*map(tensor, frame))
        self.edges = None if edges is None else tensor(as_map(edges, "edges", interior.shape))
        self._edges = tensor(graph.edges)
        self._aligned = tensor(graph.edges[~oblique(graph, frame)])
        self._turns = tensor(graph.turns)
        self._junctions = tensor(graph.junctions)
        self._corners = self._walls = None
        place, shapes = lay_out(graph, layout)
        self._place = tensor(place)
        # The energy reads one buffer, and the optimizer's parameters are views of it; the same goes
        # for their gradients.
        start = torch.as_tensor(graph.positions, dtype=torch.float32, device=device)
        self._buffer = torch.empty(start.numel(), device=device)
        self._buffer[self._place] = start
        self._fixed = self._place[tensor(graph.fixed)]
        self._fixed_at = self._buffer[self._fixed]
        self._buffer.requires_grad_()
        self._buffer.grad = torch.zeros_like(self._buffer)
        sizes = [rows * columns for rows, columns in shapes]
        values, gradients = self._buffer.detach().split(sizes), self._buffer.grad.split(sizes)
        params = [torch.nn.Parameter(x.view(n)) for x, n in zip(values, shapes, strict=True)]
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient.view_as(param)
        # An optimizer refuses an empty list, but a map may have no buildings.
        self.optimizer = self._optimizer(params or [torch.nn.Parameter(start)], use_gc)

    @property
    def positions(self) -> Tensor:
        return self._buffer.index_select(0, self._place.flatten()).view(-1, 2)

    def energy(self) -> Tensor:
        """The energy at this step, a scalar with gradient."""
        x = self.positions
        weights = self.weights(self.step_count * self.STEPS / max(self.steps, 1))
        if self.edges is None:
            weights = {term: w for term, w in weights.items() if term != "ridge"}
        due = self._corners is None or self.step_count % _CORNERS_EVERY == 0
        if due and ("curvature" in weights or "corner" in weights):
            at_corner = energy.are_corners(x.detach(), self._turns, self.frame)
            self._corners, self._walls = self._turns[at_corner], self._turns[~at_corner]
        terms: dict[str, Callable[[], Tensor]] = {
            "level": lambda: energy.level(x, self.interior, self.threshold),
            "ridge": lambda: energy.ridge(x, self.edges),
            "length": lambda: energy.length(x, self._edges),
            "align": lambda: energy.align(x, self._aligned, self.frame),
            "curvature": lambda: energy.curvature(x, self._walls),
            "corner": lambda: energy.corner(x, self._corners),
            "junction": lambda: energy.corner(x, self._junctions),
        }
        return sum((w * terms[term]() for term, w in weights.items()), x.new_zeros(()))

    def step(self) -> float:
        """Takes one step.

        Returns:
            The energy before it.
        """
        self._buffer.grad.zero_()
        value = self.energy()
        if value.requires_grad:
            value.backward()
        self._buffer.grad.clamp_(-self.CLAMP, self.CLAMP)
        factor = self._lr_factor(self.step_count * self.STEPS / max(self.steps, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * factor
        self.optimizer.step()
        # A centralized update moves fixed vertices even though their gradient is zero.
        with torch.no_grad():
            self._buffer[self._fixed] = self._fixed_at
        self.step_count += 1
        return value.item()

    def optimize(self) -> np.ndarray:
        """Takes all steps, and shows its progress if that takes a while.

        Returns:
            The positions for ``Graph.paths``, shape ``[n, 2]``.
        """
        if len(self.graph.positions):
            for _ in shown(range(self.steps), "refine"):
                self.step()
        positions = self.positions.detach().cpu().double().numpy()
        if not np.isfinite(positions).all():
            raise ValueError(f"the positions are no longer finite with lr {self.lr:g}")
        return positions


class TensorPolyOptimizer(_VertexOptimizer):
    """Active contours: SGD with momentum 0.9, centralized.

    The learning rate rises from a tenth over the first half of the steps; gradients are
    clamped to ±1. Vertices on the border of the image stay.

    Args:
        graph: paths and vertices; ``Graph.of`` makes it.
        interior: probability of a building, an array or tensor of shape ``[H, W]``.
        frame: of arrays or tensors of shape ``[H, W]``.
        edges: probability of a wall, as ``interior``, for the term ``ridge`` (default: None,
            without that term)
        layout: what a row of the optimizer's tensors is, whose mean GC subtracts. ``"2n"``: a
            coordinate of the vertices of one connected part, so that GC keeps their mean where
            it is. ``"n2"``: a vertex, as published; GC keeps row + column of each vertex, which
            can move along one diagonal only (default: ``"2n"``)
        use_gc: centralize (default: True)
        weights: of the terms of the energy by step (default: None, level 0.5, length 0.005,
            align 1)
        lr: learning rate (default: 0.02; published: 0.01)
        steps: how many ``optimize`` takes; the schedules are stretched to them (default:
            100; published: 200)
        threshold: the probability on the outline (default: 0.5)
        device: where to compute (default: ``"cpu"``)

    Attributes:
        positions: of the vertices in the order of the graph, a tensor of shape ``[n, 2]``.
        optimizer: of ``classy_gc.core``.

    Raises:
        ValueError: an unknown layout, steps < 0, or a frame field of another shape than the map.

    Source: Girard et al., section 3.3, https://arxiv.org/abs/2004.14875.

    Example:
        >>> from classy_gc.polygons import Graph, contours, from_map, resample
        >>> interior = np.zeros((32, 32), np.float32)
        >>> interior[8:24, 8:24] = 1
        >>> graph = Graph.of(resample(contours(interior)), interior.shape)
        >>> positions = TensorPolyOptimizer(graph, interior, from_map(interior)).optimize()
        >>> positions.shape == graph.positions.shape
        True
    """

    STEPS = 100
    LR = 0.02
    CLAMP = 1.0
    WEIGHTS = Weights([0], level=[0.5], length=[0.005], align=[1.0])

    def _optimizer(self, params: list[Tensor], use_gc: bool) -> torch.optim.Optimizer:
        return SGD(params, lr=self.lr, momentum=0.9, use_gc=use_gc)

    def _lr_factor(self, progress: float) -> float:
        return min(1.0, 0.1 + 0.9 * progress / (self.STEPS / 2))


class TensorSkeletonOptimizer(_VertexOptimizer):
    """Active skeletons: Adam, whose update is centralized.

    The learning rate falls by 2 % per step. The weights shift from the map to the frame field, and
    from there to straight walls and right angles. Tips and vertices on the border of the image
    stay; a junction is one vertex and moves as one.

    Args:
        graph: paths and vertices; ``Graph.of`` makes it.
        interior: probability of a building, an array or tensor of shape ``[H, W]``.
        frame: of arrays or tensors of shape ``[H, W]``.
        edges: probability of a wall, as ``interior``, for the term ``ridge`` (default: None,
            without that term)
        layout: what a row of the optimizer's tensors is, whose mean GC subtracts. ``"2n"``: a
            coordinate of the vertices of one connected part, so that GC keeps their mean where
            it is. ``"n2"``: a vertex, as published; GC keeps row + column of each vertex, which
            can move along one diagonal only (default: ``"2n"``)
        use_gc: centralize (default: True)
        weights: of the terms of the energy by step (default: None, see ``WEIGHTS``)
        lr: learning rate (default: 0.1)
        steps: how many ``optimize`` takes; the schedules are stretched to them (default:
            300)
        threshold: the probability on the outline (default: 0.5)
        device: where to compute (default: ``"cpu"``)

    Attributes:
        positions: of the vertices in the order of the graph, a tensor of shape ``[n, 2]``.
        optimizer: of ``classy_gc.core``.

    Raises:
        ValueError: an unknown layout, steps < 0, or a frame field of another shape than the map.

    Source: Girard et al., section 3.3, https://arxiv.org/abs/2004.14875.

    Example:
        >>> from classy_gc.polygons import Graph, from_map, resample, skeleton
        >>> interior = np.zeros((32, 32), np.float32)
        >>> interior[8:24, 8:24] = 1
        >>> graph = Graph.of(resample(skeleton(interior)), interior.shape)
        >>> positions = TensorSkeletonOptimizer(graph, interior, from_map(interior)).optimize()
        >>> positions.shape == graph.positions.shape
        True
    """

    STEPS = 300
    LR = 0.1
    WEIGHTS = Weights(
        [0, 100, 200, 300],
        level=[1, 1, 0.5, 0.5],
        ridge=[2, 2, 1, 1],
        align=[0, 0.5, 1, 1],
        length=[0.1, 0.01, 0.005, 0.005],
        curvature=[0, 0, 0.1, 0.1],
        corner=[0, 0, 0.1, 0.1],
        junction=[0, 0, 0.1, 0.1],
    )
    #: Without a map of walls no ridge holds the vertices, and more ``length`` would shrink thin
    #: buildings.
    WEIGHTS_ALONE = Weights(WEIGHTS.steps, **WEIGHTS.terms | {"length": [0.02, 0.01, 0.005, 0.005]})
    #: The weights of the paper's program, which ignore the map in the end.
    PUBLISHED_WEIGHTS = Weights(
        [0, 100, 200, 300],
        level=[1, 0.1, 0, 0],
        align=[0, 0.05, 0, 0],
        length=[0.1, 0.01, 0, 0],
        curvature=[0, 0, 1, 0],
        corner=[0, 0, 0.5, 0],
        junction=[0, 0, 0.5, 0],
    )

    def _optimizer(self, params: list[Tensor], use_gc: bool) -> torch.optim.Optimizer:
        return Adam(params, lr=self.lr, use_gc=use_gc)

    def _lr_factor(self, progress: float) -> float:
        return 0.98**progress
