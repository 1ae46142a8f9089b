"""``my_sign_gc``: an optimizer of one's own, with gradient centralization."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from classy_vision.optim import register_optimizer

from classy_gc.core import CentralizedOptimizer
from classy_gc.optim.classy_gc_optimizer import ClassyGCOptimizer
from classy_gc.options import NON_NEGATIVE


class Sign(torch.optim.Optimizer):
    """``p −= lr·(sign(g) + wd·p)``: https://arxiv.org/abs/1802.04434, with decoupled decay."""

    def __init__(self, params: Any, lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.sub_(p.grad.sign(), alpha=group["lr"])


class CentralizedSign(CentralizedOptimizer, Sign):
    decoupled_weight_decay = True


@register_optimizer("my_sign_gc")
class MySignGC(ClassyGCOptimizer):
    """What a config may say: these options, schedules of them, and the GC options."""

    core_class = CentralizedSign
    options: ClassVar = {
        "lr": (1e-3, NON_NEGATIVE),
        "weight_decay": (0.0, NON_NEGATIVE),
    }
