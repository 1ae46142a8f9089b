"""Options of a parameter group: what they may be, and what a loaded state does to them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from classy_gc.core._torch import is_uninitialized

#: torch optimizers whose decay is decoupled and whose groups do not say so
_DECOUPLED = ("Adafactor", "AdamW", "Muon")

#: state of torch's optimizers that has the shape of its parameter
_MOMENTS = (
    "exp_avg",
    "exp_avg_sq",
    "grad_avg",
    "max_exp_avg_sq",
    "momentum_buffer",
    "square_avg",
)


def is_torchs(cls: type) -> bool:
    """Whether torch ships an optimizer class."""
    return f"{cls.__module__}.".startswith("torch.optim.")


def decay_is_decoupled(cls: type) -> bool | None:
    """What the ``weight_decay`` of a torch class is; None of a class that torch does not ship."""
    for c in cls.__mro__:
        if is_torchs(c) and c is not torch.optim.Optimizer:
            return c.__name__ in _DECOUPLED
    return None


def check_closure(cls: type[torch.optim.Optimizer]) -> None:
    """Refuses a class whose step takes several gradients.

    Raises:
        ValueError: ``step`` cannot be called without a closure.
    """
    closure = inspect.signature(cls.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{cls.__name__} cannot be centralized: its step takes several gradients from a closure"
        )


def check_flag(name: str, value: Any) -> None:
    """Refuses what is neither a bool nor a number, a scheduled value.

    Raises:
        ValueError: naming the option and the value.

    Example:
        >>> check_flag("use_gc", "yes")
        Traceback (most recent call last):
        ValueError: Invalid use_gc value: 'yes', must be a bool or a number
    """
    if not isinstance(value, (bool, int, float)):
        raise ValueError(f"Invalid {name} value: {value!r}, must be a bool or a number")


def check_moments(groups: list[dict[str, Any]], state: Mapping[Any, dict[str, Any]]) -> None:
    """Refuses moments that a step would read past the end of, or pair with wrong weights.

    Args:
        groups: parameter groups.
        state: of their parameters, as torch's optimizers name it.

    Raises:
        ValueError: a moment is of another shape than its parameter; both are named.
    """
    for group in groups:
        names = group.get("param_names") or [f"parameter {i}" for i in range(len(group["params"]))]
        for label, p in zip(names, group["params"], strict=True):
            if p not in state or is_uninitialized(p):
                continue
            for name in _MOMENTS:
                x = state[p].get(name)
                if isinstance(x, Tensor) and x.shape != p.shape:
                    raise ValueError(
                        f"the state's {name} of {label} has shape {list(x.shape)}, and the "
                        f"parameter {list(p.shape)}: it is the state of another model, or of "
                        "parameters in another order"
                    )


def take_gc_options(optimizer: torch.optim.Optimizer, loaded: list[dict[str, Any]]) -> None:
    """Settles the GC options of a state that is being loaded.

    Options that it lacks, one of torch's own classes, stay as they are; those that the class does
    not have, which a centralized torch class does, go. Others come from the state, as all of
    torch's do, and one warning says which change.

    Args:
        optimizer: that loads it, with its groups as they were.
        loaded: groups that will take their place, changed in place.
    """
    changed = {}
    for group, new in zip(optimizer.param_groups, loaded, strict=True):
        for name in optimizer.added_defaults:
            new.setdefault(name, group[name])
        for name in ("use_gc", "gc_conv_only", "gc_loc", "decoupled_weight_decay"):
            if name not in optimizer.defaults:
                new.pop(name, None)
            elif bool(new.get(name)) != bool(group[name]):
                changed[name] = f"{name}={new[name]} (was {group[name]})"
    if changed:
        warnings.warn(
            f"{type(optimizer).__name__}.load_state_dict: the state says {', '.join(changed.values())}"
            ", and as in torch it counts; set param_groups afterwards to have it otherwise",
            stacklevel=4,
        )


def check_one_implementation(options: dict[str, Any], cls: type) -> None:
    """Refuses ``fused`` together with what our kernels, unlike torch's own code, cannot do.

    Args:
        options: of a group.
        cls: whose torch parent knows no ``fused`` and therefore does not check.

    Raises:
        ValueError: naming both options.
    """
    for name in ("foreach", "differentiable", "capturable"):
        if options.get("fused") and options.get(name):
            raise ValueError(f"fused=True cannot be combined with {name}=True in {cls.__name__}")
