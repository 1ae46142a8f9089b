"""SGD with layer-wise adaptive rates (LARC) and gradient centralization."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from classy_gc.core._torch import ScaledGradientsRefused, uncompiled
from classy_gc.core.options import added_options, given
from classy_gc.core.sgd import SGD


class LARC(SGD, ScaledGradientsRefused):  # since norms need unscaled gradients
    """:class:`SGD` with a rate per tensor, from the norms of the weight and its gradient.

    ``λ = trust_coefficient·‖p‖ / (‖g‖ + wd·‖p‖ + eps)``, with ``clip`` no larger than the
    learning rate: ``λ ← min(λ/lr, 1)``. Then ``d = C(λ·(g + wd·p))`` takes the place of
    SGD's ``C(g + wd·p)``. Where ``‖p‖`` or ``‖g‖`` is zero, ``d = C(g)``.

    ``λ`` is one number per tensor, so GC and LARC commute except for the norm: ``‖g‖`` is that of
    the raw gradient, as with apex's LARC around the GC SGD.

    Gradients are not changed; a step needs as much extra memory as they take.

    Args:
        params (iterable): tensors, ``(name, tensor)`` pairs, or dicts of a parameter group each
        lr (float): learning rate (default: 1e-3)
        momentum (float): momentum factor (default: 0)
        dampening (float): dampening of the momentum (default: 0)
        weight_decay (float): L2 decay ``wd`` (default: 0)
        nesterov (bool): Nesterov momentum (default: False)
        maximize (bool): maximize the objective (default: False)
        foreach (bool, optional): torch's multi-tensor implementation (default: None)
        differentiable (bool): autograd runs through the step; not with GC (default: False)
        fused (bool, optional): as in :class:`SGD` (default: None)
        trust_coefficient (float): trust in the layer-wise rate (default: 0.02)
        clip (bool): never exceed ``lr`` (LARC); if False, scale it (LARS) (default: True)
        eps (float): added to the denominator (default: 1e-8)
        use_gc (bool or float): centralize, if not zero (default: False)
        gc_conv_only (bool or float): only tensors of four dimensions or more (default: False)

    Raises:
        ValueError: an option is out of range, or cannot be combined with another.
        RuntimeError: at ``step``, a gradient is sparse.

    Source: You, Gitman and Ginsburg, *Large Batch Training of Convolutional Networks*, 2017,
    https://arxiv.org/abs/1708.03888; ``apex.parallel.LARC``,
    https://nvidia.github.io/apex/parallel.html.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
        >>> optimizer = LARC([weight], lr=1.0, trust_coefficient=0.1, clip=False)
        >>> (weight * torch.tensor([[0.0, 2.0]])).sum().backward()
        >>> optimizer.step()  # λ = 0.1·5/2
        >>> weight.tolist()
        [[3.0, 3.5]]
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
        trust_coefficient: float = 0.02,
        clip: bool = True,
        eps: float = 1e-8,
        use_gc: bool | float = False,
        gc_conv_only: bool | float = False,
    ) -> None:
        super(SGD, self).__init__(**given(locals()))

    added_defaults: ClassVar = added_options(__init__, torch.optim.SGD)
    non_negative: ClassVar = ("trust_coefficient", "eps")

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        self._check_rows(group["params"])

    @uncompiled
    def _update_groups(self) -> bool:
        """As in SGD, with ``λ·(g + wd·p)`` in place of the gradients and their decay."""
        for group in self.param_groups:
            self._check_options(group)
        pairs = [(x, p) for x in self.param_groups for p in x["params"] if p.grad is not None]
        grads = [p.grad for _, p in pairs]
        for g in grads:
            if g.layout != torch.strided:
                raise RuntimeError(
                    f"LARC takes no gradients of layout {g.layout} (shape {list(g.shape)}), for it "
                    "needs their norms: step such parameters with another optimizer"
                )
        decays = [group["weight_decay"] for group in self.param_groups]
        try:
            for group, p in pairs:
                p.grad = self._scaled_gradient(group, p)
            for group in self.param_groups:
                group["weight_decay"] = 0
            if not super()._update_groups():
                self.update_without_gc(self.param_groups)
            return True
        finally:
            for (_, p), g in zip(pairs, grads, strict=True):
                p.grad = g
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay

    def _scaled_gradient(self, group: dict[str, Any], p: Tensor) -> Tensor:
        g, wd = p.grad, group["weight_decay"]
        # A norm may overflow in half precision.
        dtype = torch.promote_types(p.dtype, torch.float32)
        p_norm, g_norm = (torch.linalg.vector_norm(x, dtype=dtype) for x in (p, g))
        rate = group["trust_coefficient"] * p_norm / (g_norm + wd * p_norm + group["eps"])
        if group["clip"]:
            rate = (rate / group["lr"]).clamp(max=1)
        # Chosen on the device: reading the norms here would wait for it.
        both = (p_norm != 0) & (g_norm != 0)
        decay = both.to(p.dtype) * (-wd if group["maximize"] else wd)
        return torch.addcmul(g, p, decay).mul_(torch.where(both, rate, 1))
