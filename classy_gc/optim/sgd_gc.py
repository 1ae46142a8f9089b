"""``sgd_gc``: SGD with gradient centralization."""

from collections.abc import Mapping
from typing import Any

from classy_vision.optim import SGD, register_optimizer

from classy_gc import core
from classy_gc.optim.classy_gc_optimizer import ClassyGCOptimizer, constructor_options
from classy_gc.options import check_options

_LARC_OPTIONS = {
    name: constructor_options(core.LARC)[name] for name in ("trust_coefficient", "clip", "eps")
}


@register_optimizer("sgd_gc")
class SGDGC(ClassyGCOptimizer):
    """``sgd_gc``: :class:`classy_gc.core.SGD` with the keys and defaults of Classy's ``sgd``.

    Args:
        larc_config (dict, optional): options of LARC: ``clip`` (bool, default: True), ``eps``
            (float, >= 0, default: 1e-8), ``trust_coefficient`` (float, >= 0, default: 0.02); it
            comes first as in the stock class, but positional arguments may also begin with ``lr``
            (default: None, these defaults)
        lr (float): learning rate, >= 0 (default: 0.1)
        momentum (float): in [0, 1) (default: 0)
        weight_decay (float): L2 decay, >= 0 (default: 0)
        nesterov (bool): Nesterov momentum (default: False)
        use_larc (bool): layer-wise adaptive rates, :class:`classy_gc.core.LARC`; unlike the
            stock ``sgd`` it needs no apex (default: False)
        use_gc (bool): centralize gradients row by row; a row is what the first index of a
            tensor selects, whatever module holds it (default: False)
        gc_conv_only (bool): leave tensors of up to three dimensions alone (default: False)
        fused (bool, optional): torch's fused kernels (default: None, where all parameters
            support them)
        foreach (bool, optional): torch's multi-tensor kernels (default: None, which leaves
            the choice to torch)

    Raises:
        ValueError: an unknown key, or a value out of its range.

    Source: https://arxiv.org/abs/2004.01461; https://arxiv.org/abs/1708.03888;
    Classy Vision's ``optim/sgd.py``.

    Example:
        >>> import torch
        >>> from classy_vision.optim import build_optimizer
        >>> optimizer = build_optimizer({"name": "sgd_gc", "lr": 0.1, "use_gc": True})
        >>> optimizer.set_param_groups([torch.nn.Parameter(torch.ones(2, 2))])
        >>> optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["use_gc"]
        (0.1, True)
    """

    core_class = core.SGD
    stands_for = SGD

    def __init__(self, *args: Any, **options: Any) -> None:
        if args and not isinstance(args[0], (Mapping, type(None))):
            args = (None, *args)
        super().__init__(*args, **options)
        if options.get("larc_config") and "use_larc" not in options:
            raise ValueError(f"{self.label()}: larc_config needs use_larc beside it")

    def _built(self, params: list[Any], options: dict[str, Any]) -> core.SGD:
        sgd = {k: v for k, v in options.items() if k not in ("larc_config", "use_larc")}
        larc = check_options(
            options["larc_config"] or {}, _LARC_OPTIONS, f"larc_config of {self.label()}"
        )
        return core.LARC(params, **sgd, **larc) if options["use_larc"] else core.SGD(params, **sgd)
