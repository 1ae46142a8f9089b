"""``adamw_gc``: AdamW with gradient centralization."""

from typing import ClassVar

from classy_vision.optim import AdamW, register_optimizer

from classy_gc import core
from classy_gc.optim.classy_gc_optimizer import ClassyGCOptimizer


@register_optimizer("adamw_gc")
class AdamWGC(ClassyGCOptimizer):
    """``adamw_gc``: :class:`classy_gc.core.AdamW` with the keys and defaults of Classy's ``adamw``.

    Args:
        lr (float): learning rate, >= 0 (default: 0.001, and 0.01 in a JSON config: the stock
            ``adamw`` differs there too)
        betas (list[float]): two decay rates in [0, 1) (default: (0.9, 0.999))
        eps (float): added to the denominator, >= 0 (default: 1e-8)
        weight_decay (float): decoupled decay, >= 0 (default: 0.01)
        amsgrad (bool): divide by the largest second moment so far (default: False)
        use_gc (bool): centralize gradients row by row; a row is what the first index of a
            tensor selects, whatever module holds it (default: False)
        gc_conv_only (bool): leave tensors of up to three dimensions alone (default: False)
        gc_loc (bool): centralize the gradient, not the update (default: True)
        fused (bool, optional): torch's fused kernels (default: None, where all parameters
            support them)
        foreach (bool, optional): torch's multi-tensor kernels (default: None, which leaves
            the choice to torch)

    Raises:
        ValueError: an unknown key, or a value out of its range.

    Source: https://arxiv.org/abs/2004.01461; Classy Vision's ``optim/adamw.py``.

    Example:
        >>> import torch
        >>> from classy_vision.optim import build_optimizer
        >>> optimizer = build_optimizer({"name": "adamw_gc", "lr": 1e-3, "use_gc": True})
        >>> optimizer.set_param_groups([torch.nn.Parameter(torch.ones(2, 2))])
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["use_gc"]
        (0.001, True)
    """

    core_class = core.AdamW
    stands_for = AdamW
    config_defaults: ClassVar = {"lr": 0.01}
