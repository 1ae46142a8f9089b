"""Every private name of torch that the core relies on; ``tests/core/test_torch.py`` watches each.

Nothing else in the core reads a name of torch that begins with an underscore.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch._C._dynamo.guards import TensorGuards
from torch._compile import _disable_dynamo
from torch.nn.parameter import UninitializedParameter
from torch.optim.optimizer import Optimizer, _device_dtype_check_for_fused

#: torch's own types of parameter and gradient: no subclass that it dispatches on, as DTensor
OWN_TYPES = (Tensor, torch.nn.Parameter)


#: torch's multi-tensor operators, which its documentation has as "Foreach Operations"
_FOREACH = "add add_ addcdiv_ addcmul addcmul_ lerp_ mul_ neg sqrt_"
foreach = SimpleNamespace(**{x: getattr(torch, f"_foreach_{x}") for x in _FOREACH.split()})


#: ``torch.compiler.disable``, which imports the compiler when a function is decorated: 2 s
uncompiled = _disable_dynamo


def sameness(tensors: Sequence[Tensor]) -> Callable[..., bool]:
    """A quick test of whether tensors differ from these only in their values and addresses.

    It is torch.compile's own guard, and compares class, type, device, layout, shape, strides and
    laziness. As many tensors must be given; where one is given twice, the answer is no.
    """
    return TensorGuards(
        *tensors,
        dynamic_dims_sizes=[list(x.shape) for x in tensors],
        dynamic_dims_strides=[list(x.stride()) for x in tensors],
    ).check


def materialized(x: Tensor) -> Tensor:
    """``x``, or a copy where its memory does not hold its values: lazy negatives and zeros."""
    if torch._is_zerotensor(x):
        return torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    return x.resolve_neg()


class ScaledGradientsRefused:
    """GradScaler is to unscale gradients before the step, also where torch's class says it may not.

    torch's fused optimizers set this flag when they are made.
    """

    _step_supports_amp_scaling = property(lambda self: False, lambda self, value: None)


def check_fused(p: Tensor) -> None:
    """Refuses a parameter that no fused kernel can step, by torch's own error.

    As torch does, one without shape or memory is taken: the error comes with the first step.
    """
    if not (is_uninitialized(p) or p.is_meta):
        _device_dtype_check_for_fused(p)


def unhooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` of a class without the hooks that torch wraps it in when the class is first used."""
    return step.__wrapped__ if getattr(step, "hooked", False) else step


def wrap_step(optimizer: Optimizer) -> None:
    """Has the step of an optimizer whose class has just changed run hooks and be profiled.

    A learning-rate scheduler made before has put the step of the old class into the instance, to
    see whether ``step`` is called: the new one takes its place.
    """
    optimizer._patch_step_function()
    old = vars(optimizer).get("step")
    if getattr(old, "_wrapped_by_lr_sched", False):
        del optimizer.step
        ref, step = weakref.ref(optimizer), type(optimizer).step

        @wraps(step)
        def counted(*args: Any, **kwargs: Any) -> Any:
            optimizer = ref()
            optimizer._opt_called = True
            return step(optimizer, *args, **kwargs)

        counted._wrapped_by_lr_sched = True
        optimizer.step = counted


def is_initialized(optimizer: Optimizer) -> bool:
    """Whether ``Optimizer.__init__`` made this object, not a wrapper that only looks like one."""
    return {"param_groups", "state", "defaults", "_optimizer_step_pre_hooks"} <= vars(
        optimizer
    ).keys()


def is_flattened(p: Tensor) -> bool:
    """Whether FSDP1 has flattened the rows of a weight away."""
    return "FlatParameter" in type(p).__name__ or getattr(p, "_fsdp_flattened", False)


def local_tensor(x: Tensor) -> Tensor:
    """What this process holds of a DTensor, to be changed in place; any other tensor as it is."""
    return x if type(x) in OWN_TYPES else getattr(x, "_local_tensor", x)


def is_uninitialized(p: Tensor) -> bool:
    """Whether ``p`` is of a lazy module that has seen no input yet, and has no shape."""
    return isinstance(p, UninitializedParameter)
