"""SGD with layer-wise adaptive rates (LARC) and gradient centralization."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from classy_gc.core.sgd import SGD


class LARC(SGD):
    """:class:`SGD` with a rate for every tensor, from the norms of the weight and its gradient.

    ``λ = trust_coefficient·‖p‖ / (‖g‖ + wd·‖p‖ + eps)``, with ``clip`` no larger than the
    learning rate: ``λ ← min(λ/lr, 1)``. Then ``d = C(λ·(g + wd·p))`` takes the place of
    SGD's ``C(g + wd·p)``. Where ``‖p‖`` or ``‖g‖`` is zero, ``d = C(g)``.

    ``λ`` is one number a tensor, so GC and LARC commute but for the norm: ``‖g‖`` is that of
    the raw gradient, as if apex's LARC had been put around the GC SGD.

    Args:
        {params}.
        lr (float): learning rate (default: 1e-3)
        momentum (float): momentum factor (default: 0)
        dampening (float): dampening of the momentum (default: 0)
        weight_decay (float): L2 decay ``wd`` (default: 0)
        nesterov (bool): Nesterov momentum (default: False)
        {switches}
        trust_coefficient (float): trust in the layer-wise rate (default: 0.02)
        clip (bool): never exceed ``lr`` (LARC); if False, scale it (LARS) (default: True)
        eps (float): added to the denominator (default: 1e-8)
        {gc}

    Raises:
        {raises}

    {note}

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

    added_defaults: ClassVar = {
        "trust_coefficient": 0.02,
        "clip": True,
        "eps": 1e-8,
        **SGD.added_defaults,
    }

    # Norms need true gradients: GradScaler is to unscale them before the step, also where
    # torch's SGD says that its fused kernel would.
    _step_supports_amp_scaling = property(lambda self: False, lambda self, value: None)

    def _check_options(self, options: dict[str, Any]) -> None:
        super()._check_options(options)
        for name in ("trust_coefficient", "eps"):
            if not options[name] >= 0:
                raise ValueError(f"Invalid {name} value: {options[name]}")

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        self._check_rows(group["params"], "needs the norms of whole weights", "")

    def _transform_gradients(self) -> None:
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            wd = -group["weight_decay"] if group["maximize"] else group["weight_decay"]
            for p in params:
                g = p.grad
                p_norm, g_norm = torch.linalg.vector_norm(p), torch.linalg.vector_norm(g)
                rate = (
                    group["trust_coefficient"]
                    * p_norm
                    / (g_norm + group["weight_decay"] * p_norm + group["eps"])
                )
                if group["clip"]:
                    rate = (rate / group["lr"]).clamp(max=1)
                # Chosen on the device: reading the norms would wait for it.
                both = (p_norm != 0) & (g_norm != 0)
                g.addcmul_(p, both.to(p.dtype) * wd).mul_(torch.where(both, rate, 1))

    def _centralized_update(self, plan: list[tuple[dict[str, Any], Any]]) -> None:
        # The decay is in the gradients already.
        decays = [group["weight_decay"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                group["weight_decay"] = 0
            super()._centralized_update(plan)
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay
