"""The C kernel ``rows.c``, called with addresses."""

import ctypes
import logging
from collections.abc import Callable, Sequence
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
    *("lr", "beta1", "beta2", "momentum", "dampening", "v_gain", "eps_outside", "eps_inside"),
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
    groups = (ctypes.c_char_p, ctypes.c_int64, ctypes.c_int)
    kernels.classy_gc_memory.argtypes, kernels.classy_gc_memory.restype = groups, ctypes.c_int64
    kernels.classy_gc_step.argtypes = (*groups, ctypes.c_void_p)
    for function in (kernels.classy_gc_row_means, kernels.classy_gc_set_row_means):
        function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int), None
    return kernels


def usable(tensors: list[Tensor]) -> bool:
    """Whether the kernel can reach the tensors and knows their types."""
    return all(x.is_cpu and x.dtype in TYPES for x in tensors)


def launch(steps: Sequence[tuple[Update, Table]], first: Callable[[], None] | None = None) -> None:
    """Takes one step of parameter groups.

    Args:
        steps: the update of each group, with all numbers and flags, and its table.
        first: called when the memory of the step is there, before anything changes.

    Raises:
        MemoryError: no memory to work in; nothing has changed.
    """
    options, counts = [], []
    try:
        for update, table in steps:
            if update.steps and 0 in table["step"]:  # they are not float32 on the CPU
                copies = [t.to("cpu", torch.float32, copy=True) for t in local(update.steps)]
                counts.append((update, table, copies))
                table["step"] = [t.data_ptr() for t in copies]
            numbers = (_ABSENT | update.numbers).values()
            family, flags = _FAMILIES[update.family], sum([_FLAGS[flag] for flag in update.flags])
            options.append(_OPTIONS.pack(*numbers, family, flags, table.count, table.address))
        groups = b"".join(options), len(steps), torch.get_num_threads()
        memory = None
        if first is not None:
            memory = ctypes.create_string_buffer(library().classy_gc_memory(*groups))
            first()
        if library().classy_gc_step(*groups, memory):
            raise MemoryError("no memory for the rows that a step works on")
    finally:
        for _, table, _ in counts:
            table["step"] = [0] * table.count
    for update, _, _ in counts:
        for t in local(update.steps):
            t.add_(1)
