"""SGD with gradient centralization."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from classy_gc.core._torch import init_group
from classy_gc.core.centralized_optimizer import CentralizedOptimizer
from classy_gc.core.kernels.update import Update
from classy_gc.core.memory import skipped_by_fused_sgd


class SGD(CentralizedOptimizer, torch.optim.SGD):
    """:class:`torch.optim.SGD` with gradient centralization.

    ``d = C(g + wd·p)``, where ``C`` subtracts from each row its mean; momentum, dampening
    and Nesterov then act on ``d`` as in torch, and ``p −= lr·d``. Row means of the weights
    therefore never move. With ``use_gc=False`` it is torch's SGD bit for bit.

    Rows are what the first index of a weight selects: one per output channel or unit. Tensors
    of fewer than two dimensions, and those whose rows hold one element, are trained without GC.
    ``p.grad`` may be left centralized after ``step``.

    Args:
        params (iterable): tensors, ``(name, tensor)`` pairs, or dicts of one parameter
            group each, whose other keys override the options below for that group.
        lr (float or Tensor): learning rate (default: 1e-3)
        momentum (float): momentum factor (default: 0)
        dampening (float): dampening of the momentum (default: 0)
        weight_decay (float or Tensor): L2 decay ``wd`` (default: 0)
        nesterov (bool): Nesterov momentum (default: False)
        maximize (bool): maximize the objective (default: False)
        foreach (bool, optional): torch's multi-tensor implementation
            (default: None, which leaves the choice to us)
        differentiable (bool): let autograd run through the step; cannot be combined with
            ``use_gc`` (default: False)
        fused (bool, optional): one pass over memory with GC, where there is a kernel for it, and
            torch's fused kernel otherwise; False for neither (default: None, the one pass where
            ``use_gc`` is on and nothing speaks against it, else torch's choice)
        use_gc (bool or float): centralize; a scheduled value may be a float, and
            truthiness decides (default: False)
        gc_conv_only (bool or float): leave tensors of up to three dimensions alone
            (default: False)

    Raises:
        ValueError: an option is out of range, or cannot be combined with another.
        RuntimeError: at ``step``, a gradient that GC would act on is sparse.

    Source: Yong et al., *Gradient Centralization*, ECCV 2020,
    https://arxiv.org/abs/2004.01461, Algorithm 1; :class:`torch.optim.SGD`.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer = SGD([weight], lr=0.5, use_gc=True)
        >>> (weight * torch.tensor([[1.0, 3.0]])).sum().backward()
        >>> optimizer.step()  # the gradient (1, 3) becomes (−1, 1)
        >>> weight.tolist()
        [[1.5, 0.5]]
    """

    added_defaults: ClassVar = {"use_gc": False, "gc_conv_only": False}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        use_gc: bool | float = False,
        gc_conv_only: bool | float = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            momentum,
            dampening,
            weight_decay,
            nesterov,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
            fused=fused,
            use_gc=use_gc,
            gc_conv_only=gc_conv_only,
        )

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if group["fused"] and any(map(skipped_by_fused_sgd, group["params"])):
            raise ValueError(
                "fused=True with half-precision parameters on the CPU needs torch 2.14: the kernel "
                f"of torch {torch.__version__} does not update all of their elements"
            )

    def kernel_update(self, group: dict[str, Any]) -> Update:
        """The update of a group, for :mod:`classy_gc.core.kernels`."""
        params, grads, buffers = init_group(self, group, 3)
        new = [buffer is None for buffer in buffers]
        for i in (i for i, is_new in enumerate(new) if is_new):
            buffers[i] = torch.zeros_like(params[i])
            self.state[params[i]]["momentum_buffer"] = buffers[i]
        flags = {"momentum"} if buffers else set()
        return Update(
            "sgd",
            params,
            grads,
            [buffers],
            [],
            flags | {"nesterov"} if group["nesterov"] and buffers else flags,
            {"momentum": group["momentum"], "dampening": group["dampening"]},
            new,
        )
