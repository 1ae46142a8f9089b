"""``sgd_gc``: SGD with gradient centralization."""

from __future__ import annotations

from typing import ClassVar

from classy_vision.optim import register_optimizer

from classy_gc import core
from classy_gc.optim.classy_gc_optimizer import BOOL, FRACTION, NON_NEGATIVE, ClassyGCOptimizer


@register_optimizer("sgd_gc")
class SGDGC(ClassyGCOptimizer):
    """``sgd_gc``: :class:`classy_gc.core.SGD` with the keys and defaults of Classy's ``sgd``.

    Args:
        lr (float): learning rate, >= 0 (default: 0.1)
        momentum (float): in [0, 1) (default: 0)
        weight_decay (float): L2 decay, >= 0 (default: 0)
        nesterov (bool): Nesterov momentum (default: False)
        {gc}
        {speed}

    Raises:
        {raises}

    Source: https://arxiv.org/abs/2004.01461; Classy Vision's ``optim/sgd.py``.

    Example:
        >>> from classy_vision.optim import build_optimizer
        >>> build_optimizer({"name": "sgd_gc", "lr": 0.1, "momentum": 0.9, "use_gc": True})
        <classy_gc.optim.sgd_gc.SGDGC object at ...>
    """

    core_class = core.SGD
    options: ClassVar = {
        "lr": (0.1, NON_NEGATIVE),
        "momentum": (0.0, FRACTION),
        "weight_decay": (0.0, NON_NEGATIVE),
        "nesterov": (False, BOOL),
    }
