"""The maths of ``update.h`` in Triton, for CUDA: all rows of a group's tensors in one launch.

It is tested under Triton's interpreter and compiled for GPUs, but has never run on one: its speed
is unknown. So it is opt-in: the environment variable ``CLASSY_GC_KERNELS=triton``.
"""

from collections import namedtuple
from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from classy_gc.core._torch import foreach
from classy_gc.core.kernels.plan import local
from classy_gc.core.kernels.table import COLUMNS, Table
from classy_gc.core.kernels.update import Update

_TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
_BLOCK = tl.constexpr(1024)  # elements that a program handles at once
_CHUNK = tl.constexpr(4096)  # replaces a row if GC leaves a tensor alone
# Nothing is contracted, so that both passes over a row compute the same gradient.
_COMPILED = {"num_warps": 8, "enable_fp_fusion": False}

# As in update.h: the compile-time constants, and the other options.
_C = namedtuple("_C", "family dtype momentum nesterov amsgrad radam waits centered before after")
_Columns = namedtuple("_Columns", COLUMNS)
_COLUMNS = _Columns(*map(tl.constexpr, range(len(COLUMNS))))
_O = namedtuple("_O", "lr momentum beta2 m_gain v_gain eps_outside eps_inside l2 decoupled")


@triton.jit
def sgd(c, o, momentum, gain, d, m, x, y):
    m = momentum * m + gain * d
    u = d + o.momentum * m if c.nesterov else m
    return u if c.momentum else d, m, x, y


@triton.jit
def adam(c, o, step, scale, d, m, v, largest):
    m += o.m_gain * (d - m)
    v = o.beta2 * v + o.v_gain * d * d
    largest = tl.where(v < largest, largest, v) if c.amsgrad else v
    below = scale * tl.sqrt_rn(largest) + o.eps_outside
    below = tl.where(scale == 0, 1.0, below) if c.radam else below  # 0 before RAdam's rectification
    return tl.div_rn(step * m, below), m, v, largest


@triton.jit
def rmsprop(c, o, momentum, gain, d, v, b, mean):
    v = o.beta2 * v + o.v_gain * d * d
    mean += o.v_gain * (d - mean)
    variance = v - mean * mean if c.centered else v
    u = tl.div_rn(d, tl.sqrt_rn(variance + o.eps_inside) + o.eps_outside)
    b = momentum * b + gain * u
    return b if c.momentum else u, v, b, mean


# If there is no tensor (address 0), zeros are read and nothing is written.
@triton.jit
def load(c, address, at):
    x = address.to(tl.pointer_type(c.dtype)) + at[0]
    return tl.load(x + at[1], mask=at[2] & (address != 0), other=0.0).to(tl.float32)


@triton.jit
def store(c, address, at, value):
    x = address.to(tl.pointer_type(c.dtype)) + at[0]
    tl.store(x + at[1], value.to(c.dtype), mask=at[2] & (address != 0))


# A row, or a chunk of a tensor that GC leaves alone.
@triton.jit(do_not_specialize=["count"])
def row(c, o, column, sign, scalars, first_tasks, table, count):
    task = tl.program_id(0)
    j, end = 0, count  # find the last tensor whose first task is not later
    while end - j > 1:
        middle = (j + end) // 2
        later = tl.load(first_tasks + middle) > task
        j, end = tl.where(later, j, middle), tl.where(later, middle, end)
    p, g = tl.load(table + column.p * count + j), tl.load(table + column.g * count + j)
    s0 = tl.load(table + column.state0 * count + j)
    s1 = tl.load(table + column.state1 * count + j)
    s2 = tl.load(table + column.state2 * count + j)
    size = tl.load(table + column.size * count + j)
    length = tl.load(table + column.length * count + j)
    a, b, sign = tl.load(scalars + 2 * j), tl.load(scalars + 2 * j + 1), tl.load(sign)
    if sign == 0:
        return
    n = tl.where(length > 0, length, _CHUNK)
    start = (task - tl.load(first_tasks + j)) * n
    end = tl.minimum(n, size - start).to(tl.int32)
    total, mu = tl.zeros([_BLOCK], tl.float64), 0.0
    # Once for μ, whose sum waits until all threads have read, and once more, from the cache.
    for stores in tl.static_range(2):
        for first in range(0, end if stores else length.to(tl.int32), _BLOCK):
            i = first + tl.arange(0, _BLOCK)
            at = (start, i, i < end)
            w = load(c, p, at)
            l2 = tl.where(o.l2 == 0, 0.0, o.l2 * w)  # not 0·inf = NaN
            d = sign * load(c, g, at) + l2 - (mu if c.before else 0.0)
            m0, m1, m2 = load(c, s0, at), load(c, s1, at), load(c, s2, at)
            u, m0, m1, m2 = c.family(c, o, a, b, d, m0, m1, m2)
            u += tl.where(w - w == 0, o.decoupled * w, 0.0)  # inf stays: inf − inf is NaN
            if stores:
                store(c, s0, at, m0)
                store(c, s1, at, m1)
                store(c, s2, at, m2)
                moves = tl.where(a == 0, 0, p) if c.waits else p
                store(c, moves, at, w - o.lr * (u - mu if c.after else u))
            else:
                total += tl.where(i < end, d if c.before else u, 0.0)
        mu = (tl.sum(total) / tl.maximum(length, 1)).to(tl.float32)


