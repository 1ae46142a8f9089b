"""The table of optimizers and options that the tests run over, and how they train.

A new optimizer takes a row in ``ROWS``. Without an entry in ``REFERENCE``, its reference is the
class that it centralizes, in float64, with GC put around each step by the definition.
"""

import inspect
from functools import cache, lru_cache
from itertools import product

import pytest
import torch
from torch.nn import Parameter

from classy_gc import core
from tests.pairwise import pairwise

from . import reference

RADAMS = (core.RAdam, core.PlainRAdam)
RMSPROPS = (core.RMSprop, core.RMSpropTF)
# torch's classes of these names have no fused option.
FUSED_HERE = (*RADAMS, *RMSPROPS)


# Each row: an optimizer and options of its algorithm.
ROWS = [
    (core.SGD, {}),
    (core.SGD, {"weight_decay": 0.3}),
    (core.SGD, {"weight_decay": 0.3, "momentum": 0.9, "dampening": 0.4}),
    (core.SGD, {"weight_decay": 0.3, "momentum": 0.9, "nesterov": True}),
    (core.SGD, {"weight_decay": 0.3, "momentum": 0.9, "nesterov": True, "maximize": True}),
    (core.Adam, {}),
    (core.Adam, {"weight_decay": 0.3}),
    (core.Adam, {"weight_decay": 0.3, "maximize": True}),
    (core.Adam, {"weight_decay": 0.3, "amsgrad": True, "betas": (0.8, 0.7), "eps": 1e-3}),
    (core.Adam, {"weight_decay": 0.3, "decoupled_weight_decay": True}),
    (core.AdamW, {}),
    (core.AdamW, {"weight_decay": 0.3, "maximize": True}),
    (core.AdamW, {"weight_decay": 0.3, "amsgrad": True, "betas": (0.8, 0.7), "eps": 1e-3}),
    (core.RAdam, {}),
    (core.RAdam, {"weight_decay": 0.3, "eps": 1e-3}),
    (core.RAdam, {"weight_decay": 0.3, "maximize": True, "degenerated_to_sgd": False}),
    (core.RAdam, {"weight_decay": 0.3, "decoupled_weight_decay": True}),
    (
        core.RAdam,
        {"weight_decay": 0.3, "decoupled_weight_decay": True, "degenerated_to_sgd": False},
    ),
    (core.RAdam, {"betas": (0.9, 0.5)}),  # ρ_∞ = 3: never rectified
    (core.PlainRAdam, {"weight_decay": 0.3}),
    (core.RMSprop, {}),
    (core.RMSprop, {"weight_decay": 0.3, "maximize": True, "momentum": 0.9}),
    (
        core.RMSprop,
        {"weight_decay": 0.3, "momentum": 0.9, "centered": True, "alpha": 0.8, "eps": 1e-2},
    ),
    (core.RMSpropTF, {}),
    (core.RMSpropTF, {"weight_decay": 0.3, "maximize": True, "momentum": 0.9}),
    (core.RMSpropTF, {"momentum": 0.9, "initial_square_avg": 1.0, "lr_in_momentum": True}),
    (core.RMSpropTF, {"weight_decay": 0.3, "centered": True, "alpha": 0.8, "eps": 1e-2}),
]

REFERENCE = {
    core.SGD: reference.sgd,
    core.Adam: reference.adam,
    core.AdamW: reference.adamw,
    core.RAdam: reference.radam,
    core.PlainRAdam: reference.radam,
    core.RMSprop: reference.rmsprop,
    core.RMSpropTF: reference.rmsprop_tf,
}
for _cls, _ in ROWS:
    REFERENCE.setdefault(_cls, reference.around(_cls))
OPTIMIZERS = [pytest.param(cls, id=cls.__name__) for cls in REFERENCE]
WITH_KERNELS = [param for param in OPTIMIZERS if param.values[0].kernel_update is not None]
OF_TORCH = [
    param
    for param in OPTIMIZERS
    if reference.centralized(param.values[0]).__module__.startswith("torch.optim.")
]

