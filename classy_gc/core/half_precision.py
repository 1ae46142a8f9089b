"""Half-precision weights whose update is computed in float32 and rounded once."""

from collections.abc import Iterable
from copy import copy
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from classy_gc.core._torch import local_tensor

_Group = dict[str, Any]
_Types = dict[str, "torch.dtype | None"]  # of the tensors of a state, by name


class StandIns:
    """Float32 copies that stand in for half-precision weights while an update runs.

    The update rounds such a weight, and the next rounding would swallow the shift that puts its row
    means back. During an update this takes additional memory for the weights, their gradients and
    their state in float32.

    Weights and state are written at the end: an update that fails or is interrupted does not change
    them.

    Args:
        optimizer: of any class.
        groups: the parameter groups to update.
        params: the weights; there may be none.
    """

    def __init__(self, optimizer: Optimizer, groups: list[_Group], params: list[Tensor]) -> None:
        self._optimizer, self._own_groups = optimizer, groups
        #: the stand-in of each weight
        self.of = _copies(params, torch.float32)
        self._groups = [_with(self.of, group) for group in groups] if params else groups
        self._state = copy(optimizer.state)
        self._masters: list[tuple[Tensor, Tensor]] = []
        state = {p: self._state.pop(p) for p in params if p in self._state}
        for_half, for_float32 = self._types(state.values())
        for p, tensors in state.items():
            self._state[self.of[p]] = tensors = dict(tensors)
            for name, x in tensors.items():
                if isinstance(x, Tensor):
                    dtype = torch.float32 if x.dtype == p.dtype else x.dtype
                    tensors[name] = x.to(for_float32[name] or dtype, copy=True)
            for x in _masters(tensors, for_half, p):
                self.of[p].copy_(x)

    def run(self) -> None:
        """Runs the update, which changes the stand-ins instead of the weights."""
        own = self._optimizer.state
        try:
            self._optimizer.state = self._state
            self._optimizer.update_without_gc(self._groups)
        finally:
            self._optimizer.state = own
        for q in self.of.values():
            tensors = self._state.get(q, {})
            self._masters += ((q, x) for x in _masters(tensors, self._types([tensors])[0], q))

    def write_back(self) -> None:
        """Rounds the weights, and the converted tensors of their state."""
        own = self._optimizer.state
        for q, master in self._masters:
            master.copy_(q)
        for p, q in self.of.items():
            tensors, before = self._state.pop(q, None), own.get(p, {})
            p.copy_(q)
            if tensors is None:
                continue
            for_half, _ = self._types([tensors])
            for name, x in tensors.items():
                if isinstance(x, Tensor):
                    dtype = getattr(before.get(name), "dtype", None) or for_half[name]
                    tensors[name] = x.to(dtype or x.dtype)
            own[p] = tensors
        own.update(self._state)
        for group, changed in zip(self._own_groups, self._groups, strict=True):
            group.update({**changed, "params": group["params"]})

    def _types(self, states: Iterable[dict[str, Any]]) -> tuple[_Types, _Types]:
        """The types of the optimizer's state, for half-precision and for float32 weights.

        A class may keep a moment in the type of the weight, and, whatever the weight is, a master
        weight in float32 or another moment in bfloat16. Only a first step shows it, so one is taken
        on copies.
        """
        known = _TYPES.setdefault(self._optimizer, ({}, {}))
        names = {name for state in states for name in state}
        if not names <= known[0].keys():
            # The smallest of each number of dimensions, on which the state depends.
            few = {p.dim(): p for p in sorted(self.of, key=Tensor.numel, reverse=True)}.values()
            for types, dtype in zip(known, (None, torch.float32), strict=True):
                types.update(dict.fromkeys(names) | self._first_types(_copies(few, dtype)))
        return known

    def _first_types(self, copies: dict[Tensor, Tensor]) -> _Types:
        twin = object.__new__(type(self._optimizer))
        vars(twin).update(vars(self._optimizer), state=copy(self._optimizer.state))
        groups = []
        for group in self._own_groups:
            params = [p for p in group["params"] if p in copies]
            if params:
                groups.append(_with(copies, {**group, "params": params}))
        try:
            twin.update_without_gc(groups)
        except KeyError:  # the constructor of the class makes the state
            return {}
        states = [twin.state[q] for q in copies.values()]
        return {k: x.dtype for state in states for k, x in state.items() if isinstance(x, Tensor)}


# For each optimizer: with half-precision weights, and with float32 weights.
_TYPES: WeakKeyDictionary[Optimizer, tuple[_Types, _Types]] = WeakKeyDictionary()


def _copies(params: Iterable[Tensor], dtype: torch.dtype | None) -> dict[Tensor, Tensor]:
    copies = {p: Parameter(p.to(dtype or p.dtype, copy=True), p.requires_grad) for p in params}
    for p, q in copies.items():
        q.grad = None if p.grad is None else p.grad.to(q.dtype, copy=True)
    return copies


def _with(copies: dict[Tensor, Tensor], group: _Group) -> _Group:
    return {**group, "params": [copies.get(p, p) for p in group["params"]]}


def _masters(state: dict[str, Any], for_half: _Types, weight: Tensor) -> list[Tensor]:
    # Tensors of a state that hold the weight itself in float32, and so are not rounded.
    return [
        x
        for name, x in state.items()
        if for_half[name] == torch.float32
        and x.shape == weight.shape
        and torch.equal(local_tensor(x).to(weight.dtype), local_tensor(weight))
    ]
