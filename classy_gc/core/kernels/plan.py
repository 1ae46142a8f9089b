"""How parameter groups are stepped by kernels: what one step finds out is kept for the next."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain, pairwise
from operator import is_
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from classy_gc.core._torch import OWN_TYPES, materialized, sameness
from classy_gc.core.centralization import ineligible_reason, local_rows
from classy_gc.core.kernels.pick import pick
from classy_gc.core.kernels.table import COLUMNS, TYPES, Table
from classy_gc.core.kernels.update import KernelOptimizer, Update
from classy_gc.core.memory import has_memory, is_dense, laid_out_as

_Group = dict[str, Any]
_plans: WeakKeyDictionary[KernelOptimizer, list[Plan]] = WeakKeyDictionary()


def plans_of(optimizer: KernelOptimizer, check_options: Callable[[_Group], None]) -> list[Plan]:
    """The plan of each parameter group, for the options that the group has now.

    Args:
        optimizer: with the groups.
        check_options: refuses what a group must not have; called where an option has changed.
    """
    plans, groups = _plans.setdefault(optimizer, []), optimizer.param_groups
    plans += [Plan() for _ in groups[len(plans) :]]
    choice = os.environ.get("CLASSY_GC_KERNELS")
    for group, plan in zip(groups, plans, strict=False):
        # Not the learning rate, which is another at every step of many schedules.
        options, old = {**group, "params": choice, "lr": None}, plan.options
        if options.keys() != old.keys() or not all(map(is_, options.values(), old.values())):
            check_options(group)
            plan.kernel, _ = pick(optimizer, group)
            plan.options = options
    return plans[: len(groups)]


class Plan:
    """The kernel of a parameter group, and the table of its parameters.

    It holds no parameter or state, so that what is no longer trained is freed.
    """

    def __init__(self) -> None:
        self.options: _Group = {}
        self.kernel: Any = None
        self.table = Table(0)
        self._switches: tuple[bool, ...] = ()
        self._addresses: list[int] = []
        self._state: list[list[int]] = []
        self._new: Sequence[bool] = ()
        self._same: Callable[..., bool] | None = None
        self._same_state: Callable[..., bool] | None = None

    def pairs(self, group: _Group) -> tuple[list[Tensor], list[Tensor]] | None:
        """Parameters that have a gradient, and gradients as the kernel reads them.

        None if the kernel cannot step the whole group. Parameters and gradients must be of the same
        type, dense and local, with rows that are blocks of memory; no two may share memory.

        Raises:
            ValueError: a gradient has another shape than its parameter.
        """
        if self.kernel is None:
            return None
        params = [p for p in group["params"] if p.grad is not None]
        rows, grads = local(params), local([p.grad for p in params])
        switches = bool(group["use_gc"]), bool(group["gc_conv_only"])
        if (
            self._same is None
            or switches != self._switches
            or len(rows) != self.table.count
            or not self._same(*rows, *grads)
            or [p.data_ptr() for p in rows] != self._addresses
        ):
            self._same, given = None, grads
            if not (all(map(_readable, rows, grads)) and self.kernel.usable(rows)):
                return None
            table = _table(rows, *switches)
            if table is None:
                return None
            grads = [laid_out_as(p, materialized(g)) for p, g in zip(rows, grads, strict=True)]
            self.table, self._switches, self._state, self._new = table, switches, [], ()
            self._addresses = table["p"].tolist()
            if all(map(is_, grads, given)):
                self._same = sameness([*rows, *grads])
        addresses, others = [g.data_ptr() for g in grads], {0, *self._addresses}
        if not others.isdisjoint(addresses) and any(
            g.numel() and g.data_ptr() in others for g in grads
        ):
            return None  # a gradient that is a parameter itself, or whose memory was freed
        self.table["g"] = addresses
        return params, grads

    def update(
        self, optimizer: KernelOptimizer, group: _Group, params: list[Tensor]
    ) -> Update | None:
        """The step of a group, complete but not taken; None where none is to be taken.

        Raises:
            ValueError: the state of a parameter has another shape, type or device than it.
        """
        # GradScaler's, where it leaves both to the step.
        scale, found_inf = (getattr(optimizer, name, None) for name in ("grad_scale", "found_inf"))
        sign = -1.0 if group["maximize"] else 1.0
        if scale is not None:
            sign = sign / scale.double()
        if found_inf is not None:
            sign = sign * (found_inf == 0)
            # With dampening the first step is another, and only those that are taken count.
            if (found_inf.is_cpu or group.get("dampening")) and not sign:
                return None
        update = optimizer.kernel_update(group, params)
        self._set_state(params, update)
        if update.new or self._new:
            self.table["new"] = self._new = update.new or [False] * len(params)
        decoupled = group.get("decoupled_weight_decay", optimizer.decoupled_weight_decay)
        numbers = {"lr": float(group["lr"]), "sign": sign, **update.numbers}
        numbers["decoupled" if decoupled else "l2"] = float(group["weight_decay"])
        flags = {*update.flags, "before" if group.get("gc_loc", True) else "after"}
        return update._replace(numbers=numbers, flags=flags)

    def _set_state(self, params: list[Tensor], update: Update) -> None:
        steps, *states = lists = [local(xs) for xs in (update.steps, *update.state)]
        tensors = [*chain(*lists)]
        if self._state == _addresses(lists) and (not tensors or self._same_state(*tensors)):
            return
        self._state = []
        for xs in filter(None, states):
            for p, x in zip(local(params), xs, strict=True):
                wanted, kind = (f"{t.dtype} of shape {[*t.shape]} on {t.device}" for t in (p, x))
                if kind != wanted:
                    raise ValueError(f"a parameter is {wanted}, and its state {kind}")
                x.data = laid_out_as(p, materialized(x))
        # Step counts of other types stay out: the kernel advances copies of them.
        in_table = [steps if all(t.dtype is torch.float32 and t.is_cpu for t in steps) else []]
        in_table += states + [[]] * (3 - len(states))
        for column, xs in zip(COLUMNS[2:6], _addresses(in_table), strict=True):
            self.table[column] = xs or [0] * self.table.count
        self._state, self._same_state = _addresses(lists), sameness(tensors)


def local(xs: list[Tensor]) -> list[Tensor]:
    """Of DTensors the rows that this process holds, where it holds them whole."""
    return xs if {*map(type, xs)} <= {*OWN_TYPES} else [local_rows(x) for x in xs]


def _addresses(lists: Iterable[list[Tensor]]) -> list[list[int]]:
    return [[x.data_ptr() for x in xs] for xs in lists]


def _readable(p: Tensor, g: Tensor) -> bool:
    """Whether a parameter is what its memory shows, and a gradient can be read beside it."""
    kinds = [(x.dtype, x.device, x.layout, type(x) in OWN_TYPES) for x in (p, g)]
    if kinds != [(p.dtype, p.device, torch.strided, True)] * 2:
        return False
    return has_memory(p) and not p.is_neg() and has_memory(materialized(g))


def _table(params: list[Tensor], use_gc: bool, gc_conv_only: bool) -> Table | None:
    """The table of parameters; None where elements or rows are no block of memory or overlap."""
    lengths = [_row_length(p.shape, p.stride(), use_gc, gc_conv_only) for p in params]
    blocks = sorted((p.data_ptr(), p.data_ptr() + p.nbytes) for p in params if p.numel())
    if None in lengths or any(end > start for (_, end), (start, _) in pairwise(blocks)):
        return None
    table = Table(len(params))
    table["p"] = [p.data_ptr() for p in params]
    table["size"] = [p.numel() for p in params]
    table["length"] = lengths
    table["type"] = [TYPES.index(p.dtype) for p in params]
    return table


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
