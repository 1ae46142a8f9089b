"""Adam and AdamW with gradient centralization."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from classy_gc.core.centralized_optimizer import CentralizedOptimizer
from classy_gc.core.options import added_options, given


class Adam(CentralizedOptimizer, torch.optim.Adam):
    """:class:`torch.optim.Adam` with gradient centralization.

    With ``m̂``, ``v̂`` the bias-corrected moments of ``d`` and ``u = m̂/(√v̂ + eps)``:

    * ``gc_loc=False`` (default): ``d = g + wd·p``, ``p −= lr·C(u)``; row means never move;
    * ``gc_loc=True``: ``d = C(g + wd·p)``, ``p −= lr·u``.

    ``C`` subtracts from each row its mean. With ``use_gc=False`` it is torch's Adam bit for
    bit.

    Args:
        params (iterable): tensors, ``(name, tensor)`` pairs, or dicts of a parameter group each
        lr (float or Tensor): learning rate (default: 1e-3)
        betas (tuple[float, float]): decay rates of the two moments (default: (0.9, 0.999))
        eps (float): added to the denominator (default: 1e-8)
        weight_decay (float): L2 decay ``wd`` (default: 0)
        amsgrad (bool): divide by the largest second moment so far (default: False)
        foreach (bool, optional): torch's multi-tensor implementation (default: None)
        maximize (bool): maximize the objective (default: False)
        capturable (bool): safe to capture in a CUDA graph (default: False)
        differentiable (bool): autograd runs through the step; not with GC (default: False)
        fused (bool, optional): the fastest kernels: ours with GC, torch's without (default: None,
            with GC if nothing prevents them)
        decoupled_weight_decay (bool): decay as in :class:`AdamW` (default: False)
        use_gc (bool or float): centralize, if not zero (default: False)
        gc_conv_only (bool or float): only tensors of four dimensions or more (default: False)
        gc_loc (bool or float): centralize the gradient, not the update (default: False)

    Raises:
        ValueError: an option is out of range, or cannot be combined with another.
        RuntimeError: at ``step``, a gradient that GC would act on is sparse.

    Source: Yong et al., *Gradient Centralization*, ECCV 2020,
    https://arxiv.org/abs/2004.01461, Algorithm 2; :class:`torch.optim.Adam`.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer = Adam([weight], lr=0.5, use_gc=True)
        >>> (weight * torch.tensor([[-1.0, 3.0]])).sum().backward()
        >>> optimizer.step()  # the update (−1, 1) has mean 0 already
        >>> weight.tolist()
        [[1.5, 0.5]]
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        use_gc: bool | float = False,
        gc_conv_only: bool | float = False,
        gc_loc: bool | float = False,
    ) -> None:
        super().__init__(**given(locals()))


class AdamW(CentralizedOptimizer, torch.optim.AdamW):
    """:class:`torch.optim.AdamW` with gradient centralization.

    With ``m̂``, ``v̂`` the bias-corrected moments of ``d`` and ``u = m̂/(√v̂ + eps)``:

    * ``gc_loc=True`` (default): ``d = C(g)``, ``p −= lr·(u + wd·p)``; decay is untouched;
    * ``gc_loc=False``: ``d = g``, ``p −= lr·C(u + wd·p)``; row means never move.

    ``C`` subtracts from each row its mean. With ``use_gc=False`` it is torch's AdamW bit for
    bit.

    Args:
        params (iterable): tensors, ``(name, tensor)`` pairs, or dicts of a parameter group each
        lr (float or Tensor): learning rate (default: 1e-3)
        betas (tuple[float, float]): decay rates of the two moments (default: (0.9, 0.999))
        eps (float): added to the denominator (default: 1e-8)
        weight_decay (float): decoupled decay ``wd`` (default: 1e-2)
        amsgrad (bool): divide by the largest second moment so far (default: False)
        maximize (bool): maximize the objective (default: False)
        foreach (bool, optional): torch's multi-tensor implementation (default: None)
        capturable (bool): safe to capture in a CUDA graph (default: False)
        differentiable (bool): autograd runs through the step; not with GC (default: False)
        fused (bool, optional): the fastest kernels: ours with GC, torch's without (default: None,
            with GC if nothing prevents them)
        use_gc (bool or float): centralize, if not zero (default: False)
        gc_conv_only (bool or float): only tensors of four dimensions or more (default: False)
        gc_loc (bool or float): centralize the gradient, not the update (default: True)

    Raises:
        ValueError: an option is out of range, or cannot be combined with another.
        RuntimeError: at ``step``, a gradient that GC would act on is sparse.

    Source: Yong et al., *Gradient Centralization*, ECCV 2020,
    https://arxiv.org/abs/2004.01461; :class:`torch.optim.AdamW`.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer = AdamW([weight], lr=0.5, weight_decay=0.2, use_gc=True)
        >>> (weight * torch.tensor([[1.0, 3.0]])).sum().backward()
        >>> optimizer.step()  # decay to 0.9, then the sign of the gradient (−1, 1)
        >>> [round(x, 4) for x in weight[0].tolist()]
        [1.4, 0.4]
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        use_gc: bool | float = False,
        gc_conv_only: bool | float = False,
        gc_loc: bool | float = True,
    ) -> None:
        super().__init__(**given(locals()))

    added_defaults: ClassVar = added_options(__init__, torch.optim.AdamW)
