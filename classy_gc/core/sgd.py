"""SGD with gradient centralization."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from classy_gc.core.centralized_optimizer import CentralizedOptimizer, skipped_by_fused_sgd


class SGD(CentralizedOptimizer, torch.optim.SGD):
    """:class:`torch.optim.SGD` with gradient centralization.

    ``d = C(g + wd·p)``, where ``C`` subtracts from each row its mean; momentum, dampening
    and Nesterov then act on ``d`` as in torch, and ``p −= lr·d``. Row means of the weights
    therefore never move. With ``use_gc=False`` it is torch's SGD bit for bit.

    Args:
        {params}.
        lr (float or Tensor): learning rate (default: 1e-3)
        momentum (float): momentum factor (default: 0)
        dampening (float): dampening of the momentum (default: 0)
        weight_decay (float): L2 decay ``wd`` (default: 0)
        nesterov (bool): Nesterov momentum (default: False)
        {switches}
        {gc}

    Raises:
        {raises}

    {note}

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

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        if group["fused"] and any(map(skipped_by_fused_sgd, group["params"])):
            raise ValueError(
                "fused=True with half-precision parameters on the CPU needs torch 2.14: the kernel "
                f"of torch {torch.__version__} does not update all of their elements"
            )

    def _fused_parts(self, group: dict[str, Any]) -> Iterable[Any]:
        params: list[Tensor] = []
        grads: list[Tensor] = []
        buffers: list[Any] = []
        if self._init_group(group, params, grads, buffers):
            raise RuntimeError("`_fused_sgd` does not support sparse gradients")  # as torch says
        options = {k: group[k] for k in ("lr", "weight_decay", "dampening", "nesterov", "maximize")}

        def kernel(params: Any, grads: Any, buffers: Any = (), is_first_step: bool = False) -> None:
            torch._fused_sgd_(
                params,
                grads,
                buffers,
                momentum=group["momentum"],
                is_first_step=is_first_step,
                **options,
                **self._scaling(params[0].device),
            )

        if not group["momentum"]:
            if params:
                yield kernel, (params, grads)
            return
        # The kernel takes all momentum buffers or none, and makes those of the first step
        # without writing them where that step's gradient is infinite.
        for is_first_step in (True, False):
            some = [params, grads, buffers]
            chosen = [i for i, b in enumerate(buffers) if (b is None) == is_first_step]
            if not chosen:
                continue
            if len(chosen) < len(params):
                some = [[xs[i] for i in chosen] for xs in some]
            if is_first_step:
                some[2] = list(map(torch.empty_like, some[1]))
            yield functools.partial(kernel, is_first_step=is_first_step), some
            found_inf = getattr(self, "found_inf", None)
            if is_first_step and not (found_inf is not None and found_inf.item()):
                for p, buffer in zip(some[0], some[2], strict=True):
                    self.state[p]["momentum_buffer"] = buffer

    def _update(self, groups: list[dict[str, Any]]) -> None:
        # torch's own step cannot do with some momentum buffers missing.
        for group in groups:
            if group["fused"]:
                self._fused_update(group)
        super()._update([group for group in groups if not group["fused"]])
