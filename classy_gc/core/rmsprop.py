"""RMSprop, torch's and TensorFlow's, with gradient centralization."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from classy_gc.core.centralization import row_sums, shift_rows_
from classy_gc.core.centralized_optimizer import CentralizedOptimizer

#: parameters, gradients, v, momentum buffers and averages of d; the last two may be empty
_Lists: TypeAlias = tuple[list[Tensor], ...]

_DOC = """:class:`torch.optim.RMSprop` with gradient centralization{title}.

    With ``d = g + wd·p``:

    * ``v ← alpha·v + (1 − alpha)·d²``; with ``centered``, ``v`` less the square of the mean
      of ``d`` takes the place of ``v`` below;
    * ``u = {u}``, or with momentum ``u ← momentum·u + {u}``;
    * ``gc_loc=False`` (default): ``p −= lr·C(u)``; row means never move;
      ``gc_loc=True``: ``d = C(g + wd·p)``, ``p −= lr·u``.

    ``C`` subtracts from each row its mean. {off}

    Args:
        {params}.
        lr (float or Tensor): learning rate (default: 1e-2)
        alpha (float): decay rate of the second moment (default: 0.99)
        eps (float): added to the denominator{eps} (default: 1e-8)
        weight_decay (float): L2 decay ``wd`` (default: 0)
        momentum (float): momentum factor (default: 0)
        centered (bool): divide by the deviation, not the second moment (default: False)
        capturable (bool): safe to capture in a CUDA graph (default: False)
        foreach (bool, optional): torch's multi-tensor implementation
            (default: None, which leaves the choice to torch)
        maximize (bool): maximize the objective (default: False)
        differentiable (bool): let autograd run through the step; cannot be combined with
            {differentiable} (default: False)
        {gc}
        gc_loc (bool or float): centralize the gradient, not the update (default: False)

    Raises:
        {raises}

    {note}

    Source: {source}; Yong et al., *Gradient Centralization*, ECCV 2020,
    https://arxiv.org/abs/2004.01461.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer = {name}([weight], lr=0.05, use_gc=True)
        >>> (weight * torch.tensor([[-1.0, 3.0]])).sum().backward()
        >>> optimizer.step()  # the update (−10, 10) has mean 0 already
        >>> [round(x, 4) for x in weight[0].tolist()]
        [1.5, 0.5]
    """


def _doc(**texts: str) -> str:
    doc = _DOC
    for key, text in texts.items():
        doc = doc.replace(f"{{{key}}}", text)
    return doc


class RMSprop(CentralizedOptimizer, torch.optim.RMSprop):
    __doc__ = _doc(
        name="RMSprop",
        title="",
        u="d/(√v + eps)",
        eps="",
        off="With ``use_gc=False`` it is torch's RMSprop bit for bit.",
        differentiable="``use_gc``",
        source=":class:`torch.optim.RMSprop`",
    )

    _eps_under_root: ClassVar = False

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        # torch makes the buffer with the state; a schedule may raise momentum from 0 later.
        if group["momentum"] > 0:
            for p in group["params"]:
                if self.state.get(p) and "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return super()._init_group(group, *lists)

    def _centralized_update(self, plan: list[tuple[dict[str, Any], list[list[Tensor]]]]) -> None:
        # torch has no fused RMSprop, and every operation of its step goes over memory once. On
        # the CPU, a step in blocks of rows that fit the cache pays for GC and more.
        flags = ("foreach", "capturable", "differentiable")
        if (
            not any(batches for _, batches in plan)
            or any(group[flag] for group, _ in plan for flag in flags)
            or not all(_plain_on_cpu(p) for group, _ in plan for p in group["params"])
        ):
            super()._centralized_update(plan)
            return
        for group, batches in plan:
            eligible = {id(p) for batch in batches for p in batch}
            for tensors in self._tensors_by_parameter(group):
                gc = id(tensors[0][0]) in eligible
                for block in _row_blocks(tensors):
                    _rmsprop(group, *block, gc=gc, eps_under_root=self._eps_under_root)

    def _tensors_by_parameter(self, group: dict[str, Any], size: int = 1) -> Iterator[_Lists]:
        """Advances the step counts and yields parameters with their state, ``size`` at a time."""
        lists: tuple[list[Tensor], ...] = ([], [], [], [], [], [])
        self._init_group(group, *lists)
        *lists, steps = lists
        for t in steps:
            t.add_(1)
        for i in range(0, len(steps), size):
            yield tuple(xs[i : i + size] for xs in lists)


class RMSpropTF(RMSprop):
    __doc__ = _doc(
        name="RMSpropTF",
        title=", and TensorFlow's\n    denominator: ``eps`` inside the square root",
        u="d/√(v + eps)",
        eps=", under the square root",
        off="The second moment ``v`` is state and stays what it is: Classy\n"
        "    Vision's own ``rmsprop_tf`` overwrites it with its square root at every step.",
        differentiable="anything here",
        source=":class:`torch.optim.RMSprop`; https://github.com/tensorflow/tensorflow,\n"
        "    ``ApplyRMSProp``",
    )

    def _check_options(self, options: dict[str, Any]) -> None:
        super()._check_options(options)
        if options.get("differentiable"):
            raise ValueError("differentiable=True is not supported by RMSpropTF: it steps in place")

    _eps_under_root: ClassVar = True

    def _update(self) -> None:
        for group in self.param_groups:
            foreach = group["foreach"]
            if foreach is None:
                foreach = all(p.is_cuda for p in group["params"])
            size = max(1, len(group["params"])) if foreach else 1
            for tensors in self._tensors_by_parameter(group, size):
                real = (
                    [torch.view_as_real(x) if x.is_complex() else x for x in xs] for xs in tensors
                )
                _rmsprop(group, *real, gc=False, eps_under_root=True)


def _plain_on_cpu(p: Tensor) -> bool:
    return type(p) in (Tensor, torch.nn.Parameter) and p.is_cpu and not p.is_complex()


def _row_blocks(tensors: _Lists) -> Iterator[_Lists]:
    """Blocks of rows of a parameter and of what belongs to it, of about 1 MB each in float32."""
    p = tensors[0][0]
    if p.numel() <= 2**18:
        yield tensors
        return
    rows = max(1, 2**18 * p.size(0) // p.numel())
    splits = [xs[0].split(rows) if xs else () for xs in tensors]
    for i in range(len(splits[0])):
        yield tuple([split[i]] if split else [] for split in splits)


def _rmsprop(
    group: dict[str, Any],
    params: list[Tensor],
    grads: list[Tensor],
    square_avgs: list[Tensor],
    buffers: list[Tensor],
    grad_avgs: list[Tensor],
    *,
    gc: bool,
    eps_under_root: bool,
) -> None:
    """One step, in the symbols of the docstring; with ``gc``, rows must be whole."""
    alpha, eps, lr = group["alpha"], group["eps"], float(group["lr"])
    d, v = grads, square_avgs
    if group["maximize"]:
        d = torch._foreach_neg(d)
    if group["weight_decay"]:
        d = torch._foreach_add(d, params, alpha=group["weight_decay"])
    before = [row_sums(p) for p in params] if gc and not group["gc_loc"] else []
    if gc and group["gc_loc"]:
        for x in d:
            shift_rows_(x, row_sums(x))
    torch._foreach_mul_(v, alpha)
    torch._foreach_addcmul_(v, d, d, value=1 - alpha)
    if group["centered"]:
        torch._foreach_lerp_(grad_avgs, d, 1 - alpha)
        denominators = torch._foreach_addcmul(v, grad_avgs, grad_avgs, value=-1)
    else:
        denominators = torch._foreach_clone(v)
    if eps_under_root:
        torch._foreach_add_(denominators, eps)
        torch._foreach_sqrt_(denominators)
    else:
        torch._foreach_sqrt_(denominators)
        torch._foreach_add_(denominators, eps)
    if group["momentum"] > 0:
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_addcdiv_(buffers, d, denominators)
        torch._foreach_add_(params, buffers, alpha=-lr)
    else:
        torch._foreach_addcdiv_(params, d, denominators, value=-lr)
    for p, sums in zip(params, before, strict=False):
        shift_rows_(p, row_sums(p).sub_(sums))
