"""SGD with gradient centralization."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from classy_gc.core.centralized_optimizer import CentralizedOptimizer
from classy_gc.core.options import added_options, given


class SGD(CentralizedOptimizer, torch.optim.SGD):
    """:class:`torch.optim.SGD` with gradient centralization.

    ``d = C(g + wd·p)``, where ``C`` subtracts from each row its mean; momentum, dampening
    and Nesterov then act on ``d`` as in torch, and ``p −= lr·d``. Row means of the weights
    therefore never move. With ``use_gc=False`` it is torch's SGD bit for bit.

    Args:
        params (iterable): tensors, ``(name, tensor)`` pairs, or dicts of a parameter group each
        lr (float or Tensor): learning rate (default: 1e-3)
        momentum (float): momentum factor (default: 0)
        dampening (float): dampening of the momentum (default: 0)
        weight_decay (float or Tensor): L2 decay ``wd`` (default: 0)
        nesterov (bool): Nesterov momentum (default: False)
        maximize (bool): maximize the objective (default: False)
        foreach (bool, optional): torch's multi-tensor implementation (default: None)
        differentiable (bool): autograd runs through the step; not with GC (default: False)
        fused (bool, optional): the fastest kernels: ours with GC, torch's without (default: None,
            with GC if nothing prevents them)
        use_gc (bool or float): centralize, if not zero (default: False)
        gc_conv_only (bool or float): only tensors of four dimensions or more (default: False)

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
        super().__init__(**given(locals()))

    added_defaults: ClassVar = added_options(__init__, torch.optim.SGD)
