"""The C kernel ``rows.c``, called with addresses."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from struct import Struct
from typing import Any

import torch
from torch import Tensor

from classy_gc.core.kernels.plan import local
from classy_gc.core.kernels.table import TYPES, Table
from classy_gc.core.kernels.update import Update

# The same numbers as in rows.c.
_FAMILIES = {"sgd": 0, "adam": 1, "rmsprop": 2}
_FLAGS = {"momentum": 1, "nesterov": 2, "amsgrad": 4, "centered": 32, "before": 64, "after": 128}
_NUMBERS = (
    *("lr", "beta1", "beta2", "momentum", "dampening", "eps_outside", "eps_inside"),
    *("l2", "decoupled", "sign", "buffer_gain"),
)
_ABSENT = {**dict.fromkeys(_NUMBERS, 0.0), "radam": False, "waits": False}
_OPTIONS = Struct(f"{len(_NUMBERS)}d6q")


@cache
def missing() -> str | None:
    """Why there is no kernel to call, or None if there is one; the reason is logged once."""
    try:
        library()
    except (OSError, AttributeError) as error:
        reason = f"the C kernels did not compile when classy_gc was installed ({error})"
        logging.info(f"classy_gc: {reason}; GC runs around torch's own steps, which is slower")
        return reason
    return None


@cache
def library() -> Any:
    """The compiled ``rows.c``; raises OSError or AttributeError if it was not compiled."""
    kernels = ctypes.CDLL(str(next(Path(__file__).parent.glob("_rows.*"), "_rows")))
    kernels.classy_gc_step.argtypes = (ctypes.c_char_p, ctypes.c_int64, ctypes.c_int)
    for function in (kernels.classy_gc_row_means, kernels.classy_gc_set_row_means):
        function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int), None
    return kernels


def usable(tensors: list[Tensor]) -> bool:
    """Whether the kernel can reach the tensors and knows their types."""
    return all(x.is_cpu and x.dtype in TYPES for x in tensors)


def launch(steps: Sequence[tuple[Update, Table]]) -> None:
    """Takes one step of parameter groups.

    Args:
        steps: the update of each group, with all numbers and flags, and its table.

    Raises:
        MemoryError: no scratch memory; nothing has changed.
    """
    options, advanced = [], []
    for update, table in steps:
        if update.steps and 0 in table["step"]:  # they are not float32 on the CPU
            copies = [t.to("cpu", torch.float32, copy=True) for t in local(update.steps)]
            table["step"] = [t.data_ptr() for t in copies]
            advanced.append((update, table, copies))
        numbers = (_ABSENT | update.numbers).values()
        family, flags = _FAMILIES[update.family], sum([_FLAGS[flag] for flag in update.flags])
        options.append(_OPTIONS.pack(*numbers, family, flags, table.count, table.address))
    failed = library().classy_gc_step(b"".join(options), len(steps), torch.get_num_threads())
    for update, table, _ in advanced:
        table["step"] = [0] * table.count
        if not failed:
            for t in local(update.steps):
                t.add_(1)
    if failed:
        raise MemoryError("no memory for the rows that a step works on")
