"""Every private name of torch that the core uses; ``tests/core/test_torch.py`` checks each one.

Nothing else in the core reads a torch name that begins with an underscore.
"""

import weakref
from collections.abc import Callable, Sequence
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch._C import _set_grad_enabled
from torch._C._dynamo.guards import TensorGuards
from torch._compile import _disable_dynamo
from torch.nn.parameter import UninitializedParameter
from torch.optim.optimizer import Optimizer, _device_dtype_check_for_fused

#: torch's own types of parameters and gradients, without subclasses that dispatch, such as DTensor
OWN_TYPES = frozenset({Tensor, torch.nn.Parameter})


#: torch's multi-tensor operators, documented as "Foreach Operations"
_FOREACH = ("add", "add_", "addcdiv_", "addcmul", "addcmul_", "lerp_", "mul_", "neg", "sqrt_")
foreach = SimpleNamespace(**{x: getattr(torch, f"_foreach_{x}") for x in _FOREACH})


#: as ``torch.set_grad_enabled``, in a fifth of its time
set_grad_enabled = _set_grad_enabled


#: as ``torch.compiler.disable``, which imports the compiler when it decorates a function: 2 s
uncompiled = _disable_dynamo


def sameness(tensors: Sequence[Tensor]) -> Callable[..., bool]:
    """Returns a quick test of whether tensors differ from these only in values and addresses.

    The test is torch.compile's own guard, and compares class, type, device, layout, shape, strides
    and laziness. It takes as many tensors; if one comes twice, the answer is no.
    """
    return TensorGuards(
        *tensors,
        dynamic_dims_sizes=[list(x.shape) for x in tensors],
        dynamic_dims_strides=[list(x.stride()) for x in tensors],
    ).check


def materialized(x: Tensor) -> Tensor:
    """``x``, or a copy if its memory does not hold its values: lazy negatives and zeros."""
    if torch._is_zerotensor(x):
        return torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    return x.resolve_neg()


class ScaledGradientsRefused:
    """Makes GradScaler unscale gradients before the step, even if torch's class says otherwise.

    torch's fused optimizers set this flag in their constructors.
    """

    _step_supports_amp_scaling = property(lambda self: False, lambda self, value: None)


def check_fused(p: Tensor) -> None:
    """Refuses a parameter that no fused kernel can step, with torch's own error.

    Like torch, it accepts one without shape or memory: the error then comes at the first step.
    """
    if not (is_uninitialized(p) or p.is_meta):
        _device_dtype_check_for_fused(p)


def unhooked(step: Callable[..., Any]) -> Callable[..., Any]:
    """``step`` of a class, without the hooks that torch wraps around it at the first use."""
    return step.__wrapped__ if getattr(step, "hooked", False) else step


def wrap_step(optimizer: Optimizer) -> None:
    """Wraps the step of an optimizer whose class has just changed, so that hooks and profiler run.

    A learning-rate scheduler made earlier has put the step of the old class into the instance, to
    see whether ``step`` is called; the new step replaces it.
    """
    optimizer._patch_step_function()
    old = vars(optimizer).get("step")
    if getattr(old, "_wrapped_by_lr_sched", False):
        ref, step = weakref.ref(optimizer), type(optimizer).step

        @partial(uncompiled, recursive=False)  # torch 2.9 cannot compile the assignment
        @wraps(step)
        def counted(*args: Any, **kwargs: Any) -> Any:
            optimizer = ref()
            optimizer._opt_called = True
            return step(optimizer, *args, **kwargs)

        counted._wrapped_by_lr_sched = True
        optimizer.step = counted


def is_initialized(optimizer: Optimizer) -> bool:
    """Whether ``Optimizer.__init__`` made this object, unlike a mere wrapper."""
    own = {"param_groups", "state", "defaults", "_optimizer_step_pre_hooks"}
    return own <= vars(optimizer).keys()


def is_flattened(p: Tensor) -> bool:
    """Whether FSDP1 has flattened a weight and so lost its rows."""
    return "FlatParameter" in type(p).__name__ or getattr(p, "_fsdp_flattened", False)


def local_tensor(x: Tensor) -> Tensor:
    """The local part of a DTensor, to be changed in place; any other tensor unchanged."""
    return x if type(x) in OWN_TYPES else getattr(x, "_local_tensor", x)


def is_uninitialized(p: Tensor) -> bool:
    """Whether ``p`` belongs to a lazy module without input so far, and so has no shape."""
    return isinstance(p, UninitializedParameter)
