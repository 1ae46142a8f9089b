"""RMSprop, torch's and TensorFlow's, with gradient centralization."""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from classy_gc.core._torch import foreach
from classy_gc.core.centralized_optimizer import CentralizedOptimizer
from classy_gc.core.kernels.update import Update, rmsprop_update
from classy_gc.core.options import added_options, given


class RMSprop(CentralizedOptimizer, torch.optim.RMSprop):
    """:class:`torch.optim.RMSprop` with gradient centralization.

    With ``d = g + wd·p``:

    * ``v ← alpha·v + (1 − alpha)·d²``; with ``centered``, ``v`` less the square of the mean
      of ``d`` takes the place of ``v`` below;
    * ``u = d/(√v + eps)``, or with momentum ``u ← momentum·u + d/(√v + eps)``;
    * ``gc_loc=False`` (default): ``p −= lr·C(u)``; row means never move;
      ``gc_loc=True``: ``d = C(g + wd·p)``, ``p −= lr·u``.

    ``C`` subtracts from each row its mean. With ``use_gc=False`` it is torch's RMSprop bit for
    bit, unless ``fused`` is set.

    Args:
        params (iterable): tensors, ``(name, tensor)`` pairs, or dicts of a parameter group each
        lr (float or Tensor): learning rate (default: 1e-2)
        alpha (float): decay rate of the second moment (default: 0.99)
        eps (float): added to the denominator (default: 1e-8)
        weight_decay (float): L2 decay ``wd`` (default: 0)
        momentum (float): momentum factor (default: 0)
        centered (bool): divide by the deviation, not the second moment (default: False)
        capturable (bool): safe to capture in a CUDA graph (default: False)
        foreach (bool, optional): torch's multi-tensor implementation (default: None)
        maximize (bool): maximize the objective (default: False)
        differentiable (bool): autograd runs through the step; not with GC (default: False)
        fused (bool, optional): our kernel, with GC and without; torch has none (default: None,
            with GC if nothing prevents them)
        use_gc (bool or float): centralize, if not zero (default: False)
        gc_conv_only (bool or float): only tensors of four dimensions or more (default: False)
        gc_loc (bool or float): centralize the gradient, not the update (default: False)

    Raises:
        ValueError: an option is out of range, or cannot be combined with another.
        RuntimeError: at ``step``, a gradient that GC would act on is sparse.

    Source: :class:`torch.optim.RMSprop`; Yong et al., *Gradient Centralization*, ECCV 2020,
    https://arxiv.org/abs/2004.01461.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer = RMSprop([weight], lr=0.05, use_gc=True)
        >>> (weight * torch.tensor([[-1.0, 3.0]])).sum().backward()
        >>> optimizer.step()  # the update (−10, 10) has mean 0 already
        >>> [round(x, 4) for x in weight[0].tolist()]
        [1.5, 0.5]
    """

    kernel_without_gc: ClassVar = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        fused: bool | None = None,
        use_gc: bool | float = False,
        gc_conv_only: bool | float = False,
        gc_loc: bool | float = False,
    ) -> None:
        super().__init__(**given(locals()))

    added_defaults: ClassVar = added_options(__init__, torch.optim.RMSprop)

    def _split(self, group: dict[str, Any]) -> Iterable[dict[str, Any]]:
        # Creates missing state; torch's own step does so only the first time.
        rmsprop_update(self, group, [p for p in group["params"] if p.grad is not None])
        return [group]


