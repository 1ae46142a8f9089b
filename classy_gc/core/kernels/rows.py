"""The C kernel ``rows.c``, called with addresses."""

from __future__ import annotations

import ctypes
import logging
from array import array
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from classy_gc.core._torch import PLAIN
from classy_gc.core.centralization import ineligible_reason, local_rows
from classy_gc.core.kernels.update import Update
from classy_gc.core.memory import is_dense, laid_out_as

_PLAIN = set(PLAIN)

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


class Rows(NamedTuple):
    """The parameters of a group as the kernel sees them, found anew only where they change.

    It holds no tensor, so that what is no longer trained is freed.
    """

    #: where parameters lie, their shapes and strides
    key: tuple[Any, ...]
    types: list[torch.dtype]
    #: addresses, numbers of elements, lengths of rows
    columns: tuple[array[int], array[int], array[int]]
    #: addresses of the state, once it is known to fit
    state: list[list[int]]


def local(tensors: list[Tensor]) -> list[Tensor]:
    """Tensors that have an address: of DTensors with whole rows those of this process."""
    return tensors if set(map(type, tensors)) <= _PLAIN else list(map(local_rows, tensors))


def usable(params: list[Tensor]) -> bool:
    """Whether the kernel can reach tensors and knows their types."""
    return all(p.is_cpu and p.dtype in _TYPES for p in params)


def find_rows(
    params: list[Tensor],
    grads: list[Tensor],
    use_gc: bool,
    gc_conv_only: bool,
    last: Rows | None = None,
    usable: Callable[[list[Tensor]], bool] = usable,
) -> tuple[Rows, list[Tensor]] | None:
    """The rows of parameters and their gradients, or None if the kernel cannot step one of them.

    All must be usable and dense, with rows that are blocks of memory; no two may share memory.
    Gradients must be of the same type and not sparse.

    Args:
        params: local, whole, not lazy.
        grads: theirs; what is returned lies in memory as the parameters do.
        use_gc, gc_conv_only: of their group.
        last: the rows that were found for the group before (default: None).
        usable: the function of that name of the kernel's module (default: the C kernel's).
    """
    if not {*map(type, params), *map(type, grads)} <= _PLAIN:
        return None
    addresses, strides = [p.data_ptr() for p in params], [p.stride() for p in params]
    key = (use_gc, gc_conv_only, addresses, strides, [p.shape for p in params])
    types = [g.dtype for g in grads]
    if {g.layout for g in grads} - {torch.strided}:
        return None
    as_params = [g.stride() for g in grads] == strides
    if last is not None and as_params and (last.key, last.types) == (key, types):
        return last, grads
    if not usable([*params, *grads]) or [p.dtype for p in params] != types:
        return None
    sizes = [p.numel() for p in params]
    lengths = [_row_length(p.shape, p.stride(), use_gc, gc_conv_only) for p in params]
    distinct = {address for address, size in zip(addresses, sizes, strict=True) if size}
    if None in lengths or len(distinct) < sum(map(bool, sizes)):
        return None
    columns = tuple(array("q", xs) for xs in (addresses, sizes, lengths))
    rows = Rows(key, types, columns, [])
    return rows, list(map(laid_out_as, params, grads))


def _call(update: Update, dtype: torch.dtype, table: array[int], count: int) -> None:
    address, threads = table.buffer_info()[0], torch.get_num_threads()
    options = _Options(
        family=_FAMILIES[update.family],
        type=_TYPES[dtype],
        flags=sum(_FLAGS[flag] for flag in update.flags),
        **update.numbers,
    )
    failed = _library().classy_gc_step(
        ctypes.c_void_p(address),
        ctypes.c_void_p(address + table.itemsize * count * (3 + _STATES)),
        ctypes.c_int64(count),
        ctypes.byref(options),
        threads,
    )
    if failed:
        raise MemoryError(f"no memory for a row of each of {threads} threads")


def step(
    update: Update, rows: Rows, grads: list[Tensor], call: Callable[..., None] = _call
) -> None:
    """One step of a group; ``update`` has all numbers and flags.

    ``call`` steps the parameters of one type: with the update, the type, the columns of the
    kernel's table one after the other, and how many parameters there are.

    Raises:
        ValueError: the state of a parameter has another shape, type or device than the parameter.
        MemoryError: there is none for a row of each thread.
    """
    params, *state = map(local, (update.params, *update.state))
    state_addresses = [[x.data_ptr() for x in xs] for xs in state]
    if state_addresses != rows.state:
        state_addresses = [list(map(_fitting, params, xs)) if xs else [] for xs in state]
        rows.state[:] = state_addresses
    # A step count may have come from another device, or be a float64 where that is the default.
    steps = local(update.steps)
    if not {(t.dtype, t.is_cpu) for t in steps} <= {(torch.float32, True)}:
        steps = [t.to("cpu", torch.float32) for t in steps]

    addresses, sizes, lengths = rows.columns
    none = array("q", bytes(sizes.itemsize * len(sizes)))
    columns = [addresses, [g.data_ptr() for g in grads], *state_addresses]
    columns += [none] * (2 + _STATES - len(columns))
    columns += [[t.data_ptr() for t in steps], sizes, lengths, update.new]
    columns = [xs or none for xs in columns]
    for dtype in set(rows.types):
        chosen = [x is dtype for x in rows.types]
        table = array("q")
        for xs in columns:
            table.extend(xs if all(chosen) else compress(xs, chosen))
        call(update, dtype, table, sum(chosen))
    for t, advanced in zip(update.steps, steps, strict=True) if steps is not update.steps else ():
        t.copy_(advanced)


def _fitting(p: Tensor, x: Tensor) -> int:
    """The address of a tensor of the state of ``p``, laid out as that is."""
    kinds = [f"{t.dtype} of shape {list(t.shape)} on {t.device}" for t in (p, x)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"a parameter is {kinds[0]}, and its state {kinds[1]}")
    x.data = laid_out_as(p, x)
    return x.data_ptr()
