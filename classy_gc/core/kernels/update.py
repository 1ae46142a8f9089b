"""Describes the step of a parameter group for a kernel."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer


class Update(NamedTuple):
    """The step of the parameters of one group.

    Args:
        family: ``"sgd"``, ``"adam"`` or ``"rmsprop"``.
        params: the parameters that have a gradient.
        state: up to three lists, each empty or with one tensor per parameter.
        steps: step counts, which the kernel advances; may be empty.
        flags: the flags of the family that are on.
        numbers: options of the family, by their names in ``rows.c``.
        new: whether the momentum of each parameter starts with this step; may be empty.
    """

    family: str
    params: list[Tensor]
    state: Sequence[list[Tensor]]
    steps: list[Tensor]
    flags: set[str]
    numbers: dict[str, Any]
    new: Sequence[bool] = ()


def state_of(
    optimizer: Optimizer, group: dict[str, Any], params: list[Tensor], **initial: float
) -> list[list[Tensor]]:
    """The state of parameters, one list for each name in ``initial``; missing state is created.

    Unlike torch's, it may be created at any step: a schedule may turn momentum on later.

    Args:
        optimizer: the one with the state.
        group: the parameter group.
        params: the parameters that have a gradient.
        **initial: the value that fills a missing tensor of the parameter's shape, by name; ``step``
            is a scalar.
    """
    states = [optimizer.state[p] for p in params]
    lists = []
    for name, value in initial.items():
        tensors = []
        for p, state in zip(params, states, strict=True):
            x = state.get(name)
            if x is None:
                x = state[name] = _initial(name, value, p, group)
            tensors.append(x)
        lists.append(tensors)
    return lists


def _initial(name: str, value: float, p: Tensor, group: Mapping[str, Any]) -> Tensor:
    if name != "step":
        return torch.full_like(p, value)
    fused = group.get("fused")
    default = torch.float32 if fused else torch.get_default_dtype()
    device = p.device if fused or group.get("capturable") else "cpu"
    return torch.tensor(value, dtype=torch.promote_types(default, torch.float32), device=device)


def sgd_update(optimizer: Optimizer, group: dict[str, Any], params: list[Tensor]) -> Update:
    """The update of :class:`torch.optim.SGD`."""
    numbers = {"momentum": group["momentum"], "dampening": group["dampening"]}
    numbers["l2"] = float(group["weight_decay"])
    if not group["momentum"]:
        return Update("sgd", params, [], [], set(), numbers)
    flags = {"momentum", "nesterov"} if group["nesterov"] else {"momentum"}
    new: list[bool] = []
    if group["dampening"]:  # which does not act on the first value of a buffer
        new = [optimizer.state[p].get("momentum_buffer") is None for p in params]
    buffers = state_of(optimizer, group, params, momentum_buffer=0.0)
    return Update("sgd", params, buffers, [], flags, numbers, new)


def adam_update(optimizer: Optimizer, group: dict[str, Any], params: list[Tensor]) -> Update:
    """The update of :class:`torch.optim.Adam` and :class:`torch.optim.AdamW`."""
    flags = {"amsgrad"} if group.get("amsgrad") else set()
    names = ["step", "exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * len(flags)
    steps, *moments = state_of(optimizer, group, params, **dict.fromkeys(names, 0.0))
    beta1, beta2 = map(float, group["betas"])
    numbers = {"beta1": beta1, "beta2": beta2, "v_gain": 1 - beta2, "eps_outside": group["eps"]}
    decay = "decoupled" if group["decoupled_weight_decay"] else "l2"
    numbers[decay] = float(group["weight_decay"])
    return Update("adam", params, moments, steps, flags, numbers)


def radam_update(optimizer: Optimizer, group: dict[str, Any], params: list[Tensor]) -> Update:
    """The update of :class:`torch.optim.RAdam`."""
    update = adam_update(optimizer, group, params)
    update.numbers.update(radam=True, waits=not group.get("degenerated_to_sgd", True))
    return update


def rmsprop_update(optimizer: Optimizer, group: dict[str, Any], params: list[Tensor]) -> Update:
    """The update of :class:`torch.optim.RMSprop`."""
    initial = {"step": 0.0, "square_avg": group.get("initial_square_avg", 0.0)}
    optional = {"momentum": "momentum_buffer", "centered": "grad_avg"}
    flags = {option for option in optional if group[option]}
    initial |= {optional[option]: 0.0 for option in flags}
    state = dict(zip(initial, state_of(optimizer, group, params, **initial), strict=True))
    beta2 = group["alpha"]
    numbers = {"beta2": beta2, "v_gain": 1 - beta2, "eps_outside": group["eps"]}
    numbers |= {"momentum": group["momentum"], "buffer_gain": 1.0}
    numbers["l2"] = float(group["weight_decay"])
    lists = [state.get(x, []) for x in ("square_avg", "momentum_buffer", "grad_avg")]
    return Update("rmsprop", params, lists, state["step"], flags, numbers)


def adagrad_update(optimizer: Optimizer, group: dict[str, Any], params: list[Tensor]) -> Update:
    """The update of :class:`torch.optim.Adagrad` without ``lr_decay``."""
    initial = {"step": 0.0, "sum": group["initial_accumulator_value"]}
    steps, sums = state_of(optimizer, group, params, **initial)
    numbers = {"beta2": 1.0, "v_gain": 1.0, "eps_outside": group["eps"]}
    numbers["l2"] = float(group["weight_decay"])
    return Update("rmsprop", params, [sums], steps, set(), numbers)


#: what kernels know of torch's classes
UPDATES: dict[type, Callable[..., Update]] = {
    torch.optim.SGD: sgd_update,
    torch.optim.Adam: adam_update,
    torch.optim.AdamW: adam_update,
    torch.optim.RAdam: radam_update,
    torch.optim.RMSprop: rmsprop_update,
    torch.optim.Adagrad: adagrad_update,
}
