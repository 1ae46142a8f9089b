"""GC and the update in one pass over memory, where there is a kernel for it.

Reading a gradient a second time is what GC costs; a row that has just been summed is still in
the cache when it is updated. :mod:`classy_gc.core.kernels.rows` does so on the CPU. Where there
is no kernel, GC goes around torch's own step (:mod:`classy_gc.core.around_update`), with the same
numbers to rounding.

The environment variable ``CLASSY_GC_KERNELS`` is unset for the C kernel on the CPU, ``triton`` for
:mod:`classy_gc.core.kernels.triton_rows` on CUDA besides, or ``0`` for no kernel.

A kernel is a module of three functions: ``missing()`` says why it cannot be called, or None;
``usable(tensors)``, whether it reaches these tensors and knows their types; and
``launch(update, table)`` steps parameters of one type, whose table has of each of them, one column
after the other: the addresses of parameter, gradient and three tensors of state; a column for the
kernel's own use; the number of elements; the length of a row, or 0 where GC leaves the parameter
alone; and whether its momentum starts with this step.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from classy_gc.core._torch import OWN_TYPES
from classy_gc.core.centralization import ineligible_reason, local_rows
from classy_gc.core.memory import is_dense, laid_out_as

if TYPE_CHECKING:
    from classy_gc.core.centralized_optimizer import CentralizedOptimizer

_STATES = 3


class Update(NamedTuple):
    """The step of parameters of one group and type, beyond what every optimizer has.

    Args:
        family: ``"sgd"``, ``"adam"`` or ``"rmsprop"``.
        params: those that have a gradient.
        state: up to three lists of tensors that go with the parameters, or are empty.
        steps: step counts, which the kernel advances; may be empty.
        flags: those of the family that are on.
        numbers: options of the family by the names that ``rows.c`` has for them.
        new: whether the momentum of a parameter starts with this step; may be empty.
    """

    family: str
    params: list[Tensor]
    state: Sequence[list[Tensor]]
    steps: list[Tensor]
    flags: set[str]
    numbers: dict[str, Any]
    new: Sequence[bool] = ()


def state_of(
    optimizer: torch.optim.Optimizer, group: dict[str, Any], params: list[Tensor], **initial: float
) -> list[list[Tensor]]:
    """The state of parameters by the names in ``initial``, a list each, made where missing.

    Unlike torch's it may be made at any step: a schedule may turn momentum on later.

    Args:
        optimizer: with the state.
        group: which the parameters are of.
        params: those that have a gradient.
        **initial: name: what a missing tensor of the parameter's shape is filled with; ``step`` is
            a scalar.
    """
    states = [optimizer.state[p] for p in params]
    lists = [[state.get(name) for state in states] for name in initial]
    for (name, value), xs in zip(initial.items(), lists, strict=True):
        for i, p in enumerate(params) if type(None) in {*map(type, xs)} else ():
            if xs[i] is not None:
                continue
            if name == "step":
                fused = group.get("fused")
                dtype = torch.float32 if fused else torch.get_default_dtype()
                xs[i] = torch.full(
                    (),
                    value,
                    dtype=torch.promote_types(dtype, torch.float32),
                    device=p.device if fused or group.get("capturable") else "cpu",
                )
            else:
                xs[i] = torch.full_like(p, value)
            states[i][name] = xs[i]
    return lists


def pick(optimizer: CentralizedOptimizer, group: dict[str, Any]) -> tuple[Any, str | None]:
    """The kernel that steps a group, as far as its options tell.

    Args:
        optimizer: whose class the kernels may know.
        group: one of its parameter groups.

    Returns:
        The kernel's module and None, or None and why there is none.

    Raises:
        ValueError: ``CLASSY_GC_KERNELS`` is none of its values.
    """
    choice = os.environ.get("CLASSY_GC_KERNELS", "")
    if choice not in ("", "0", "triton"):
        raise ValueError(f"Invalid CLASSY_GC_KERNELS: {choice!r}, must be 0, triton, or unset")
    if choice == "0":
        return None, "CLASSY_GC_KERNELS is 0"
    if optimizer.kernel_update is None:
        return None, f"there is no kernel for {type(optimizer).__name__}"
    if not group["use_gc"] and not (group["fused"] and optimizer.kernel_without_gc):
        return None, "use_gc is off"
    if group["fused"] is None and group["foreach"] is not None:
        return None, "foreach is set"
    if group["fused"] is not None and not group["fused"]:
        return None, "fused is off"
    for name in ("differentiable", "capturable"):
        if group.get(name):
            return None, f"{name} is on"
    device = group["params"][0].device.type if group["params"] else "cpu"
    name = "rows"
    if choice == "triton" and (device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"):
        name = "triton_rows"
    elif device != "cpu":
        return None, f"there is no kernel for {device}"
    kernel = import_module(f"classy_gc.core.kernels.{name}")
    reason = kernel.missing()
    return (None if reason else kernel), reason


class Rows(NamedTuple):
    """Parameters as a kernel sees them, found anew only where they change.

    It holds no tensor, so that what is no longer trained is freed.

    Args:
        key: what they were found by.
        columns: of each its address, number of elements, and length of a row, 0 where GC leaves it
            alone.
        state: the addresses of its tensors of state that the last step had.
    """

    key: tuple[Any, ...]
    columns: tuple[array[int], array[int], array[int]]
    state: list[list[int]]


class Found(NamedTuple):
    """Parameters of one type that a kernel can step, with their gradients as it reads them."""

    kernel: Any
    params: list[Tensor]
    grads: list[Tensor]
    rows: Rows


def find(optimizer: CentralizedOptimizer, group: dict[str, Any]) -> list[Found] | None:
    """What a kernel needs to step a group, a part for each type; None if it cannot step them all.

    Parameters and gradients must be of the same type, dense and local, with rows that are blocks
    of memory; no two parameters may share memory.

    Args:
        optimizer: which keeps the rows for its next step.
        group: one of its parameter groups.

    Raises:
        ValueError: a gradient has another shape than its parameter.
    """
    kernel, _ = pick(optimizer, group)
    if kernel is None:
        return None
    types: dict[torch.dtype, list[Tensor]] = {}
    for p in group["params"]:
        if p.grad is not None:
            types.setdefault(p.dtype, []).append(p)
    found, known = [], vars(optimizer).setdefault("_rows", {})
    for dtype, params in types.items():
        parts, grads = local(params), local([p.grad for p in params])
        if not {*map(type, parts), *map(type, grads)} <= {*OWN_TYPES}:
            return None
        if {(g.dtype, g.layout) for g in grads} != {(dtype, torch.strided)}:
            return None
        addresses, strides = [p.data_ptr() for p in parts], [p.stride() for p in parts]
        switches = bool(group["use_gc"]), bool(group["gc_conv_only"])
        key = (kernel, switches, addresses, strides, [p.shape for p in parts])
        rows = known.pop((id(group), dtype), None)
        changed = rows is None or rows.key != key
        if changed:
            sizes = [p.numel() for p in parts]
            lengths = [_row_length(p.shape, p.stride(), *switches) for p in parts]
            distinct = {address for address, size in zip(addresses, sizes, strict=True) if size}
            if None in lengths or len(distinct) < sum(map(bool, sizes)):
                return None
            if not kernel.usable(parts):
                return None
            columns = tuple(array("q", xs) for xs in (addresses, sizes, lengths))
            rows = Rows(key, columns, [])
        if changed or [g.stride() for g in grads] != strides:
            grads = list(map(laid_out_as, parts, grads))
        known[id(group), dtype] = rows
        found.append(Found(kernel, params, grads, rows))
    return found


@lru_cache(maxsize=4096)
def _row_length(
    shape: Sequence[int], stride: Sequence[int], use_gc: bool, gc_conv_only: bool
) -> int | None:
    # 0 for a tensor that GC leaves alone; None where elements or rows are no block of memory.
    if not is_dense(shape, stride):
        return None
    x = torch.empty(shape, device="meta")
    if ineligible_reason(x, use_gc=use_gc, gc_conv_only=gc_conv_only) is not None:
        return 0
    length = x.numel() // x.shape[0]
    return length if x.shape[0] == 1 or stride[0] == length else None


def local(xs: list[Tensor]) -> list[Tensor]:
    """Of DTensors the rows that this process holds, where it holds them whole."""
    return xs if {*map(type, xs)} <= {*OWN_TYPES} else [local_rows(x) for x in xs]


def step(optimizer: CentralizedOptimizer, group: dict[str, Any], found: Found) -> None:
    """One step of what :func:`find` found, a part of a group.

    Args:
        optimizer, group: as :func:`find` had them.
        found: a part of what it returned.

    Raises:
        ValueError: the state of a parameter has another shape, type or device than the parameter.
        MemoryError: there is none for a row of each thread.
    """
    # GradScaler's, where it leaves both to the step.
    scale, found_inf = (getattr(optimizer, name, None) for name in ("grad_scale", "found_inf"))
    sign = -1.0 if group["maximize"] else 1.0
    if scale is not None:
        sign = sign / scale.double()
    if found_inf is not None:
        sign = sign * (found_inf == 0)
        # With dampening the first step is another, and only those that are taken count.
        if (found_inf.is_cpu or group.get("dampening")) and not sign:
            return
    update = optimizer.kernel_update(group, found.params)
    decoupled = group.get("decoupled_weight_decay", optimizer.decoupled_weight_decay)
    wd = float(group["weight_decay"])
    decay = {"l2": 0.0, "decoupled": wd} if decoupled else {"l2": wd, "decoupled": 0.0}
    numbers = {"lr": float(group["lr"]), "sign": sign, **decay, **update.numbers}
    flags = {*update.flags, "before" if group.get("gc_loc", True) else "after"}

    params, *state = map(local, (found.params, *update.state))
    state_addresses = [[x.data_ptr() for x in xs] for xs in state]
    if state_addresses != found.rows.state:
        state_addresses = [list(map(_fitting, params, xs)) if xs else [] for xs in state]
        found.rows.state[:] = state_addresses
    addresses, sizes, lengths = found.rows.columns
    none = array("q", bytes(addresses.itemsize * len(addresses)))
    columns = [addresses, [g.data_ptr() for g in found.grads], *state_addresses]
    columns += [none] * (2 + _STATES - len(columns))
    table = array("q")
    for column in (*columns, none, sizes, lengths, update.new):
        table.extend(column or none)
    found.kernel.launch(update._replace(numbers=numbers, flags=flags), table)
    torch.autograd.graph.increment_version(found.params)


def _fitting(p: Tensor, x: Tensor) -> int:
    # The address of a tensor of the state of ``p``, laid out as that is.
    kinds = [f"{t.dtype} of shape {list(t.shape)} on {t.device}" for t in (p, x)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"a parameter is {kinds[0]}, and its state {kinds[1]}")
    x.data = laid_out_as(p, x)
    return x.data_ptr()
