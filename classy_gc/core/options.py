"""Options of a parameter group: allowed values, and the effect of a loaded state."""

import inspect
import itertools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from classy_gc.core._torch import is_uninitialized

#: torch optimizers with decoupled decay whose groups do not say so
_DECOUPLED = ("Adafactor", "AdamW", "Muon")

#: names of torch's optimizers for state that has the shape of its parameter
_MOMENTS = {"acc_delta", "ax", "exp_avg", "exp_avg_sq", "exp_inf", "grad_avg", "max_exp_avg_sq"}
_MOMENTS |= {"momentum_buffer", "prev", "square_avg", "step_size", "sum"}


def given(scope: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a method, from its first ``locals()``."""
    return {name: value for name, value in scope.items() if name not in ("self", "__class__")}


def added_options(constructor: Callable[..., None], parent: type) -> dict[str, Any]:
    """The options of a written-out constructor that its parent's lacks, with their defaults.

    Args:
        constructor: whose keywords all have defaults.
        parent: the torch class.

    Example:
        >>> from classy_gc.core import SGD
        >>> added_options(SGD.__init__, torch.optim.SGD)
        {'use_gc': False, 'gc_conv_only': False}
    """
    known = {"self", *inspect.signature(parent).parameters}
    options = inspect.signature(constructor).parameters
    return {name: x.default for name, x in options.items() if name not in known}


def is_torchs(cls: type) -> bool:
    """Whether torch ships an optimizer class."""
    return f"{cls.__module__}.".startswith("torch.optim.") and cls is not torch.optim.Optimizer


def decay_is_decoupled(cls: type) -> bool | None:
    """Whether the ``weight_decay`` of a torch class is decoupled; None if torch lacks the class."""
    return next((c.__name__ in _DECOUPLED for c in cls.__mro__ if is_torchs(c)), None)


def check_closure(cls: type[torch.optim.Optimizer]) -> None:
    """Raises a ValueError for a class whose step takes several gradients from a closure."""
    closure = inspect.signature(cls.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{cls.__name__} cannot be centralized: its step takes several gradients from a closure"
        )


def _misfits(name: str, x: Any, p: Tensor, torchs: bool) -> bool:
    if name not in _MOMENTS or not isinstance(x, Tensor):
        return False
    if torchs:
        return x.shape != p.shape
    # Other classes may keep a mean over dimensions, or a projection with a smaller dimension.
    sizes = zip(x.shape, p.shape, strict=False) if x.ndim == p.ndim > 1 else ()
    others = [(own, size) for own, size in sizes if own not in (1, size)]
    return len(others) > 1 or any(own > size for own, size in others)


def check_moments(
    groups: list[dict[str, Any]], state: Mapping[Any, dict[str, Any]], torchs: bool
) -> None:
    """Raises a ValueError for moments that a step would pair with the wrong weights."""
    names = itertools.count()
    for group in groups:
        labels = group.get("param_names") or [f"parameter {next(names)}" for _ in group["params"]]
        for label, p in zip(labels, group["params"], strict=True):
            moments = {} if is_uninitialized(p) else state.get(p, {})
            for name, x in moments.items():
                if _misfits(name, x, p, torchs):
                    raise ValueError(
                        f"the state's {name} of {label} has shape {list(x.shape)}, and the "
                        f"parameter {list(p.shape)}: it is the state of another model, or of "
                        "parameters in another order"
                    )


def take_gc_options(optimizer: torch.optim.Optimizer, loaded: list[dict[str, Any]]) -> None:
    """Sets the GC options in the parameter groups of a state that is being loaded.

    Options that the state lacks (it may come from torch's own class) keep their values; options
    that this class lacks (but a centralized torch class has) are dropped. The others come from the
    state, as torch's do, and one warning says which ones change.
    """
    changed = {}
    for group, new in zip(optimizer.param_groups, loaded, strict=True):
        for name in optimizer.added_defaults:
            new.setdefault(name, group[name])
        for name in ("use_gc", "gc_conv_only", "gc_loc", "decoupled_weight_decay"):
            if name not in optimizer.defaults:
                new.pop(name, None)
            elif name in optimizer.added_defaults and bool(new[name]) != bool(group[name]):
                changed[name] = f"{name}={new[name]} (was {group[name]})"
    if changed:
        warnings.warn(
            f"{type(optimizer).__name__}.load_state_dict: the state says "
            f"{', '.join(changed.values())}, and as in torch it counts; set param_groups "
            "afterwards to have it otherwise",
            stacklevel=6,
        )
