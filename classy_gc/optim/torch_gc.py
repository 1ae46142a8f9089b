"""``torch_gc``: any PyTorch optimizer, by its name or path, with gradient centralization."""

import inspect
from types import ModuleType
from typing import Any

import torch
from classy_vision.optim import register_optimizer

from classy_gc import core
from classy_gc.core import CentralizedOptimizer, centralize_optimizer
from classy_gc.custom_imports import import_named
from classy_gc.optim.classy_gc_optimizer import ClassyGCOptimizer, options_table
from classy_gc.options import REQUIRED, SWITCH, check_known


def _classes_of(module: ModuleType) -> dict[str, type[torch.optim.Optimizer]]:
    """The optimizer classes of a module by name, without the base of all."""
    base = torch.optim.Optimizer
    classes = dict(inspect.getmembers(module, inspect.isclass))
    return {name: c for name, c in classes.items() if issubclass(c, base) and c is not base}


_CLASSES = _classes_of(torch.optim)

# Other packages' names of ``decoupled_weight_decay``.
_DECOUPLED = ("decoupled_weight_decay", "weight_decouple", "decoupled_decay", "decouple_wd")


@register_optimizer("torch_gc")
class TorchGC(ClassyGCOptimizer):
    """``torch_gc``: any optimizer class, with the options and defaults of its constructor.

    ``optimizer`` is the name of a class in :mod:`torch.optim`, or the path of any other class,
    whose module may lie in the current folder or beside the config that a command reads::

        {"name": "torch_gc", "optimizer": "NAdam", "lr": 2e-3, "momentum_decay": 4e-3,
         "use_gc": true}
        {"name": "torch_gc", "optimizer": "timm.optim.Lion", "lr": 1e-4, "use_gc": true}

    The names SGD, Adam, AdamW, RAdam and RMSprop stand for the classes in :mod:`classy_gc.core`.
    ParamSchedulers drive every number of the parameter groups, such as the ``momentum_decay`` of
    NAdam, and ``momentum`` drives the first of ``betas``. Among torch's classes only two numbers
    are read just once and cannot be scheduled, but may differ between groups:
    ``initial_accumulator_value`` of Adagrad, and ``lr`` of Rprop, which is its first step size.

    A class that cannot train in Classy Vision's tasks is refused, with the reason: one that needs a
    closure or second derivatives, is built from a model or another optimizer, or wants ``train()``
    and ``eval()`` called. To find out, the class takes a few steps on small weights.

    Args:
        optimizer (str): the class; not torch's LBFGS, SparseAdam or Muon, which only takes
            weights of two dimensions (:func:`classy_gc.core.centralize_optimizer` takes it)
        **options: of that class, with its defaults, except ``capturable``, ``differentiable`` and
            those that JSON cannot express; lists stand for tuples
        use_gc (bool): centralize gradients row by row; a row is what the first index of a
            tensor selects, whatever module holds it (default: False)
        gc_conv_only (bool): leave tensors of up to three dimensions alone (default: False)
        gc_loc (bool): centralize the gradient, with its L2 decay, not the update (default:
            False; AdamW: True; SGD has no such option)
        decoupled_weight_decay (bool, optional): whether the ``weight_decay`` of a class that is
            not torch's acts on the weights and not through the gradient; only needed with
            ``gc_loc`` (default: None, what the groups of the class say)
        fused (bool, optional): torch's fused kernels (default: None, where all parameters
            support them)
        foreach (bool, optional): torch's multi-tensor kernels (default: None, which leaves
            the choice to torch)

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

    def __init__(self, optimizer: str | None = None, *args: Any, **options: Any) -> None:
        self.core_class = _named(optimizer)
        self.OPTIONS = options_table(self.core_class)
        if not (issubclass(self.core_class, CentralizedOptimizer) or optimizer in _CLASSES):
            self.OPTIONS.setdefault("decoupled_weight_decay", (None, SWITCH))
        if self.core_class is torch.optim.Rprop:  # which reads it only once, at the start
            default, rule = self.OPTIONS["lr"]
            self.OPTIONS["lr"] = (default, rule._replace(schedulable=False))
        super().__init__(*args, **options)

    def label(self) -> str:
        return f"optimizer 'torch_gc' ({self.core_class.__name__})"

    def _built(self, params: list[Any], options: dict[str, Any]) -> torch.optim.Optimizer:
        if issubclass(self.core_class, CentralizedOptimizer):
            return super()._built(params, options)
        known = inspect.signature(self.core_class).parameters
        own = {name: value for name, value in options.items() if name in known}
        gc = {name: options[name] for name in CentralizedOptimizer.added_defaults}
        # A class that centralizes by itself must not centralize twice.
        own |= {name: False for name in gc if name in known}
        optimizer = self.core_class(params, **own)
        decoupled = options.get("decoupled_weight_decay")
        if decoupled is None:
            group = optimizer.param_groups[0]
            decoupled = next((group[name] for name in _DECOUPLED if name in group), None)
        return centralize_optimizer(optimizer, **gc, decoupled_weight_decay=decoupled)


def _named(name: Any) -> type[torch.optim.Optimizer]:
    """Returns the class of a name or path if a config can use it."""
    label = "optimizer 'torch_gc'"
    if name is None:
        raise ValueError(f"missing key 'optimizer' in {label}: a class such as NAdam, or its path")
    if not isinstance(name, str) or "." not in name:
        check_known([name], _CLASSES, label, "optimizer")
        return getattr(core, name, _CLASSES[name])
    module, _, class_name = name.rpartition(".")
    classes = _classes_of(import_named(module, label))
    check_known([class_name], classes, f"{label}, module {module!r}", "optimizer")
    reason = _unfit_reason(classes[class_name])
    if reason:
        raise ValueError(f"{label}: optimizer must not be {name!r}, which {reason}")
    return classes[class_name]


def _unfit_reason(cls: type[torch.optim.Optimizer]) -> str | None:
    """Why a class cannot be built from parameters and stepped by a task; None if it can."""
    first, *options = inspect.signature(cls).parameters.values()
    if first.name != "params":
        return f"is built from {first.name!r}, not from parameters"
    if hasattr(cls, "train") and hasattr(cls, "eval"):
        return "wants train() and eval() called between phases, which Classy Vision's tasks do not"
    for option in options:
        named = option.kind not in (option.VAR_POSITIONAL, option.VAR_KEYWORD)
        wanted = any(kind in str(option.annotation) for kind in ("float", "int", "bool"))
        if named and option.default is REQUIRED and not wanted and option.name != "lr":
            return f"needs {option.name!r}, which a config cannot express"
    return None
