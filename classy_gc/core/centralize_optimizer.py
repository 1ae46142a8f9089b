"""Gradient centralization for an existing optimizer of any class."""

from functools import cache
from typing import Any

import torch

from classy_gc.core._torch import is_initialized, wrap_step
from classy_gc.core.centralized_optimizer import CentralizedOptimizer
from classy_gc.core.options import check_closure, decay_is_decoupled, given


class _CentralizedInstance(CentralizedOptimizer):
    """The class of an optimizer that :func:`centralize_optimizer` has changed."""

    added_defaults = CentralizedOptimizer.added_defaults | {"decoupled_weight_decay": None}

    def __reduce__(self) -> tuple[Any, ...]:
        # pickle cannot import a class that was made at run time, and torch's own __getstate__ drops
        # the attributes that other packages' classes add.
        own = {k: x for k, x in vars(self).items() if k != "step" and not k.startswith("_opt")}
        return _new_instance, (self._parent,), own | self.__getstate__()


@cache
def _centralized_class(cls: type[torch.optim.Optimizer]) -> type[_CentralizedInstance]:
    # It must be a class, since step hooks run before a closure has computed gradients, and none
    # runs after a step that fails. The optimizer's own class comes first: only then does the layout
    # of the object stay the same, whatever its bases are (ABC, Generic).
    class Centralized(cls, _CentralizedInstance):
        __doc__ = _CentralizedInstance.__doc__
        step = CentralizedOptimizer.step
        __reduce__ = _CentralizedInstance.__reduce__

    Centralized.__name__ = Centralized.__qualname__ = f"Centralized{cls.__name__}"
    return Centralized


def _new_instance(cls: type[torch.optim.Optimizer]) -> _CentralizedInstance:
    return object.__new__(_centralized_class(cls))


def centralize_optimizer(
    optimizer: torch.optim.Optimizer,
    *,
    use_gc: bool | float = True,
    gc_conv_only: bool | float = False,
    gc_loc: bool | float = False,
    decoupled_weight_decay: bool | None = None,
) -> torch.optim.Optimizer:
    """Adds gradient centralization to an existing optimizer of any class.

    The optimizer stays the same object, with its state, groups and hooks; it becomes an instance of
    a subclass of its class and :class:`CentralizedOptimizer`. Learning-rate schedulers may be made
    before or after.

    Args:
        optimizer (torch.optim.Optimizer): one whose ``step`` needs no closure.
        use_gc (bool or float): centralize (default: True)
        gc_conv_only (bool or float): leave tensors of up to three dimensions alone
            (default: False)
        gc_loc (bool or float): centralize the gradient, with the group's ``weight_decay`` if that
            is L2 decay, instead of the update, which is the whole change of the weights (default:
            False)
        decoupled_weight_decay (bool, optional): whether the optimizer's ``weight_decay`` acts on
            the weights, not through the gradient; only needed with ``gc_loc`` for classes that are
            not torch's (default: None, known for torch's)

    A parameter group that already has one of these keys keeps its value.

    Returns:
        ``optimizer`` itself.

    Raises:
        TypeError: not a ``torch.optim.Optimizer``, or already centralized.
        ValueError: an option is out of range, or the optimizer cannot be centralized.

    Source: Yong et al., *Gradient Centralization*, ECCV 2020,
    https://arxiv.org/abs/2004.01461.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer = centralize_optimizer(torch.optim.Adagrad([weight], lr=0.5))
        >>> (weight * torch.tensor([[-1.0, 3.0]])).sum().backward()
        >>> optimizer.step()
        >>> weight.tolist()
        [[1.5, 0.5]]
    """
    added = given(locals())
    del added["optimizer"]
    cls = type(optimizer)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, not {cls.__name__}")
    if isinstance(optimizer, CentralizedOptimizer):
        raise TypeError(f"{cls.__name__} already centralizes: set its use_gc")
    if not is_initialized(optimizer):
        raise ValueError(
            f"{cls.__name__} wraps another optimizer: centralize that one, then wrap it"
        )
    check_closure(cls)
    if decoupled_weight_decay is None:
        added["decoupled_weight_decay"] = decay_is_decoupled(cls)
    optimizer.__class__ = _centralized_class(cls)
    try:
        for group in optimizer.param_groups:
            optimizer.check_group({**added, **group})
        wrap_step(optimizer)
    except Exception:
        optimizer.__class__ = cls
        raise
    for options in (optimizer.defaults, *optimizer.param_groups):
        options.update({**added, **options})
    return optimizer
