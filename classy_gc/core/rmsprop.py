"""RMSprop, torch's and TensorFlow's, with gradient centralization."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from classy_gc.core.adam import fused_adam
from classy_gc.core.centralized_optimizer import CentralizedOptimizer, check_fused

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
        fused (bool, optional): the fastest, for real floating-point parameters and without
            ``centered``. torch has no fused RMSprop; here it is torch's fused Adam with
            ``β₁ = 0``, ``β₂ = alpha`` and bias corrections of 1{fused}
            (default: None, torch's own)
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
        fused="",
        source=":class:`torch.optim.RMSprop`",
    )

    added_defaults: ClassVar = {**CentralizedOptimizer.added_defaults, "fused": None}

    def _check_options(self, options: dict[str, Any]) -> None:
        super()._check_options(options)
        for name in ("foreach", "differentiable", "capturable", "centered"):
            if options.get("fused") and options.get(name):
                raise ValueError(
                    f"fused=True cannot be combined with {name}=True in {type(self).__name__}"
                )
        if options.get("fused") and not options["alpha"] < 1:
            raise ValueError(f"fused=True needs alpha < 1, got {options['alpha']}")

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_fused(group)

    def _init_group(self, group: dict[str, Any], *lists: list[Tensor]) -> bool:
        # torch makes the buffer with the state; a schedule may raise momentum from 0 later.
        if group["momentum"] > 0:
            for p in group["params"]:
                if self.state.get(p) and "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return super()._init_group(group, *lists)

    def _tensors(self, group: dict[str, Any]) -> tuple[list[Tensor], ...]:
        """Parameters, gradients, ``v``, momentum buffers and means, those that there are."""
        *tensors, steps = lists = tuple([] for _ in range(6))
        self._init_group(group, *lists)
        for t in steps:
            t.add_(1)
        return tuple(tensors)

    def _fused_parts(self, group: dict[str, Any]) -> Iterable[Any]:
        *tensors, _ = self._tensors(group)
        yield functools.partial(self._fused_kernel, group), tensors

    def _fused_kernel(self, group: dict[str, Any], *tensors: list[Tensor]) -> None:
        _fused_rmsprop(group, group["eps"], *tensors)

    def _update(self, groups: list[dict[str, Any]]) -> None:
        for group in groups:
            if group["fused"]:
                self._fused_update(group, in_blocks=True)
        super()._update([group for group in groups if not group["fused"]])


class RMSpropTF(RMSprop):
    __doc__ = _doc(
        name="RMSpropTF",
        title=", and TensorFlow's\n    denominator: ``eps`` inside the square root",
        u="d/√(v + eps)",
        eps=", under the square root",
        off="The second moment ``v`` is state and stays what it is: Classy\n"
        "    Vision's own ``rmsprop_tf`` overwrites it with its square root at every step.",
        differentiable="anything here",
        fused=", and ``v + eps`` for ``v``, so that ``v``\n"
        "            is kept to the precision of ``v + eps``, in float32 and float64",
        source=":class:`torch.optim.RMSprop`; https://github.com/tensorflow/tensorflow,\n"
        "    ``ApplyRMSProp``",
    )

    def _check_options(self, options: dict[str, Any]) -> None:
        super()._check_options(options)
        if options.get("differentiable"):
            raise ValueError("differentiable=True is not supported by RMSpropTF: it steps in place")

    def _fused_kernel(self, group: dict[str, Any], *tensors: list[Tensor]) -> None:
        alpha, dtype = group["alpha"], tensors[0][0].dtype
        if not (0 < alpha < 1 and dtype in (torch.float32, torch.float64)):
            # One tensor at a time keeps the temporaries small.
            for i in range(len(tensors[0])):
                _rmsprop_tf(group, *(xs[i : i + 1] for xs in tensors), [])
            return
        # The kernel's second moment is v + eps.
        _, _, v, _ = tensors
        torch._foreach_add_(v, _offset(group["eps"], alpha, dtype))
        _fused_rmsprop(group, 0.0, *tensors)
        torch._foreach_sub_(v, group["eps"])

    def _update(self, groups: list[dict[str, Any]]) -> None:
        for group in groups:
            if group["fused"]:
                self._fused_update(group, in_blocks=True)
                continue
            tensors = self._tensors(group)
            foreach = group["foreach"]
            if foreach is None:
                foreach = all(p.is_cuda for p in group["params"])
            # All at once saves launches; one tensor at a time keeps the temporaries small.
            count = len(tensors[0])
            size = max(1, count) if foreach else 1
            for i in range(0, count, size):
                _rmsprop_tf(group, *([_as_real(x) for x in xs[i : i + size]] for xs in tensors))


@functools.lru_cache
def _offset(eps: float, alpha: float, dtype: torch.dtype) -> float:
    """The least ``c`` with ``alpha·c ≥ eps`` as the kernel rounds it, so that ``v`` stays ≥ 0."""
    wanted, factor = (torch.tensor(x, dtype=dtype) for x in (eps, alpha))
    c = wanted / factor
    while c * factor < wanted:
        c = c.nextafter(torch.tensor(math.inf, dtype=dtype))
    return c.item()


def _fused_rmsprop(
    group: dict[str, Any],
    eps: float,
    params: list[Tensor],
    grads: list[Tensor],
    square_avgs: list[Tensor],
    buffers: list[Tensor],
) -> None:
    lr, momentum, wd = float(group["lr"]), group["momentum"], group["weight_decay"]
    maximize, alpha = group["maximize"], group["alpha"]
    d = grads
    if wd or maximize:  # the kernel negates, and leaves in d what it made of it
        d = torch._foreach_add(grads, params, alpha=-wd if maximize else wd)
    # Without momentum p −= lr·d/(√v + eps); with it the buffers take the place of p, decayed by
    # a factor of momentum: 1 − lr·wd with lr = −1.
    fused_adam(
        buffers if momentum else params,
        d,
        d,  # with beta1 = 0 the first moment is the gradient
        square_avgs,
        t=math.inf,
        decoupled=bool(momentum),
        lr=-1.0 if momentum else lr,
        weight_decay=momentum - 1.0 if momentum else 0.0,
        beta1=0.0,
        beta2=alpha,
        eps=eps,
        maximize=maximize,
    )
    if momentum:
        torch._foreach_add_(params, buffers, alpha=-lr)


def _as_real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def _rmsprop_tf(
    group: dict[str, Any],
    params: list[Tensor],
    grads: list[Tensor],
    square_avgs: list[Tensor],
    buffers: list[Tensor],
    grad_avgs: list[Tensor],
) -> None:
    alpha, lr = group["alpha"], float(group["lr"])
    d, v = grads, square_avgs
    if group["maximize"]:
        d = torch._foreach_neg(d)
    if group["weight_decay"]:
        d = torch._foreach_add(d, params, alpha=group["weight_decay"])
    torch._foreach_mul_(v, alpha)
    torch._foreach_addcmul_(v, d, d, value=1 - alpha)
    if group["centered"]:
        torch._foreach_lerp_(grad_avgs, d, 1 - alpha)
        denominators = torch._foreach_addcmul(v, grad_avgs, grad_avgs, value=-1)
        torch._foreach_add_(denominators, group["eps"])
    else:
        denominators = torch._foreach_add(v, group["eps"])
    torch._foreach_sqrt_(denominators)
    if group["momentum"] > 0:
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_addcdiv_(buffers, d, denominators)
        torch._foreach_add_(params, buffers, alpha=-lr)
    else:
        torch._foreach_addcdiv_(params, d, denominators, value=-lr)
