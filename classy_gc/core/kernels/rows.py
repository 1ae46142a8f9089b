"""The C kernel ``rows.c``, called with addresses."""

from __future__ import annotations

import ctypes
import logging
from array import array
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classy_gc.core._torch import PLAIN
from classy_gc.core.centralization import ineligible_reason, local_rows
from classy_gc.core.kernels.update import Update
from classy_gc.core.memory import is_dense, laid_out_as

# As rows.c has them.
_STATES = 3
_TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_FAMILIES = {"sgd": 0, "adam": 1, "rmsprop": 2}
_FLAGS = {"momentum": 1, "nesterov": 2, "amsgrad": 4, "centered": 32, "before": 64, "after": 128}
_DOUBLES = "lr beta1 beta2 momentum dampening eps_outside eps_inside l2 decoupled sign buffer_gain"
_INTEGERS = "family type flags radam waits cached"


class _Options(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_double) for name in _DOUBLES.split()),
        *((name, ctypes.c_int64) for name in _INTEGERS.split()),
    )


@cache
def missing() -> str | None:
    """Why there is no kernel to call, or None if there is; a line of the log says so once."""
    try:
        _library()
    except (OSError, AttributeError) as error:
        reason = f"the C kernels did not compile when classy_gc was installed ({error})"
        logging.info(f"classy_gc: {reason}; GC goes around torch's own steps, which is slower")
        return reason
    return None


@cache
def _library() -> Any:
    library = ctypes.CDLL(str(next(Path(__file__).parent.glob("_rows.*"), "_rows")))
    library.classy_gc_step  # noqa: B018
    return library


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


def row_lengths(params: list[Tensor], use_gc: Any, gc_conv_only: Any) -> list[int] | None:
    """How many elements the rows of parameters have, 0 where GC leaves one alone.

    None if one of them is not on the CPU, not of a real floating-point type, lies in memory such
    that its rows are no blocks of it, or has a gradient of another type; or if two share memory.
    """
    grads = [p.grad for p in params]
    if not {*map(type, params), *map(type, grads)} <= set(PLAIN):
        params, grads = list(map(local_rows, params)), list(map(local_rows, grads))
        if not {*map(type, params), *map(type, grads)} <= set(PLAIN):
            return None
    strided = torch.strided
    for p, g in zip(params, grads, strict=True):
        if not (p.is_cpu and p.dtype in _TYPES and g.dtype is p.dtype and g.layout is strided):
            return None
    use_gc, gc_conv_only = bool(use_gc), bool(gc_conv_only)
    lengths = [_row_length(p.shape, p.stride(), use_gc, gc_conv_only) for p in params]
    addresses = [p.data_ptr() for p in params if p.numel()]
    return None if None in lengths or len(set(addresses)) < len(addresses) else lengths


def step(update: Update, lengths: list[int]) -> None:
    """One step of a group, with all numbers and flags; ``lengths`` are of :func:`row_lengths`.

    Raises:
        ValueError: the state of a parameter has another shape or type than the parameter.
        MemoryError: there is none for a row of each thread.
    """
    lists = [update.params, update.grads, *update.state]
    if not set(map(type, update.params)) <= set(PLAIN):
        lists = [list(map(local_rows, xs)) for xs in lists]
    params = lists[0]
    strides = [p.stride() for p in params]
    for i, xs in enumerate(lists[1:], 1):
        for p, x in zip(params, xs, strict=True) if i > 1 and xs else ():
            if x.shape != p.shape or x.dtype is not p.dtype:
                raise ValueError(
                    f"a parameter is {p.dtype} of shape {list(p.shape)}, and its state {x.dtype} "
                    f"of shape {list(x.shape)}"
                )
        if xs and [x.stride() for x in xs] != strides:
            lists[i] = [laid_out_as(p, x) for p, x in zip(params, xs, strict=True)]
            for x, laid_out in zip(xs, lists[i], strict=True) if i > 1 else ():
                x.data = laid_out
    # A step count may have come from another device, or be a float64 where that is the default.
    steps = [local_rows(t).to("cpu", torch.float32) for t in update.steps]
    columns = [[x.data_ptr() for x in xs] for xs in lists]
    columns += [[]] * (2 + _STATES - len(lists))
    columns += [[t.data_ptr() for t in steps], [p.numel() for p in params], lengths, update.new]
    columns = [xs or [0] * len(params) for xs in columns]
    types = [p.dtype for p in params]
    for dtype in set(types):
        chosen = [y is dtype for y in types]
        _call(update, dtype, [list(compress(xs, chosen)) for xs in columns])
    for t, advanced in zip(update.steps, steps, strict=True):
        if advanced is not t:
            t.copy_(advanced)


def _call(update: Update, dtype: torch.dtype, columns: list[list[int]]) -> None:
    options = _Options(
        family=_FAMILIES[update.family],
        type=_TYPES[dtype],
        flags=sum(_FLAGS[flag] for flag in update.flags),
        **update.numbers,
    )
    table = array("q", [x for xs in columns for x in xs])
    address, count = table.buffer_info()[0], len(columns[0])
    shapes = address + 8 * count * (len(columns) - 3)
    arguments = map(ctypes.c_void_p, (address, shapes))
    threads = torch.get_num_threads()
    if _library().classy_gc_step(*arguments, ctypes.c_int64(count), ctypes.byref(options), threads):
        raise MemoryError(f"no memory for a row of each of {threads} threads")
