"""How kernels step a parameter group; the next step reuses what it can."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from classy_gc.core._torch import OWN_TYPES, materialized, sameness
from classy_gc.core.centralization import ineligible_reason, local_rows
from classy_gc.core.kernels.table import Table
from classy_gc.core.kernels.update import Update
from classy_gc.core.memory import is_dense, laid_out_as, readable, shared_memory

_Group = dict[str, Any]


class Plan:
    """The kernel of a parameter group, and the table of its parameters.

    It holds no parameters or state, so that those no longer trained are freed.
    """

    def __init__(self) -> None:
        self.kernel: Any = None
        self.acts = False  # whether the step is more than the parent's
        self.table = Table([], [])
        self._options: _Group = {}
        self._switches: tuple[bool, ...] = ()
        self._same: Callable[..., bool] | None = None
        self._addresses: list[int] = []
        self._own: set[int] = set()
        self._same_state: Callable[..., bool] | None = None
        self._state: list[int] = []
        self._flags: set[str] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan, ()  # a copied optimizer begins anew

    def is_for(self, group: _Group) -> bool:
        """Whether all options but the learning rate are the same objects as before."""
        options = self._options
        return len(group) == len(options) + 2 and all(
            map(is_, map(group.get, options), options.values())
        )

    def adopt(self, group: _Group, kernel: Any) -> None:
        """Stores the options of a group, and the kernel for them."""
        self._options = {k: x for k, x in group.items() if k not in ("params", "lr")}
        self.acts = bool(group["use_gc"] or group.get("fused"))
        switches = bool(group["use_gc"]), bool(group["gc_conv_only"])
        if (kernel, switches) != (self.kernel, self._switches):
            self.kernel, self._switches, self._same = kernel, switches, None

    def pairs(self, group: _Group) -> tuple[list[Tensor], list[Tensor]] | None:
        """The parameters that have a gradient, and the gradients in the form that the kernel reads.

        None if the kernel cannot step the whole group: parameters and gradients must have the same
        type, be dense and local, have rows that are blocks of memory, and share no memory.

        Raises:
            ValueError: a gradient has another shape than its parameter.
        """
        if self.kernel is None:
            return None
        params, grads = [], []
        for p in group["params"]:
            g = p.grad
            if g is not None:
                params.append(p)
                grads.append(g)
        rows, grads = local(params), local(grads)
        if (
            self._same is None
            or len(rows) != self.table.count
            or not self._same(*rows, *grads)
            or [p.data_ptr() for p in rows] != self._addresses
        ):
            self._same, given = None, grads
            if not (all(map(_fits, rows, grads)) and self.kernel.usable(rows)):
                return None
            lengths = [row_length(p.shape, p.stride(), *self._switches) for p in rows]
            if None in lengths or shared_memory(rows):
                return None
            grads = [laid_out_as(p, materialized(g)) for p, g in zip(rows, grads, strict=True)]
            self.table, self._flags = Table(rows, lengths), None
            self._addresses = self.table["p"].tolist()
            self._own = {*self._addresses} - {0}
            if all(map(is_, grads, given)):
                self._same = sameness([*rows, *grads])
        addresses = [g.data_ptr() for g in grads]
        if not self._own.isdisjoint(addresses):
            return None  # a gradient that is itself a parameter
        self.table["g"] = addresses
        return params, grads

    def update(self, optimizer: Optimizer, group: _Group, params: list[Tensor]) -> Update | None:
        """Prepares the step of a group without taking it; None if there is no step to take.

        Raises:
            ValueError: the state of a parameter differs from it in shape, type or device.
        """
        # GradScaler sets both if it leaves unscaling and skipping to the step.
        scale = getattr(optimizer, "grad_scale", None)
        found_inf = getattr(optimizer, "found_inf", None)
        sign = -1.0 if group["maximize"] else 1.0
        if scale is not None:
            sign = sign / scale.double()
        if found_inf is not None:
            sign = sign * (found_inf == 0)
            # With dampening the first step differs, and skipped steps do not count as one.
            if (found_inf.is_cpu or group.get("dampening")) and not sign:
                return None
        update = optimizer.kernel_update(group, params)
        self._set_state(params, update)
        if update.new:
            self.table["new"] = update.new
        numbers = update.numbers
        numbers["sign"] = sign
        numbers.setdefault("lr", float(group["lr"]))
        update.flags.add("before" if group.get("gc_loc", True) else "after")
        return update

    def _set_state(self, params: list[Tensor], update: Update) -> None:
        tensors = local([x for xs in (update.steps, *update.state) for x in xs])
        addresses = [x.data_ptr() for x in tensors]
        unchanged = addresses == self._state and update.flags == self._flags
        if unchanged and (not tensors or self._same_state(*tensors)):
            return
        self._state, rows = [], local(params)
        for i in range(3):
            xs = local(update.state[i]) if i < len(update.state) else []
            for p, x in zip(rows if xs else (), xs, strict=True):
                wanted, kind = (f"{t.dtype} of shape {[*t.shape]} on {t.device}" for t in (p, x))
                if kind != wanted:
                    raise ValueError(f"a parameter is {wanted}, and its state {kind}")
                x.data = laid_out_as(p, materialized(x))
            self.table[f"state{i}"] = [x.data_ptr() for x in xs] or [0] * self.table.count
        self._state, self._flags = [x.data_ptr() for x in tensors], {*update.flags}
        # The kernel advances copies of step counts of other types.
        steps = tensors[: len(update.steps)]
        self.table.own_steps = all(t.dtype is torch.float32 and t.is_cpu for t in steps)
        self.table["step"] = self._state[: len(steps)] or [0] * self.table.count
        self._same_state = sameness(tensors)


def launch(updates: Sequence[tuple[Plan, Update]], first: Callable[[], None] | None = None) -> None:
    """Takes the steps of groups that :meth:`Plan.update` has prepared, after calling ``first``."""
    steps: dict[Any, list[tuple[Update, Table]]] = {}
    params: list[Tensor] = []
    for plan, update in updates:
        steps.setdefault(plan.kernel, []).append((update, plan.table))
        params += update.params
    for kernel in steps:
        kernel.launch(steps[kernel], first)
        first = None
    if first is not None:
        first()
    torch.autograd.graph.increment_version(params)


def local(xs: list[Tensor]) -> list[Tensor]:
    """The local rows of DTensors, where this process holds whole rows."""
    return xs if OWN_TYPES.issuperset(map(type, xs)) else [local_rows(x) for x in xs]


def _fits(p: Tensor, g: Tensor) -> bool:
    """Whether a kernel can read a gradient, perhaps a copy, beside its parameter."""
    return (p.dtype, p.device) == (g.dtype, g.device) and all(map(readable, (p, materialized(g))))


@lru_cache(maxsize=4096)
def row_length(
    shape: Sequence[int], stride: Sequence[int], use_gc: bool, gc_conv_only: bool
) -> int | None:
    """The length of a row: 0 if GC leaves it alone, None if it is not a block of memory."""
    if not is_dense(shape, stride):
        return None
    x = torch.empty(shape, device="meta")
    if ineligible_reason(x, use_gc=use_gc, gc_conv_only=gc_conv_only) is not None:
        return 0
    length = x.numel() // x.shape[0]
    return length if x.shape[0] == 1 or stride[0] == length else None