# What torch's class of the same name accepts besides foreach and fused.
_LR = {"lr": [0.1, torch.tensor(0.1)]}
_COMMON = _LR | {
    "weight_decay": [0, 0.3],
    "maximize": [False, True],
    "capturable": [False, True],
    "differentiable": [False, True],
}
_ADAM = _COMMON | {"betas": [(0.9, 0.99)]}
TORCH_GRID = {
    core.SGD: _LR
    | {
        "momentum": [0, 0.9],
        "dampening": [0, 0.4],
        "weight_decay": [0, 0.3, torch.tensor(0.3)],
        "nesterov": [False, True],
        "maximize": [False, True],
        "differentiable": [False, True],
    },
    core.Adam: _ADAM | {"amsgrad": [False, True], "decoupled_weight_decay": [False, True]},
    core.AdamW: _ADAM | {"amsgrad": [False, True]},
    core.RAdam: _ADAM | {"decoupled_weight_decay": [False, True]},
    core.PlainRAdam: _ADAM | {"decoupled_weight_decay": [False, True]},
    core.RMSprop: _COMMON | {"momentum": [0, 0.9], "centered": [False, True]},
}
for _cls in (param.values[0] for param in OF_TORCH):
    _known = inspect.signature(reference.centralized(_cls)).parameters
    if _cls is not core.RMSpropTF:  # it does not compute what torch's class does
        TORCH_GRID.setdefault(_cls, {name: _COMMON[name] for name in _COMMON if name in _known})

IMPLEMENTATIONS = [{}, {"fused": True}, {"fused": False}, {"foreach": True}, {"foreach": False}]
KERNELS = [{"fused": True}, {"foreach": True}, {"foreach": False}]

# What GC acts on, one shape for each number of dimensions …
ELIGIBLE = [(5, 3), (4, 3, 2), (4, 3, 2, 2), (3, 2, 2, 2, 2)]
# … and what it must leave alone.
INELIGIBLE = [(), (7,), (1,), (5, 1), (1, 1), (4, 1, 1, 1), (0,), (0, 3), (3, 0)]
SHAPES = [*ELIGIBLE, *INELIGIBLE]


def row_id(row):
    """A test id with everything in a row."""
    cls, options = row
    return "-".join([cls.__name__, *(f"{k}={v}" for k, v in options.items())])


@cache
def _parameters(cls):
    return frozenset(inspect.signature(cls).parameters)


def accepts(cls, *names):
    """Whether the constructor has options of these names."""
    return _parameters(cls).issuperset(names)


def rows(gc_loc=(False, True), implementations=({},), table=ROWS):
    """``ROWS`` as parameters ``cls, options``, by each ``gc_loc`` and implementation.

    Options that an optimizer does not have are left out.
    """
    combined = [
        (cls, options | gc | implementation)
        for cls, options in table
        for gc in ([{"gc_loc": x} for x in gc_loc] if accepts(cls, "gc_loc") else [{}])
        for implementation in implementations
        if accepts(cls, *implementation)
    ]
    return [pytest.param(cls, options, id=row_id((cls, options))) for cls, options in combined]


def accepted(cls, implementations):
    """The implementations that the class has."""
    return [one for one in implementations if accepts(cls, *one)]


def one_row_each(*args, **combinations):
    """As :func:`rows`, but for each optimizer only the last of its rows with the most options."""
    most = {}
    for cls, options in ROWS:
        if len(options) >= len(most.get(cls, {})):
            most[cls] = options
    return rows(*args, table=most.items(), **combinations)


def _name(value):
    return getattr(value, "__name__", str(value))


