"""The C kernel ``rows.c``, called with addresses."""

from __future__ import annotations

import ctypes
import logging
from array import array
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classy_gc.core._torch import PLAIN
from classy_gc.core.centralization import ineligible_reason, local_rows
from classy_gc.core.kernels.update import Update
from classy_gc.core.memory import is_dense, laid_out_as

_PLAIN = set(PLAIN)
_STRIDED = torch.strided

# As rows.c has them.
_STATES = 3
_TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_FAMILIES = {"sgd": 0, "adam": 1, "rmsprop": 2}
_FLAGS = {"momentum": 1, "nesterov": 2, "amsgrad": 4, "centered": 32, "before": 64, "after": 128}
_NUMBERS = (
    "lr beta1 beta2 momentum dampening eps_outside eps_inside l2 decoupled sign buffer_gain"
).split()
_SWITCHES = ("radam", "waits", "cached")


class _Options(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_double) for name in _NUMBERS),
        *((name, ctypes.c_int64) for name in ("family", "type", "flags", *_SWITCHES)),
    )


@cache
def _library() -> Any:
    """The compiled kernel, or None, which one line of the log explains."""
    files = sorted(Path(__file__).parent.glob("_rows.*"))
    try:
        library = ctypes.CDLL(str(files[0]))
        library.classy_gc_step  # noqa: B018
    except (IndexError, OSError, AttributeError) as error:
        reason = error if files else "no C compiler was found when the package was installed"
        logging.info(
            f"classy_gc: the one-pass kernels are missing ({reason}); "
            "GC goes around torch's own steps, which is slower"
        )
        return None
    return library


def missing() -> str | None:
    """Why the kernel cannot be called, or None if it can."""
    return None if _library() else "the kernels were not compiled when the package was installed"


@lru_cache(maxsize=4096)
def _row_length(
    shape: Sequence[int], stride: Sequence[int], use_gc: bool, gc_conv_only: bool
) -> int | None:
    """0 for a tensor that GC leaves alone; None where elements or rows are no block of memory."""
    if not is_dense(shape, stride):
        return None
    x = torch.empty(shape, device="meta")
    if ineligible_reason(x, use_gc=use_gc, gc_conv_only=gc_conv_only) is not None:
        return 0
    length = x.numel() // x.shape[0]
    return length if x.shape[0] == 1 or stride[0] == length else None


def row_lengths(params: list[Tensor], use_gc: Any, gc_conv_only: Any) -> list[int] | None:
    """How many elements the rows of parameters have, where the kernel can step them.

    Args:
        params: with gradients.
        use_gc, gc_conv_only: of their group.

    Returns:
        The length of a row, 0 where GC leaves the parameter alone; or None if one of them is not
        on the CPU, not of a real floating-point type, lies in memory such that its rows are no
        blocks of it, or has a gradient of another type; or if two share memory.
    """
    grads = [p.grad for p in params]
    if not set(map(type, params)) <= _PLAIN:
        params, grads = list(map(local_rows, params)), list(map(local_rows, grads))
    if not {*map(type, params), *map(type, grads)} <= _PLAIN:
        return None
    for p, g in zip(params, grads, strict=True):
        if not (p.is_cpu and p.dtype in _TYPES and g.dtype is p.dtype and g.layout is _STRIDED):
            return None
    use_gc, gc_conv_only = bool(use_gc), bool(gc_conv_only)
    lengths = [_row_length(p.shape, p.stride(), use_gc, gc_conv_only) for p in params]
    addresses = [p.data_ptr() for p in params if p.numel()]
    if None in lengths or len(set(addresses)) < len(addresses):
        return None
    return lengths


def step(update: Update, lengths: list[int]) -> None:
    """One step of a group.

    Args:
        update: with all numbers and flags.
        lengths: as :func:`row_lengths` gives.

    Raises:
        ValueError: the state of a parameter has another shape or type than the parameter.
        MemoryError: there is none for a row of each thread.
    """
    lists = [update.params, update.grads, *update.state]
    if not set(map(type, update.params)) <= _PLAIN:
        lists = [list(map(local_rows, xs)) for xs in lists]
    params, _, *state = lists
    shapes, strides = [p.shape for p in params], [p.stride() for p in params]
    types = [p.dtype for p in params]
    for xs in state:
        if xs and ([x.shape for x in xs] != shapes or [x.dtype for x in xs] != types):
            _refuse_state(params, xs)
    for i, xs in enumerate(lists):
        if xs and [x.stride() for x in xs] != strides:
            lists[i] = [laid_out_as(p, x) for p, x in zip(params, xs, strict=True)]
            for x, laid_out in zip(xs, lists[i], strict=True) if i > 1 else ():
                x.data = laid_out

    addresses = [[x.data_ptr() for x in xs] for xs in lists]
    for _ in range(_STATES - len(state)):
        addresses.append([])
    addresses.append([t.data_ptr() for t in update.steps])
    sizes = [p.numel() for p in params]
    columns = [xs or [0] * len(params) for xs in (*addresses, sizes, lengths, update.new)]
    distinct = set(types)
    for dtype in distinct:
        chosen = columns
        if len(distinct) > 1:
            indices = [i for i, x in enumerate(types) if x is dtype]
            chosen = [[xs[i] for i in indices] for xs in columns]
        _call(update, dtype, chosen)


def _call(update: Update, dtype: torch.dtype, columns: list[list[int]]) -> None:
    options = _Options(
        family=_FAMILIES[update.family],
        type=_TYPES[dtype],
        flags=sum(_FLAGS[flag] for flag in update.flags),
        **update.numbers,
    )
    table = array("q", [x for xs in columns for x in xs])
    address, count = table.buffer_info()[0], len(columns[0])
    failed = _library().classy_gc_step(
        ctypes.c_void_p(address),
        ctypes.c_void_p(address + 8 * count * (len(columns) - 3)),
        ctypes.c_int64(count),
        ctypes.byref(options),
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError(f"no memory for {torch.get_num_threads()} rows of scratch")


def _refuse_state(params: list[Tensor], xs: list[Tensor]) -> None:
    for i, (p, x) in enumerate(zip(params, xs, strict=True)):
        if (x.shape, x.dtype) != (p.shape, p.dtype):
            raise ValueError(
                f"parameter {i} of those with a gradient is {p.dtype} of shape {list(p.shape)}, "
                f"its state {x.dtype} of shape {list(x.shape)}"
            )
