"""``gc``: gradient centralization around any ClassyOptimizer."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from classy_vision.optim import ClassyOptimizer, build_optimizer, register_optimizer
from classy_vision.optim.rmsprop_tf import RMSpropTFOptimizer
from classy_vision.optim.zero import ZeRO

from classy_gc.core import centralize_optimizer
from classy_gc.optim.scheduled_gc import ScheduledGC
from classy_gc.optim.stock import CLASSY_KEYS, base_config, check_stock_optimizer, group_options
from classy_gc.options import GC_FLAG, SWITCH, Rule, check_known, check_options, without_comments


@register_optimizer("gc")
class GC(ScheduledGC):
    """``gc``: gradient centralization around any ClassyOptimizer, stock or your own.

    A config looks like that of Classy Vision's ``zero``::

        {"name": "gc", "use_gc": true, "base_optimizer": {"name": "sgd", "lr": 0.1}}

    Schedules go beside ``base_optimizer`` and drive its options and the GC options. Torch's
    SGD, Adam, AdamW and RMSprop take the same kernels as the GC versions of their own (``adam_gc``
    for ``adam``).

    Args:
        base_optimizer (ClassyOptimizer): the one to centralize, before it gets its parameters.
        use_gc (bool): centralize gradients row by row; a row is what the first index of a tensor
            selects, whatever module holds it (default: False)
        gc_conv_only (bool): leave tensors of up to three dimensions alone (default: False)
        gc_loc (bool): centralize the gradient, with its L2 decay, not the update
            (default: False)
        decoupled_weight_decay (bool, optional): whether the ``weight_decay`` of the base acts on
            the weights and not through the gradient; only needed with ``gc_loc`` for your own
            optimizers (default: None, known for torch's and Classy's)

    Raises:
        ValueError: an unknown key or optimizer, a value out of range, or a base that already
            centralizes.

    Source: https://arxiv.org/abs/2004.01461; Classy Vision's ``optim/zero.py``.

    Example:
        >>> import torch
        >>> from classy_vision.optim import build_optimizer
        >>> base = {"name": "sgd", "lr": 0.5}
        >>> optimizer = build_optimizer({"name": "gc", "use_gc": True, "base_optimizer": base})
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer.set_param_groups([weight])
        >>> (weight * torch.tensor([[1.0, 3.0]])).sum().backward()
        >>> optimizer.step(where=0.0)
        >>> weight.tolist()
        [[1.5, 0.5]]
    """

    OPTIONS: ClassVar = {
        **dict.fromkeys(("use_gc", "gc_conv_only", "gc_loc"), (False, GC_FLAG)),
        "decoupled_weight_decay": (None, SWITCH),
    }

    def __init__(
        self,
        base_optimizer: ClassyOptimizer,
        use_gc: bool = False,
        gc_conv_only: bool = False,
        gc_loc: bool = False,
        decoupled_weight_decay: bool | None = None,
    ) -> None:
        super().__init__()
        if isinstance(base_optimizer, ScheduledGC):
            raise ValueError(
                f"{self.label()}: {base_optimizer.label()} already centralizes; set its own use_gc"
            )
        if isinstance(base_optimizer, ZeRO):
            raise ValueError(f"{self.label()}: put 'gc' into the base_optimizer of 'zero'")
        self.base_optimizer = base_optimizer
        options = {name: value for name, value in locals().items() if name in self.OPTIONS}
        self._options = check_options(options, self.OPTIONS, self.label())

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "GC":
        """Instantiates the optimizer from a configuration, which is not changed.

        Args:
            config: ``name``, ``base_optimizer`` (an optimizer config), the GC options, and
                optionally ``param_schedulers`` and ``num_epochs``, which the task adds.

        Raises:
            ValueError: an unknown key or optimizer, or a value out of range.
        """
        config, label = without_comments(config), f"optimizer {config['name']!r}"
        check_known(config, [*CLASSY_KEYS, "base_optimizer", *cls.OPTIONS], label)
        base = base_config(config, label)
        check_stock_optimizer(base)
        options = {name: config[name] for name in cls.OPTIONS if name in config}
        # The stock from_config methods write their defaults into the config that they get.
        return cls(build_optimizer(copy.deepcopy(dict(base))), **options).keep_schedules(config)

    def own_options(self) -> tuple[dict[str, Any], dict[str, Rule]]:
        values, rules = group_options(self.base_optimizer)
        gc = {name: rule for name, (_, rule) in self.OPTIONS.items() if rule.schedulable}
        return {**values, **self._options}, {**rules, **gc}

    def torch_optimizer(self, param_groups: Any) -> torch.optim.Optimizer:
        self.base_optimizer.prepare(param_groups)
        options = dict(self._options)
        optimizer = self.base_optimizer.optimizer
        if isinstance(optimizer, RMSpropTFOptimizer):
            options["decoupled_weight_decay"] = False
        return centralize_optimizer(optimizer, **options)

    def set_param_groups(self, param_groups: Any, **kwargs: Any) -> None:
        super().set_param_groups(param_groups, **kwargs)
        self.base_optimizer._param_group_schedulers = self._param_group_schedulers

    # These call the methods of the base, which it may override.

    def step(self, *args: Any, where: float | None = None, **kwargs: Any) -> None:
        self.catch_up(where, self)
        self.base_optimizer.step(*args, where=where, **kwargs)

    def on_epoch(self, where: float) -> None:
        self.base_optimizer.on_epoch(where)

    def get_classy_state(self) -> dict[str, Any]:
        return self.base_optimizer.get_classy_state()

    def set_classy_state(self, state: dict[str, Any]) -> None:
        self.base_optimizer.set_classy_state(self.resumed(state, self))

    def zero_grad(self) -> None:
        self.base_optimizer.zero_grad()
