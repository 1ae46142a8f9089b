"""The C kernel ``rows.c``, called with addresses."""

from __future__ import annotations

import ctypes
import logging
from array import array
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classy_gc.core.kernels import Update, local

# As rows.c has them.
_TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_FAMILIES = {"sgd": 0, "adam": 1, "rmsprop": 2}
_FLAGS = {"momentum": 1, "nesterov": 2, "amsgrad": 4, "centered": 32, "before": 64, "after": 128}
_DOUBLES = "lr beta1 beta2 momentum dampening eps_outside eps_inside l2 decoupled sign buffer_gain"
_INTEGERS = "family type flags radam waits cached"
_STEP, _SIZE = 5, 6  # columns of the table


class _Options(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_double) for name in _DOUBLES.split()),
        *((name, ctypes.c_int64) for name in _INTEGERS.split()),
    )


@cache
def missing() -> str | None:
    """Why there is no kernel to call, or None if there is; a line of the log says so once."""
    try:
        library()
    except (OSError, AttributeError) as error:
        reason = f"the C kernels did not compile when classy_gc was installed ({error})"
        logging.info(f"classy_gc: {reason}; GC goes around torch's own steps, which is slower")
        return reason
    return None


@cache
def library() -> Any:
    """What was compiled of ``rows.c``; an OSError or AttributeError where nothing was."""
    found = ctypes.CDLL(str(next(Path(__file__).parent.glob("_rows.*"), "_rows")))
    found.classy_gc_step  # noqa: B018
    return found


def usable(tensors: list[Tensor]) -> bool:
    """Whether the kernel can reach tensors and knows their types."""
    return all(x.is_cpu and x.dtype in _TYPES for x in tensors)


def launch(update: Update, table: array[int]) -> None:
    """One step of parameters of one type.

    Args:
        update: what is to be done, its numbers and flags complete.
        table: of :mod:`classy_gc.core.kernels`.

    Raises:
        MemoryError: there is none for a row of each thread.
    """
    count, threads = len(update.params), torch.get_num_threads()
    # A step count may have come from another device, or be a float64.
    own = local(update.steps)
    steps = own
    if not {(t.dtype, t.is_cpu) for t in own} <= {(torch.float32, True)}:
        steps = [t.to("cpu", torch.float32) for t in own]
    if steps:
        table[_STEP * count : _SIZE * count] = array("q", [t.data_ptr() for t in steps])
    options = _Options(
        family=_FAMILIES[update.family],
        type=_TYPES[update.params[0].dtype],
        flags=sum(_FLAGS[flag] for flag in update.flags),
        **update.numbers,
    )
    address = table.buffer_info()[0]
    failed = library().classy_gc_step(
        ctypes.c_void_p(address),
        ctypes.c_void_p(address + table.itemsize * count * _SIZE),
        ctypes.c_int64(count),
        ctypes.byref(options),
        threads,
    )
    if failed:
        raise MemoryError(f"no memory for a row of each of {threads} threads")
    for t, advanced in zip(own, steps, strict=True) if steps is not own else ():
        t.copy_(advanced)
