"""The C kernel ``rows.c``, called with addresses."""

import ctypes
import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from itertools import compress
from pathlib import Path
from struct import Struct
from typing import Any

import torch
from torch import Tensor

from classy_gc.core import centralization
from classy_gc.core.kernels.plan import local, row_length
from classy_gc.core.kernels.table import TYPES, Table
from classy_gc.core.kernels.update import Update
from classy_gc.core.memory import readable

# The same numbers as in rows.c.
_FAMILIES = {"sgd": 0, "adam": 1, "rmsprop": 2}
_FLAGS = {"momentum": 1, "nesterov": 2, "amsgrad": 4, "centered": 32, "before": 64, "after": 128}
_NUMBERS = ("lr", "beta1", "beta2", "momentum", "dampening", "v_gain", "eps_outside")
_NUMBERS += ("eps_inside", "l2", "decoupled", "sign", "buffer_gain")
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
    kernels.classy_gc_means.argtypes = (ctypes.c_void_p, *groups[1:], ctypes.c_int)
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
    options, counts, copies = [], [], []
    for update, table in steps:
        if update.steps and not table.own_steps:
            counts += local(update.steps)
            own = [t.to("cpu", torch.float32, copy=True) for t in local(update.steps)]
            table["step"] = [t.data_ptr() for t in own]
            copies += own
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
    for t in counts:
        t.add_(1)


def row_means(tensors: Sequence[Tensor]) -> list[Tensor]:
    """``μ(x)`` of each tensor that GC can act on, shape ``[d0]``; by torch where ``rows.c`` cannot.

    Example:
        >>> row_means([torch.tensor([[1.0, 3.0], [5.0, 5.0]])])[0].tolist()
        [2.0, 5.0]
    """
    lengths = _row_lengths(tensors)
    means = []
    for x, n in zip(tensors, lengths, strict=True):
        if n:  # on the CPU, whatever torch's default device is
            means.append(torch.empty(len(x), dtype=torch.float64, device="cpu"))
        else:
            means.append(centralization.row_means(x).flatten())
    _means(tensors, lengths, means, False)
    return means


def set_row_means_(tensors: Sequence[Tensor], means: Sequence[Tensor | None]) -> None:
    """Shifts the rows of each tensor, in place, so that they have these means; None is zero.

    A row whose mean is to be infinite stays as it is: weights of −inf are masks.

    Example:
        >>> x = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
        >>> set_row_means_([x], [torch.tensor([4.0, 5.0])])
        >>> x.tolist()
        [[3.0, 5.0], [5.0, 5.0]]
    """
    lengths = _row_lengths(tensors)
    for x, mean, n in zip(tensors, means, lengths, strict=True):
        if n:
            continue
        shift = centralization.row_means(x)
        if mean is not None:
            mean = mean.view(shift.shape)
            shift = shift.sub_(mean).masked_fill_(mean.isinf(), 0)
        centralization.shift_rows_(x, shift)
    _means(tensors, lengths, means, True)
    torch.autograd.graph.increment_version(list(compress(tensors, lengths)))


def _row_lengths(tensors: Sequence[Tensor]) -> list[int | None]:
    """The length of a row of each tensor, or 0 or None if ``rows.c`` cannot read its rows."""
    if os.environ.get("CLASSY_GC_KERNELS") == "0" or missing():
        return [0] * len(tensors)
    return [
        row_length(x.shape, x.stride(), True, False)
        if x.is_cpu and x.dtype in TYPES and readable(x)
        else 0
        for x in tensors
    ]


def _means(tensors: Any, lengths: Any, means: Any, change: bool) -> None:
    """Calls ``rows.c`` for the tensors that it can read."""
    xs, doubles = list(compress(tensors, lengths)), list(compress(means, lengths))
    if xs:
        doubles = [mean if mean is None else mean.double() for mean in doubles]
        table = Table(xs, filter(None, lengths))
        table["g"] = [0 if mean is None else mean.data_ptr() for mean in doubles]
        library().classy_gc_means(table.address, table.count, torch.get_num_threads(), change)
