"""The table of registered optimizers that the tests run over, and how they train.

A new optimizer is in it once it is registered, with the options of the core's table. Those that
stand in for a stock optimizer have a row in ``STOCK``.
"""

import copy

import torch
from classy_vision.optim import OPTIMIZER_REGISTRY, build_optimizer, build_optimizer_schedulers
from torch.nn import Parameter

import classy_gc  # noqa: F401  registers the names
from tests.core.cases import ROWS

# Every option away from its default, so that none can be dropped unnoticed.
_RMSPROP = {
    "lr": 0.01,
    "momentum": 0.9,
    "weight_decay": 0.1,
    "alpha": 0.9,
    "eps": 1e-3,
    "centered": True,
}
_ADAM = {"lr": 0.01, "betas": [0.8, 0.99], "eps": 1e-3, "weight_decay": 0.1, "amsgrad": True}
#: the stock optimizers that ``<name>_gc`` stands in for, and that ``gc`` goes around
STOCK = {
    "sgd": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
    "adam": _ADAM,
    "adamw": _ADAM,
    "rmsprop": _RMSPROP,
    "rmsprop_tf": _RMSPROP,
}
_RADAM = {"lr": 0.01, "betas": [0.8, 0.99], "eps": 1e-3, "weight_decay": 0.1}
OWN = {
    "radam_gc": _RADAM | {"decoupled_weight_decay": True, "degenerated_to_sgd": False},
    "plain_radam_gc": _RADAM,
}
for _name, _cls in OPTIMIZER_REGISTRY.items():
    _core_class = getattr(_cls, "core_class", None)
    if _core_class and _name.removesuffix("_gc") not in STOCK:
        OWN.setdefault(
            _name, {"lr": 0.01, **max((o for c, o in ROWS if c is _core_class), key=len)}
        )

CONFIGS = {
    **{f"{name}_gc": {"name": f"{name}_gc", **options} for name, options in STOCK.items()},
    **{name: {"name": name, **options} for name, options in OWN.items()},
    **{
        f"gc-{name}": {"name": "gc", "base_optimizer": {"name": name, **options}}
        for name, options in STOCK.items()
    },
}
#: the names that do not wrap another optimizer
PLAIN = [row for row in CONFIGS if not row.startswith("gc-")]
#: those of them that have fused kernels
WITH_FUSED = [row for row in PLAIN if "fused" in OPTIMIZER_REGISTRY[row].OPTIONS]


def config(row, /, **changes):
    """A copy of ``CONFIGS[row]`` with other values; options of the base of ``gc`` go there."""
    result = copy.deepcopy(CONFIGS[row])
    base = result.get("base_optimizer", {})
    for key, value in changes.items():
        (base if key in base else result)[key] = value
    return result


def options_of(row):
    """The options of the row's algorithm, for ``gc`` those of its base."""
    return {
        k: v for k, v in CONFIGS[row].get("base_optimizer", CONFIGS[row]).items() if k != "name"
    }


def keeps_row_means(row, **changes):
    """A config with which GC acts last, so that row means of weights stay."""
    return config(row, use_gc=True, **({} if row == "sgd_gc" else {"gc_loc": False}), **changes)


# What GC acts on and, from index 3, what it must leave alone.
SHAPES = [(4, 3, 2, 2), (5, 3), (3, 2, 2), (5,), (3, 1)]
ELIGIBLE = slice(0, 3)


def problem(steps=6, shapes=SHAPES, dtype=torch.float32):
    """Parameters, and for each step a gradient of each; row means are far from zero."""
    generator = torch.Generator().manual_seed(0)

    def random(shape):
        return (torch.randn(shape, generator=generator, dtype=torch.float64) + 0.5).to(dtype)

    params = [Parameter(random(shape)) for shape in shapes]
    return params, [[random(shape) for shape in shapes] for _ in range(steps)]


def build(config, params, num_epochs=2, **groups):
    """Builds as Classy Vision's task does: the optimizer, its schedules, then the parameters."""
    config = {"num_epochs": num_epochs, **config}
    optimizer = build_optimizer(config)
    optimizer.set_param_groups({"params": params, **build_optimizer_schedulers(config), **groups})
    return optimizer


def advance(optimizer, grads, start=0, total=None, epochs=2):
    """Steps ``start, start + 1, …`` of ``total``, as a task takes them over ``epochs`` epochs."""
    total = total or len(grads)
    params = [p for group in optimizer.optimizer.param_groups for p in group["params"]]
    for t, step_grads in enumerate(grads, start):
        for p, g in zip(params, step_grads, strict=True):
            p.grad = g.clone()
        optimizer.step(where=t / total)
        if (t + 1) * epochs % total == 0:
            optimizer.on_epoch((t + 1) / total)


def train(config, grads, **groups):
    """Trains the parameters of :func:`problem` and returns them with their optimizer."""
    params, _ = problem(0)
    optimizer = build(config, params, **groups)
    advance(optimizer, grads)
    return params, optimizer


def clones(tensors):
    return [x.detach().clone() for x in tensors]


def copies(params):
    return [Parameter(x) for x in clones(params)]


def row_means(tensors):
    return [x.detach().flatten(1).mean(1) for x in tensors[ELIGIBLE]]


def centralized(x):
    """``C(x)`` of an eligible tensor."""
    return x - x.flatten(1).mean(1).reshape(-1, *[1] * (x.dim() - 1))


def assert_same(actual, wanted):
    """Bit for bit the same tensors."""
    for i, (x, y) in enumerate(zip(actual, wanted, strict=True)):
        assert torch.equal(x, y), f"tensor {i}: {x} is not {y}"


def assert_close(actual, wanted, tolerance=1e-5):
    for x, y in zip(actual, wanted, strict=True):
        torch.testing.assert_close(x.detach(), y.detach(), rtol=tolerance, atol=tolerance)


def moments(optimizer):
    """Every tensor of the state but the step counts, in order."""
    state = optimizer.optimizer.state_dict()["state"]
    return [
        x
        for i in sorted(state)
        for name, x in sorted(state[i].items())
        if torch.is_tensor(x) and name != "step"
    ]