class RMSpropTF(RMSprop):
    """:class:`RMSprop` with TensorFlow's denominator, ``eps`` inside the square root.

    With ``d = g + wd·p``:

    * ``v ← alpha·v + (1 − alpha)·d²`` from ``v = initial_square_avg``; with ``centered``, ``v``
      less the square of the mean of ``d`` takes the place of ``v`` below;
    * ``u = d/√(v + eps)``, or with momentum ``u ← momentum·u + d/√(v + eps)``;
    * ``gc_loc=False`` (default): ``p −= lr·C(u)``; row means never move;
      ``gc_loc=True``: ``d = C(g + wd·p)``, ``p −= lr·u``;
    * with ``lr_in_momentum``, ``u ← momentum·u + lr·d/√(v + eps)`` and ``p −= u``, which differs
      only while ``lr`` changes.

    ``C`` subtracts from each row its mean. TensorFlow's own optimizer has ``initial_square_avg=1``
    and ``lr_in_momentum=True``. The second moment ``v`` is state and is kept; Classy Vision's own
    ``rmsprop_tf`` overwrites it with its square root at every step.

    Args:
        params (iterable): tensors, ``(name, tensor)`` pairs, or dicts of a parameter group each
        lr (float or Tensor): learning rate (default: 1e-2)
        alpha (float): decay rate of the second moment (default: 0.99)
        eps (float): added to the second moment, under the square root (default: 1e-8)
        weight_decay (float): L2 decay ``wd`` (default: 0)
        momentum (float): momentum factor (default: 0)
        centered (bool): divide by the deviation, not the second moment (default: False)
        capturable (bool): safe to capture in a CUDA graph (default: False)
        foreach (bool, optional): all tensors at once (default: None, on CUDA)
        maximize (bool): maximize the objective (default: False)
        differentiable (bool): not supported; the step is in place (default: False)
        fused (bool, optional): our kernel, with GC and without; torch has none (default: None,
            with GC if nothing prevents them)
        use_gc (bool or float): centralize, if not zero (default: False)
        gc_conv_only (bool or float): only tensors of four dimensions or more (default: False)
        gc_loc (bool or float): centralize the gradient, not the update (default: False)
        initial_square_avg (float): ``v`` before the first step (default: 0.0)
        lr_in_momentum (bool): the learning rate multiplies what enters the momentum, not the
            momentum itself (default: False)

    Raises:
        ValueError: an option is out of range, or cannot be combined with another.
        RuntimeError: at ``step``, a gradient that GC would act on is sparse.

    Source: https://github.com/tensorflow/tensorflow, ``ApplyRMSProp``;
    :class:`torch.optim.RMSprop`; Yong et al., *Gradient Centralization*, ECCV 2020,
    https://arxiv.org/abs/2004.01461.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer = RMSpropTF([weight], lr=0.05, use_gc=True)
        >>> (weight * torch.tensor([[-1.0, 3.0]])).sum().backward()
        >>> optimizer.step()  # the update (−10, 10) has mean 0 already
        >>> [round(x, 4) for x in weight[0].tolist()]
        [1.5, 0.5]
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        fused: bool | None = None,
        use_gc: bool | float = False,
        gc_conv_only: bool | float = False,
        gc_loc: bool | float = False,
        initial_square_avg: float = 0.0,
        lr_in_momentum: bool = False,
    ) -> None:
        super(RMSprop, self).__init__(**given(locals()))

    added_defaults: ClassVar = added_options(__init__, torch.optim.RMSprop)
    non_negative: ClassVar = ("initial_square_avg",)

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        if group.get("differentiable"):
            raise ValueError("differentiable=True is not supported by RMSpropTF: it steps in place")

    def kernel_update(self, group: dict[str, Any], params: list[Tensor]) -> Update:
        """The update of a group, for :mod:`classy_gc.core.kernels`."""
        for p in params:
            if p.grad.is_sparse:
                raise RuntimeError("RMSprop does not support sparse gradients")
        update = rmsprop_update(self, group, params)
        lr, gain = float(group["lr"]), 1.0
        if group["lr_in_momentum"] and group["momentum"]:
            lr, gain = gain, lr
        update.numbers.update(eps_outside=0.0, eps_inside=group["eps"], lr=lr, buffer_gain=gain)
        return update

    def update_without_gc(self, groups: list[dict[str, Any]]) -> None:
        """The update without GC, for cases without a kernel: torch has no such optimizer."""
        for group in groups:
            update = self.kernel_update(group, [p for p in group["params"] if p.grad is not None])
            for t in update.steps:
                t.add_(1)
            at_once = group["foreach"]
            if at_once is None:
                at_once = all(p.is_cuda for p in group["params"])
            # All at once saves launches; one tensor at a time keeps temporaries small.
            size = max(1, len(update.params)) if at_once else 1
            lists = (update.params, [p.grad for p in update.params], *update.state)
            reals = [[torch.view_as_real(x) if x.is_complex() else x for x in xs] for xs in lists]
            for i in range(0, len(update.params), size):
                _rmsprop_tf(group | update.numbers, *(xs[i : i + size] for xs in reals))


def _rmsprop_tf(o: dict[str, Any], params: Any, d: Any, v: Any, buffers: Any, means: Any) -> None:
    # ``o``: the group's options, and the numbers of its Update
    if o["maximize"]:
        d = foreach.neg(d)
    if o["weight_decay"]:
        d = foreach.add(d, params, alpha=o["weight_decay"])
    foreach.mul_(v, o["alpha"])
    foreach.addcmul_(v, d, d, value=o["v_gain"])
    if o["centered"]:
        foreach.lerp_(means, d, o["v_gain"])
        roots = foreach.addcmul(v, means, means, value=-1)
        foreach.add_(roots, o["eps"])
    else:
        roots = foreach.add(v, o["eps"])
    foreach.sqrt_(roots)
    if o["momentum"]:
        foreach.mul_(buffers, o["momentum"])
        foreach.addcdiv_(buffers, d, roots, value=o["buffer_gain"])
        foreach.add_(params, buffers, alpha=-o["lr"])
    else:
        foreach.addcdiv_(params, d, roots, value=-o["lr"])