def missing() -> None:
    """Returns None: wherever there are CUDA tensors, nothing is missing."""


def usable(tensors: list[Tensor]) -> bool:
    """Whether the tensors are on one GPU and of one type that the kernel knows: not float64."""
    fit = all((x.is_cuda or triton.knobs.runtime.interpret) and x.dtype in _TYPES for x in tensors)
    return fit and len({(x.device, x.dtype) for x in tensors}) == 1


def launch(steps: Sequence[tuple[Update, Table]], first: Callable[[], None] | None = None) -> None:
    """Calls ``first``, and takes one step of groups; if their ``sign`` is 0, nothing changes."""
    if first is not None:
        first()
    for update, table in steps:
        counts, sign = local(update.steps), torch.as_tensor(update.numbers["sign"])
        _launch(update, table, sign, _scalars(update, counts))
        for place in {t.device for t in counts}:
            one = _to(place, (sign != 0).float())
            foreach.add_([t for t in counts if t.device == place], one)


def _launch(update: Update, table: Table, sign: Tensor, scalars: Tensor) -> None:
    p = local(update.params)[0]
    memory = torch.frombuffer(table.memory, dtype=torch.int64)
    size, length = (torch.tensor(table[name]) for name in ("size", "length"))
    length = torch.where(length > 0, length, _CHUNK.value)
    tasks = (size + length - 1) // length
    first = tasks.cumsum(0) - tasks
    numbers = update.numbers | {"m_gain": 1 - update.numbers.get("beta1", 0)}
    flags = update.flags | {k for k in ("radam", "waits") if numbers.get(k)}
    family = {"sgd": sgd, "adam": adam, "rmsprop": rmsprop}[update.family]
    case = family, _TYPES[p.dtype], *(k in flags for k in _C._fields[2:])
    c, o = _C(*map(tl.constexpr, case)), _O(*(float(numbers.get(k, 0)) for k in _O._fields))
    with torch.cuda.device_of(p):
        args = (_to(p.device, x) for x in (sign.float(), scalars.float(), first, memory))
        row[(max(int(tasks.sum()), 1),)](c, o, _COLUMNS, *args, table.count, **_COMPILED)


def _to(place: torch.device, x: Tensor) -> Tensor:
    return (x.pin_memory() if x.is_cpu and place.type == "cuda" else x).to(place, non_blocking=True)


def _scalars(update: Update, steps: list[Tensor]) -> Tensor:
    """Momentum and gain of each tensor, or Adam's step and scale, as in ``rows.c``."""
    o = update.numbers
    if update.family != "adam":
        pair = o["momentum"], o.get("buffer_gain", 1 - o.get("dampening", 0.0))
        new = update.new or [False] * len(update.params)
        return torch.tensor([(0.0, 1.0) if x else pair for x in new])
    t = torch.stack([t.to(steps[0].device) for t in steps]).double() + 1
    beta2_t = o["beta2"] ** t
    step, scale = 1 / (1 - o["beta1"] ** t), 1 / (1 - beta2_t).sqrt()
    if "radam" in o:
        rho_inf = 2 / (1 - o["beta2"]) - 1
        rho = rho_inf - 2 * t * beta2_t / (1 - beta2_t)
        r = ((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)).sqrt()
        step = torch.where(rho > 5, step * r / scale, step * (not o["waits"]))
        scale = rho > 5
    return torch.stack([step, scale], 1)
