"""``rmsprop_tf_gc``: TensorFlow's RMSprop with gradient centralization."""

from classy_vision.optim import RMSPropTF, register_optimizer

from classy_gc import core
from classy_gc.optim.classy_gc_optimizer import ClassyGCOptimizer


@register_optimizer("rmsprop_tf_gc")
class RMSPropTFGC(ClassyGCOptimizer):
    """``rmsprop_tf_gc``: :class:`classy_gc.core.RMSpropTF`, keys and defaults of ``rmsprop_tf``.

    The stock ``rmsprop_tf`` overwrites its second moment with its square root at every step; this
    one keeps it, so the two train differently. With ``initial_square_avg`` 1 and ``lr_in_momentum``
    it matches TensorFlow and timm's ``RMSpropTF`` step by step.

    Args:
        lr (float): learning rate, >= 0 (default: 0.1)
        momentum (float): in [0, 1) (default: 0)
        weight_decay (float): L2 decay, >= 0 (default: 0)
        alpha (float): decay rate of the second moment, in [0, 1) (default: 0.99)
        eps (float): added under the square root, >= 0 (default: 1e-8)
        centered (bool): divide by the deviation, not the second moment (default: False)
        initial_square_avg (float): the second moment before the first step, >= 0 (default: 0,
            TensorFlow: 1)
        lr_in_momentum (bool): the momentum accumulates ``lr`` times the direction, not the
            direction alone, which differs only while ``lr`` changes (default: False, TensorFlow:
            True)
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

    Source: https://arxiv.org/abs/2004.01461; Classy Vision's ``optim/rmsprop_tf.py``;
    TensorFlow's ``ApplyRMSProp``; timm's ``optim/rmsprop_tf.py``.

    Example:
        >>> import torch
        >>> from classy_vision.optim import build_optimizer
        >>> optimizer = build_optimizer({"name": "rmsprop_tf_gc", "lr": 1e-3, "use_gc": True})
        >>> optimizer.set_param_groups([torch.nn.Parameter(torch.ones(2, 2))])
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["use_gc"]
        (0.001, True)
    """

    core_class = core.RMSpropTF
    stands_for = RMSPropTF
