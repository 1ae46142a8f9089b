"""``torch_gc``: any ``torch.optim`` optimizer by name, with gradient centralization."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import torch
from classy_vision.optim import register_optimizer

from classy_gc import core
from classy_gc.core import CentralizedOptimizer, centralize_optimizer
from classy_gc.optim.classy_gc_optimizer import ClassyGCOptimizer
from classy_gc.options import BETAS, BOOL, NUMBER, Rule, check_known

# Of no use where Classy Vision trains: CUDA graphs, and autograd through the step.
_LEFT_OUT = ("params", "capturable", "differentiable", *CentralizedOptimizer.added_defaults)

_UNFIT = {
    "LBFGS": "takes several gradients in a step, from a closure",
    "Muon": "takes weights of two dimensions alone: a model has biases, norms and convolutions too",
    "SparseAdam": "takes sparse gradients alone, which have no rows to centralize",
}

# Read when the optimizer starts, and never again.
_READ_ONCE = {("Adagrad", "initial_accumulator_value"), ("Rprop", "lr")}


def _numbers(default: tuple[float | None, ...]) -> Rule:
    def accepts(value: Any) -> bool:
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(default)
            and all(
                NUMBER.accepts(v) or (v is None and d is None)
                for v, d in zip(value, default, strict=True)
            )
        )

    null = ", the first may be null" if None in default else ""
    return Rule(f"a list of {len(default)} numbers{null}", accepts, schedulable=False)


def _rule(name: str, option: inspect.Parameter) -> Rule:
    """What torch's signature says of an option; its range is left to the class of that name."""
    if option.name == "betas":
        return BETAS
    if isinstance(option.default, bool):
        return BOOL
    if isinstance(option.default, tuple):
        return _numbers(option.default)
    return NUMBER._replace(schedulable=(name, option.name) not in _READ_ONCE)


@register_optimizer("torch_gc")
class TorchGC(ClassyGCOptimizer):
    """``torch_gc``: the optimizer of that name in :mod:`torch.optim`, with its defaults.

    Written with the name of the class, options as torch's documentation has them::

        {"name": "torch_gc", "optimizer": "NAdam", "lr": 2e-3, "momentum_decay": 4e-3,
         "use_gc": true}

    Names that :mod:`classy_gc.core` has (SGD, Adam, AdamW, RAdam, RMSprop) are its classes.
    ParamSchedulers drive every option that is a number, such as the ``momentum_decay`` of
    NAdam, and ``momentum`` drives the first of ``betas``. Only two are read once, and cannot be
    scheduled, but may differ between groups: ``initial_accumulator_value`` of Adagrad, and ``lr``
    of Rprop, the first step size.

    Args:
        optimizer (str): a class of :mod:`torch.optim`, but for LBFGS, which takes several
            gradients in a step, SparseAdam, whose gradients have no rows, and Muon, which takes
            weights of two dimensions alone (in Python there is
            :func:`classy_gc.core.centralize_optimizer` for it)
        **options: of that class, with its defaults, but for ``capturable`` and
            ``differentiable``; lists where it takes tuples
        {gc}
        gc_loc (bool): centralize the gradient, with its L2 decay, not the update (default:
            False; AdamW: True; SGD has no such option)
        {speed}

    Raises:
        ValueError: an unknown class or key, or a value that the class refuses.

    Source: https://docs.pytorch.org/docs/stable/optim.html; https://arxiv.org/abs/2004.01461.

    Example:
        >>> from classy_vision.optim import build_optimizer
        >>> optimizer = build_optimizer({"name": "torch_gc", "optimizer": "Adagrad", "lr": 0.5,
        ...                              "use_gc": True})
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer.set_param_groups([weight])
        >>> (weight * torch.tensor([[-1.0, 3.0]])).sum().backward()
        >>> optimizer.step(where=0.0)
        >>> weight.tolist()
        [[1.5, 0.5]]
    """

    core_class: ClassVar = CentralizedOptimizer

    def __new__(cls, optimizer: str | None = None, *args: Any, **options: Any) -> TorchGC:
        return super().__new__(_named(optimizer) if cls is TorchGC else cls)

    def __init__(self, optimizer: str | None = None, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)

    @classmethod
    def _built(cls, params: list[Any], options: dict[str, Any]) -> torch.optim.Optimizer:
        if issubclass(cls.core_class, CentralizedOptimizer):
            return super()._built(params, options)
        gc = {name: options[name] for name in cls._added_defaults()}
        others = {name: value for name, value in options.items() if name not in gc}
        return centralize_optimizer(cls.core_class(params, **others), **gc)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TorchGC:
        """Instantiates the optimizer from a configuration, which stays as it is.

        Args:
            config: ``name``, ``optimizer``, the options of that class, the GC options, and
                optionally ``param_schedulers`` (option: ParamScheduler config) and
                ``num_epochs``, which the task adds.

        Raises:
            ValueError: an unknown class or key, a value that the class refuses, or a schedule
                for what cannot be scheduled.
        """
        if cls is not TorchGC:
            return super().from_config(config)
        options = {k: v for k, v in config.items() if k != "optimizer"}
        return _named(config.get("optimizer")).from_config(options)

    @classmethod
    def label(cls) -> str:
        return f"optimizer 'torch_gc' ({cls.core_class.__name__})"

    @classmethod
    def _schedulable(cls) -> dict[str, Rule]:
        def rule_of_torch(name: str, rule: Rule) -> Rule:
            def accepts(value: Any) -> bool:
                if not rule.accepts(value):
                    return False
                try:
                    cls.core_class([torch.zeros(1, 1)], **{name: value})
                except ValueError:
                    return False
                return True

            return Rule(f"{rule.allowed} that {cls.core_class.__name__} accepts", accepts)

        return {
            name: rule_of_torch(name, rule) if rule.accepts is NUMBER.accepts else rule
            for name, rule in super()._schedulable().items()
        }

    @classmethod
    def _validated(cls, options: dict[str, Any]) -> dict[str, Any]:
        options = super()._validated(options)
        return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


del TorchGC.__signature__  # it has no ``optimizer``, which ``__new__`` has

_CLASSES = {
    name: parent
    for name, parent in inspect.getmembers(torch.optim, inspect.isclass)
    if issubclass(parent, torch.optim.Optimizer) and name not in ("Optimizer", *_UNFIT)
}


@cache
def _class_of(name: str) -> type[TorchGC]:
    core_class = getattr(core, name, _CLASSES[name])
    options = inspect.signature(core_class).parameters
    options = {k: (o.default, _rule(name, o)) for k, o in options.items() if k not in _LEFT_OUT}
    body = {"core_class": core_class, "options": options, "__doc__": None}
    return type(TorchGC)(f"{name}GC", (TorchGC,), body)


def _named(name: Any) -> type[TorchGC]:
    label = "optimizer 'torch_gc'"
    if name is None:
        raise ValueError(f"missing key 'optimizer' in {label}; known: {', '.join(_CLASSES)}")
    if isinstance(name, str) and name in _UNFIT:
        raise ValueError(f"{label}: optimizer must not be {name!r}, which {_UNFIT[name]}")
    check_known([name], _CLASSES, label, "optimizer")
    return _class_of(name)
