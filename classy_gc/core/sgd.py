"""SGD with gradient centralization."""

from __future__ import annotations

from typing import ClassVar

import torch

from classy_gc.core.centralized_optimizer import CentralizedOptimizer


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

    def _update(self) -> None:
        # torch's fused kernel takes all momentum buffers of a group or none, and makes those
        # of the first step without writing them where that step's gradient is infinite.
        params = [
            p
            for group in self.param_groups
            if group["fused"] and group["momentum"]
            for p in group["params"]
            if p.grad is not None
        ]
        key = (id(self.state), len(self.state), *map(id, params))
        if vars(self).get("_all_buffers") == key:
            super()._update()
            return
        first = {p for p in params if self.state.get(p, {}).get("momentum_buffer") is None}
        if not first:
            self._all_buffers = key
            super()._update()
            return
        for turn in (first, set()):
            waiting = [
                (p, p.grad)
                for group in self.param_groups
                for p in group["params"]
                if p.grad is not None and (p in first) == (turn is not first)
            ]
            for p, _ in waiting:
                p.grad = None
            super()._update()
            for p, grad in waiting:
                p.grad = grad
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and found_inf.item():
            for p in first:
                del self.state[p]
