"""``my_sign_gc``: an optimizer of one's own, with gradient centralization."""

from typing import Any

import torch
from classy_vision.optim import register_optimizer

from classy_gc.core import CentralizedOptimizer
from classy_gc.optim.classy_gc_optimizer import ClassyGCOptimizer


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
    """A config may say the options of ``Sign``, schedules of them, and the GC options."""

    core_class = CentralizedSign
