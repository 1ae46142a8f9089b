"""``radam_gc``: RAdam with gradient centralization."""

from classy_vision.optim import register_optimizer

from classy_gc import core
from classy_gc.optim.classy_gc_optimizer import ClassyGCOptimizer


@register_optimizer("radam_gc")
class RAdamGC(ClassyGCOptimizer):
    """``radam_gc``: :class:`classy_gc.core.RAdam`, with its defaults.

    Args:
        lr (float): learning rate, >= 0 (default: 0.001)
        betas (list[float]): two decay rates in [0, 1) (default: (0.9, 0.999))
        eps (float): added to the denominator, >= 0 (default: 1e-8)
        weight_decay (float): decay, >= 0 (default: 0)
        decoupled_weight_decay (bool): decay the weights, not the gradient (default: False)
        degenerated_to_sgd (bool): before rectification, step along the first moment; if
            False, do not step (default: True)
        use_gc (bool): centralize gradients row by row; a row is what the first index of a
            tensor selects, whatever module holds it (default: False)
        gc_conv_only (bool): leave tensors of up to three dimensions alone (default: False)
        gc_loc (bool): centralize the gradient, not the update (default: False)
        fused (bool, optional): torch's fused kernels (default: None, where all parameters
            support them)
        foreach (bool, optional): torch's multi-tensor kernels (default: None, which leaves
            the choice to torch)

    Raises:
        ValueError: an unknown key, or a value out of its range.

    Source: https://arxiv.org/abs/1908.03265; https://arxiv.org/abs/2004.01461.

    Example:
        >>> import torch
        >>> from classy_vision.optim import build_optimizer
        >>> optimizer = build_optimizer({"name": "radam_gc", "lr": 1e-3, "use_gc": True})
        >>> optimizer.set_param_groups([torch.nn.Parameter(torch.ones(2, 2))])
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["use_gc"]
        (0.001, True)
    """

    core_class = core.RAdam
