"""Adam and AdamW with gradient centralization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from classy_gc.core.centralized_optimizer import CentralizedOptimizer


def _adam_parts(optimizer: CentralizedOptimizer, group: dict[str, Any]) -> Iterable[Any]:
    tensors: list[list[Tensor]] = [[] for _ in range(6)]
    optimizer._init_group(group, *tensors)
    decoupled = group.get("decoupled_weight_decay", optimizer.decoupled_weight_decay)
    beta1, beta2 = map(float, group["betas"])
    options = {k: group[k] for k in ("lr", "weight_decay", "eps", "amsgrad", "maximize")}

    def kernel(*tensors: list[Tensor]) -> None:
        (torch._fused_adamw_ if decoupled else torch._fused_adam_)(
            *tensors,
            beta1=beta1,
            beta2=beta2,
            **options,
            **optimizer._scaling(tensors[0][0].device),
        )

    steps = tensors[-1]
    torch._foreach_add_(steps, 1)
    yield kernel, tensors
    found_inf = getattr(optimizer, "found_inf", None)
    if found_inf is not None:  # the kernel did nothing if so
        torch._foreach_sub_(steps, [found_inf] * len(steps))


def fused_adam(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    *,
    t: float,
    decoupled: bool,
    **options: Any,
) -> None:
    """Torch's fused kernel, for optimizers that are Adam with other scalars.

    Args:
        params, grads, exp_avgs, exp_avg_sqs: of one device and dtype, dense, and of one shape
            and memory layout each with each; all but ``grads`` are stepped in place.
        t: the step that the bias corrections are of; infinite for none.
        decoupled: ``weight_decay`` acts on the weights, times ``lr``; else it is L2.
        **options: ``lr``, ``beta1``, ``beta2``, ``eps``, ``weight_decay`` and ``maximize``.

    Source: ``torch._fused_adam_`` and ``torch._fused_adamw_``, as :class:`torch.optim.Adam`
    calls them.

    Example:
        >>> p, g, m, v = ([torch.ones(2)] for _ in range(4))
        >>> options = dict(lr=0.5, beta1=0.0, beta2=0.0, eps=0.0, weight_decay=0.0, maximize=False)
        >>> fused_adam(p, g, m, v, t=1, decoupled=False, **options)
        >>> p  # less lr·m/√v
        [tensor([0.5000, 0.5000])]
    """
    step = torch.full((), t, dtype=torch.float32, device=params[0].device)
    (torch._fused_adamw_ if decoupled else torch._fused_adam_)(
        params,
        grads,
        exp_avgs,
        exp_avg_sqs,
        [],
        [step] * len(params),
        amsgrad=False,
        grad_scale=None,
        found_inf=None,
        **options,
    )


class Adam(CentralizedOptimizer, torch.optim.Adam):
    """:class:`torch.optim.Adam` with gradient centralization.

    With ``m̂``, ``v̂`` the bias-corrected moments of ``d`` and ``u = m̂/(√v̂ + eps)``:

    * ``gc_loc=False`` (default): ``d = g + wd·p``, ``p −= lr·C(u)``; row means never move;
    * ``gc_loc=True``: ``d = C(g + wd·p)``, ``p −= lr·u``.

    ``C`` subtracts from each row its mean. With ``use_gc=False`` it is torch's Adam bit for
    bit.

    Args:
        {params}.
        lr (float or Tensor): learning rate (default: 1e-3)
        betas (tuple[float, float]): decay rates of the two moments (default: (0.9, 0.999))
        eps (float): added to the denominator (default: 1e-8)
        weight_decay (float): L2 decay ``wd`` (default: 0)
        amsgrad (bool): divide by the largest second moment so far (default: False)
        {switches}
        capturable (bool): safe to capture in a CUDA graph (default: False)
        decoupled_weight_decay (bool): decay as in :class:`AdamW` (default: False)
        {gc}
        gc_loc (bool or float): centralize the gradient, not the update (default: False)

    Raises:
        {raises}

    {note}

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

    _fused_parts = _adam_parts


class AdamW(CentralizedOptimizer, torch.optim.AdamW):
    """:class:`torch.optim.AdamW` with gradient centralization.

    With ``m̂``, ``v̂`` the bias-corrected moments of ``d`` and ``u = m̂/(√v̂ + eps)``:

    * ``gc_loc=True`` (default): ``d = C(g)``, ``p −= lr·(u + wd·p)``; decay is untouched;
    * ``gc_loc=False``: ``d = g``, ``p −= lr·C(u + wd·p)``; row means never move.

    ``C`` subtracts from each row its mean. With ``use_gc=False`` it is torch's AdamW bit for
    bit.

    Args:
        {params}.
        lr (float or Tensor): learning rate (default: 1e-3)
        betas (tuple[float, float]): decay rates of the two moments (default: (0.9, 0.999))
        eps (float): added to the denominator (default: 1e-8)
        weight_decay (float): decoupled decay ``wd`` (default: 1e-2)
        amsgrad (bool): divide by the largest second moment so far (default: False)
        {switches}
        capturable (bool): safe to capture in a CUDA graph (default: False)
        {gc}
        gc_loc (bool or float): centralize the gradient, not the update (default: True)

    Raises:
        {raises}

    {note}

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

    added_defaults: ClassVar = {"use_gc": False, "gc_conv_only": False, "gc_loc": True}
    _fused_parts = _adam_parts
