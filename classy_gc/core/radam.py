"""Rectified Adam with gradient centralization."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from classy_gc.core._torch import uncompiled
from classy_gc.core.centralized_optimizer import CentralizedOptimizer
from classy_gc.core.options import added_options, given


def rectified(t: int, beta2: float) -> bool:
    """Whether step ``t`` (1, 2, …) is rectified, ``ρ_t > 5``; Liu et al., Algorithm 2.

    Example:
        >>> rectified(5, 0.999), rectified(6, 0.999)
        (False, True)
    """
    return 2 / (1 - beta2) - 1 - 2 * t * beta2**t / (1 - beta2**t) > 5


class RAdam(CentralizedOptimizer, torch.optim.RAdam):
    """:class:`torch.optim.RAdam` with gradient centralization.

    With ``m``, ``v`` the moments of ``d``, ``m̂ = m/(1 − β₁ᵗ)``, and ``ρ_t``, ``r_t`` as in
    the paper:

    * rectified (``ρ_t > 5``): ``u = r_t·m̂·√(1 − β₂ᵗ)/(√v + eps)``;
    * before that: ``u = m̂`` if ``degenerated_to_sgd``; otherwise the moments advance and
      the weights, decay included, wait.

    GC acts as in :class:`Adam`: on ``u``, ``p −= lr·C(u)``, with ``gc_loc=False``; on the
    gradient, ``d = C(g + wd·p)``, with ``gc_loc=True``. With ``use_gc=False`` it gives the
    numbers of torch's RAdam, to rounding.

    Args:
        params (iterable): tensors, ``(name, tensor)`` pairs, or dicts of a parameter group each
        lr (float or Tensor): learning rate (default: 1e-3)
        betas (tuple[float, float]): decay rates of the two moments (default: (0.9, 0.999))
        eps (float): added to the denominator (default: 1e-8)
        weight_decay (float): decay ``wd`` (default: 0)
        decoupled_weight_decay (bool): decay the weights, not the gradient (default: False)
        foreach (bool, optional): torch's multi-tensor implementation (default: None)
        maximize (bool): maximize the objective (default: False)
        capturable (bool): safe to capture in a CUDA graph (default: False)
        differentiable (bool): autograd runs through the step; not with GC (default: False)
        fused (bool, optional): our kernel, with GC and without; torch has none (default: None,
            with GC if nothing prevents them)
        use_gc (bool or float): centralize, if not zero (default: False)
        gc_conv_only (bool or float): only tensors of four dimensions or more (default: False)
        gc_loc (bool or float): centralize the gradient, not the update (default: False)
        degenerated_to_sgd (bool): before rectification, step along the first moment; if
            False, do not step (default: True)

    Raises:
        ValueError: an option is out of range, or cannot be combined with another.
        RuntimeError: at ``step``, a gradient that GC would act on is sparse.

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

    kernel_without_gc: ClassVar = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        *,
        decoupled_weight_decay: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        use_gc: bool | float = False,
        gc_conv_only: bool | float = False,
        gc_loc: bool | float = False,
        degenerated_to_sgd: bool = True,
    ) -> None:
        super().__init__(**given(locals()))

    added_defaults: ClassVar = added_options(__init__, torch.optim.RAdam)

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        if group.get("capturable") and not group["degenerated_to_sgd"]:
            reason = "a captured graph cannot leave the update out"
            raise ValueError(
                f"capturable=True cannot be combined with degenerated_to_sgd=False: {reason}"
            )

    @uncompiled
    def _update_groups(self) -> bool:
        if super()._update_groups():
            return True
        if all(group["degenerated_to_sgd"] for group in self.param_groups):
            return False
        self.update_without_gc(self.param_groups)  # torch.compile would recompile it at each step
        return True

    def _split(self, group: dict[str, Any]) -> Iterator[dict[str, Any]]:
        # torch's step lacks only ``degenerated_to_sgd=False``.
        if group["degenerated_to_sgd"]:
            yield group
            return
        waits: dict[bool, list[Tensor]] = {True: [], False: []}
        for p in group["params"]:
            t = int(self.state[p].get("step", 0)) + 1 if p.grad is not None else 1
            waits[not rectified(t, group["betas"][1])].append(p)
        yield {**group, "params": waits[False]}
        # The moments advance and the weights do not move.
        yield {**group, "params": waits[True], "lr": 0.0}


class PlainRAdam(RAdam):
    """:class:`RAdam` under the published code's name for one of its two versions.

    Args:
        params (iterable): as for :class:`RAdam`, as are all options and their defaults.

    Source: as for :class:`RAdam`.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer = PlainRAdam([weight], lr=0.5, use_gc=True)
        >>> (weight * torch.tensor([[1.0, 3.0]])).sum().backward()
        >>> optimizer.step()  # not rectified yet: along C((1, 3))
        >>> weight.tolist()
        [[1.5, 0.5]]
    """