def pairs(table, implementations, *axes):
    """Parameters ``cls, options, *values`` in which every two of these meet: a case of the table,
    an implementation with GC on or off, and a value of each axis.

    Options that an optimizer does not have are left out.
    """
    implementations = [
        one | {"use_gc": use_gc} for one in implementations for use_gc in (False, True)
    ]
    cases = [param.values for param in table]
    chosen = pairwise(
        cases, implementations, *axes, allowed=lambda case, one, *_: accepts(case[0], *one)
    )
    return [
        pytest.param(
            cls,
            options | one,
            *values,
            id="-".join([row_id((cls, options | one)), *map(_name, values)]),
        )
        for (cls, options), one, *values in chosen
    ]


def for_torch(cls, options):
    """The options that the torch class has too."""
    return {k: v for k, v in options.items() if accepts(parent(cls), k)}


def grid(options):
    """Every combination of a dict of lists, as dicts."""
    return [dict(zip(options, values, strict=True)) for values in product(*options.values())]


def parent(cls):
    """The class that ``cls`` centralizes."""
    return reference.centralized(cls)


def problem(shapes=SHAPES, steps=10, dtype=torch.float32):
    """Weights, and for each step a gradient of each weight; row means are far from zero."""
    weights, grads = _drawn(tuple(map(tuple, shapes)), steps, dtype)

    def copies(tensors):
        return [x.to(torch.get_default_device(), copy=True) for x in tensors]

    return copies(weights), list(map(copies, grads))


@lru_cache(maxsize=64)
def _drawn(shapes, steps, dtype):
    options = {"generator": torch.Generator("cpu").manual_seed(0), "dtype": torch.float64}

    def random(shape):
        x = torch.randn(shape, **options, device="cpu")
        if dtype.is_complex:
            x = x + 1j * torch.randn(shape, **options, device="cpu")
        return (x + 0.5).to(dtype)

    weights = [random(shape) for shape in shapes]
    return weights, [[random(shape) for shape in shapes] for _ in range(steps)]


def advance(optimizer, grads):
    """Steps once for each list of gradients (``None`` where a parameter has none)."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for step_grads in grads:
        for p, g in zip(params, step_grads, strict=True):
            p.grad = None if g is None else g.clone()
        optimizer.step()


def train(cls, weights, grads, **options):
    """Trains copies of ``weights`` and returns them with their optimizer."""
    params = [Parameter(w.clone()) for w in weights]
    optimizer = cls(params, **{"lr": 0.1} | options)
    advance(optimizer, grads)
    return params, optimizer


def expected(cls, weights, grads, **options):
    """What :func:`train` should have made of ``weights``, by the float64 reference."""
    options = {k: v for k, v in options.items() if k not in ("fused", "foreach")}
    options = {"lr": 0.1} | options
    function = REFERENCE[cls]

    def final(w, gs):
        gs = [g for g in gs if g is not None]
        if w.is_complex():  # two reals, which are stepped independently
            parts = [
                function(x(w), [x(g) for g in gs], **options) for x in (torch.real, torch.imag)
            ]
            return torch.complex(*parts)
        return function(w, gs, **options)

    return [final(w, gs) for w, gs in zip(weights, zip(*grads, strict=True), strict=True)]


def assert_close(actual, wanted, tolerance):
    """Every tensor is right within ``tolerance`` times the largest element that it should have."""
    for i, (x, y) in enumerate(zip(actual, wanted, strict=True)):
        if y.numel():
            error = (x.detach().to(y.dtype) - y).abs().max() / y.abs().max()
            assert error <= tolerance, f"tensor {i}, shape {list(y.shape)}: off by {error:.1e}"


def bits(tensors):
    """A value that compares equal only if every bit of every tensor is equal."""
    return [
        (x.shape, x.dtype, x.detach().contiguous().view(-1).view(torch.uint8).tolist())
        for x in (x if x.dim() else x[None] for x in tensors)
    ]


def assert_same(actual, wanted):
    """Bit for bit the same tensors."""
    assert bits(actual) == bits(wanted)


def moments(optimizer):
    """Every tensor of the state, in order."""
    state = optimizer.state_dict()["state"]
    return [x for i in sorted(state) for _, x in sorted(state[i].items()) if torch.is_tensor(x)]
