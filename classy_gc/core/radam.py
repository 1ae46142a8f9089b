"""Rectified Adam with gradient centralization."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from math import sqrt
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.optim.radam import radam

from classy_gc.core.adam import fused_adam
from classy_gc.core.centralized_optimizer import CentralizedOptimizer, check_flag, check_fused


class Rectification(NamedTuple):
    """The scalars of one step: all that depends on ``t`` and the betas alone."""

    r: float | None  # variance rectification r_t, None where ρ_t ≤ 5
    bias_correction1: float
    bias_correction2: float


def rectification(t: int, beta1: float, beta2: float) -> Rectification:
    """``r_t`` and the bias corrections of step ``t`` (1, 2, …); Liu et al., Algorithm 2.

    Example:
        >>> rectification(5, 0.9, 0.999).r is None
        True
        >>> round(rectification(6, 0.9, 0.999).r, 4)
        0.0258
    """
    rho_inf = 2 / (1 - beta2) - 1
    bias_correction1, bias_correction2 = 1 - beta1**t, 1 - beta2**t
    rho = rho_inf - 2 * t * beta2**t / bias_correction2
    r = None
    if rho > 5:
        r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    return Rectification(r, bias_correction1, bias_correction2)


_DOC = """:class:`torch.optim.RAdam` with gradient centralization.

    With ``m``, ``v`` the moments of ``d``, ``m̂ = m/(1 − β₁ᵗ)``, and ``ρ_t``, ``r_t`` as in
    the paper:

    * rectified (``ρ_t > 5``): ``u = r_t·m̂·√(1 − β₂ᵗ)/(√v + eps)``;
    * before that: ``u = m̂`` if ``degenerated_to_sgd``; otherwise the moments advance and
      the weights, decay included, wait.

    GC acts as in :class:`Adam`: on ``u``, ``p −= lr·C(u)``, with ``gc_loc=False``; on the
    gradient, ``d = C(g + wd·p)``, with ``gc_loc=True``. With ``use_gc=False`` it gives the
    numbers of torch's RAdam, to rounding.

    {scalars}

    Args:
        {params}.
        lr (float or Tensor): learning rate (default: 1e-3)
        betas (tuple[float, float]): decay rates of the two moments (default: (0.9, 0.999))
        eps (float): added to the denominator (default: 1e-8)
        weight_decay (float): decay ``wd`` (default: 0)
        decoupled_weight_decay (bool): decay the weights, not the gradient (default: False)
        {switches}. torch has no fused
            RAdam; here it is torch's fused Adam with ``lr·r_t`` and ``eps/√(1 − β₂ᵗ)``
        capturable (bool): safe to capture in a CUDA graph (default: False)
        {gc}
        gc_loc (bool or float): centralize the gradient, not the update (default: False)
        degenerated_to_sgd (bool): before rectification, step along the first moment; if
            False, do not step (default: True)

    Raises:
        {raises}

    {note}

    Source: Liu et al., *On the Variance of the Adaptive Learning Rate and Beyond*, ICLR
    2020, https://arxiv.org/abs/1908.03265; Yong et al., *Gradient Centralization*, ECCV
    2020, https://arxiv.org/abs/2004.01461; :class:`torch.optim.RAdam`.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer = RAdam([weight], lr=0.5, use_gc=True)
        >>> (weight * torch.tensor([[1.0, 3.0]])).sum().backward()
        >>> optimizer.step()  # not rectified yet: along C((1, 3))
        >>> weight.tolist()
        [[1.5, 0.5]]
    """


class RAdam(CentralizedOptimizer, torch.optim.RAdam):
    __doc__ = _DOC.replace(
        "{scalars}",
        "The scalars of a step are kept in a small cache, shared by all parameters that are\n"
        "    at the same step; :class:`PlainRAdam` computes them anew.",
    )

    added_defaults: ClassVar = {
        **CentralizedOptimizer.added_defaults,
        "degenerated_to_sgd": True,
        "fused": None,
    }
    _rectification = staticmethod(functools.lru_cache(maxsize=64)(rectification))

    def _check_options(self, options: dict[str, Any]) -> None:
        super()._check_options(options)
        check_flag("degenerated_to_sgd", options["degenerated_to_sgd"])
        for name in ("foreach", "differentiable", "capturable"):
            if options.get("fused") and options.get(name):
                raise ValueError(f"fused=True cannot be combined with {name}=True in RAdam")
        if options.get("capturable") and not options["degenerated_to_sgd"]:
            raise ValueError(
                "capturable=True cannot be combined with degenerated_to_sgd=False: a captured "
                "graph cannot leave the update out"
            )

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_fused(group)

    def _by_step(
        self, group: dict[str, Any]
    ) -> Iterable[tuple[int, Rectification, list[list[Tensor]]]]:
        """The tensors of a group, steps last, by step: some may have missed gradients."""
        tensors: list[list[Tensor]] = [[] for _ in range(5)]
        self._init_group(group, *tensors)
        by_step: dict[int, list[int]] = {}
        for i, t in enumerate(torch.stack(tensors[-1]).tolist() if tensors[-1] else ()):
            by_step.setdefault(int(t) + 1, []).append(i)
        for t, indices in by_step.items():
            scalars = self._rectification(t, *group["betas"])
            yield t, scalars, [[xs[i] for i in indices] for xs in tensors]

    def _fused_parts(self, group: dict[str, Any]) -> Iterable[Any]:
        for t, scalars, (*tensors, steps) in self._by_step(group):
            torch._foreach_add_(steps, 1)
            yield functools.partial(_fused_radam, group, t, scalars), tensors

    def _update(self, groups: list[dict[str, Any]]) -> None:
        rest = []
        for group in groups:
            if group["fused"]:
                self._fused_update(group)
            elif group["degenerated_to_sgd"]:
                rest.append(group)  # torch's step knows all but these two options
            else:
                self._waiting_update(group)
        super()._update(rest)

    def _waiting_update(self, group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        for _, scalars, tensors in self._by_step(group):
            with torch.set_grad_enabled(group["differentiable"]):
                radam(
                    *tensors,
                    beta1=beta1,
                    beta2=beta2,
                    # The moments advance and p stays where it is.
                    lr=0.0 if scalars.r is None else group["lr"],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    maximize=group["maximize"],
                    foreach=group["foreach"],
                    capturable=group["capturable"],
                    differentiable=group["differentiable"],
                    decoupled_weight_decay=group["decoupled_weight_decay"],
                    has_complex=any(map(torch.is_complex, tensors[0])),
                )


class PlainRAdam(RAdam):
    __doc__ = _DOC.replace(
        "{scalars}",
        "The scalars of a step are computed anew each time; :class:`RAdam` keeps them in a\n"
        "    small cache.",
    ).replace("RAdam([", "PlainRAdam([")

    _rectification = staticmethod(rectification)


def _fused_radam(
    group: dict[str, Any],
    t: int,
    scalars: Rectification,
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
) -> None:
    """Step ``t`` of RAdam on torch's fused Adam kernel."""
    lr, wd, (beta1, beta2) = float(group["lr"]), group["weight_decay"], group["betas"]
    decoupled = group["decoupled_weight_decay"]
    r, bias_correction1, bias_correction2 = scalars
    if r is not None:
        # The kernel decays by the learning rate it is given: lr·r_t·(wd/r_t) = lr·wd.
        adam = {
            "lr": lr * r,
            "eps": group["eps"] / sqrt(bias_correction2),
            "weight_decay": wd / r if decoupled else wd,
        }
    else:
        # Only the moments advance; any positive eps keeps 0/0 out of 0·u.
        adam = {"lr": 0.0, "eps": 1.0, "weight_decay": 0.0 if decoupled else wd}
    fused_adam(
        params,
        grads,
        exp_avgs,
        exp_avg_sqs,
        t=t,
        decoupled=decoupled,
        beta1=beta1,
        beta2=beta2,
        maximize=group["maximize"],
        **adam,
    )
    if r is None and group["degenerated_to_sgd"]:
        if decoupled:
            torch._foreach_mul_(params, 1 - lr * wd)
        torch._foreach_add_(params, exp_avgs, alpha=-lr / bias_correction1)
