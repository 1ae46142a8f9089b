"""Binds gradient centralization to any torch optimizer class."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter, is_lazy
from torch.optim.optimizer import _device_dtype_check_for_fused
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from classy_gc.core import centralization
from classy_gc.core.centralization import (
    KernelBatch,
    batch_row_sums,
    in_batches,
    ineligible_reason,
    local_rows,
    shift_batch_rows_,
)
from classy_gc.core.row_blocks import RowBlocks, row_blocks

# What the docstrings of several optimizers say alike, written once. ``{key}`` in the
# docstring of a subclass stands for the value here.
_DOCS = {
    "params": """params (iterable): tensors, ``(name, tensor)`` pairs, or dicts of one parameter
            group each, whose other keys override the options below for that group""",
    "switches": """foreach (bool, optional): torch's multi-tensor implementation
            (default: None, which leaves the choice to torch)
        maximize (bool): maximize the objective (default: False)
        differentiable (bool): let autograd run through the step; cannot be combined with
            ``use_gc`` (default: False)
        fused (bool, optional): one fused kernel for the whole step, the fastest
            (default: None, which leaves the choice to torch)""",
    "gc": """use_gc (bool or float): centralize; a scheduled value may be a float, and
            truthiness decides (default: False)
        gc_conv_only (bool or float): leave tensors of up to three dimensions alone
            (default: False)""",
    "raises": """ValueError: an option is out of range, or cannot be combined with another.
        RuntimeError: at ``step``, a gradient that GC would act on is sparse.""",
    "note": """Rows are what the first index of a weight selects: one per output channel or
    unit. ``p.grad`` may be left centralized after ``step``. Tensors of fewer than two
    dimensions, and those whose rows hold one element, are trained without GC.""",
}


#: parameters and their gradients, for ``batch_row_sums``
_Batch = tuple[list[Tensor], list[Tensor]]
#: a kernel and its arguments, see ``_fused_parts``
_Part = tuple[Callable[..., Any], Sequence[list[Tensor]]]


class _Layout(NamedTuple):
    """What GC acts on in a group."""

    params: list[Tensor]
    batches: list[list[Tensor]]
    blocks: RowBlocks | None  # where the group is stepped block by block


def _with_gradients(batches: list[list[Tensor]]) -> list[_Batch]:
    # A KernelBatch brings its kernel along.
    return [
        (
            batch if isinstance(batch, KernelBatch) else [local_rows(p) for p in batch],
            [local_rows(p.grad) for p in batch],
        )
        for batch in batches
    ]


def _dense(x: Tensor) -> bool:
    """Whether the elements of ``x`` fill one block of memory, in whatever order."""
    x = getattr(x, "_local_tensor", x)  # of a DTensor, what this process holds
    return torch.empty_like(x, device="meta").stride() == x.stride()


def _check_dense(params: Iterable[Tensor]) -> None:
    if not all(map(_dense, params)):
        raise ValueError(
            "fused=True needs parameters whose elements fill one block of memory (torch's "
            "fused kernels read past them otherwise); got a strided view, use fused=False"
        )


def _laid_out_as(p: Tensor, x: Tensor) -> Tensor:
    """``x`` if it lies in memory as ``p`` does, else a copy that does."""
    if (x.is_contiguous() and p.is_contiguous()) or x.stride() == p.stride():
        return x
    return torch.empty_like(p, dtype=x.dtype).copy_(x)


#: torch optimizers whose decay is decoupled and whose groups do not say so
_DECOUPLED = ("Adafactor", "AdamW", "Muon")


def _decay_is_decoupled(cls: type) -> bool | None:
    """What the ``weight_decay`` of a torch class is; None of a class that torch does not ship."""
    for c in cls.__mro__:
        if f"{c.__module__}.".startswith("torch.optim.") and c is not torch.optim.Optimizer:
            return c.__name__ in _DECOUPLED
    return None


def _check_closure(cls: type[torch.optim.Optimizer]) -> None:
    closure = inspect.signature(cls.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{cls.__name__} cannot be centralized: its step takes several gradients from a closure"
        )


def check_flag(name: str, value: Any) -> None:
    """Refuses what is neither a bool nor a number, a scheduled value.

    Raises:
        ValueError: naming the option and the value.

    Example:
        >>> check_flag("use_gc", "yes")
        Traceback (most recent call last):
        ValueError: Invalid use_gc value: 'yes', must be a bool or a number
    """
    if not isinstance(value, (bool, int, float)):
        raise ValueError(f"Invalid {name} value: {value!r}, must be a bool or a number")


def fused_supported(p: Tensor) -> bool:
    """Whether torch's fused kernels can update ``p``.

    Args:
        p: a parameter, on the device it is trained on.

    Returns:
        True if it is real floating point, dense in memory, and its device has the kernels.

    Example:
        >>> fused_supported(torch.zeros(2, 3)), fused_supported(torch.zeros(2, 3).cfloat())
        (True, False)
    """
    return (
        p.is_floating_point()
        and p.device.type in _get_fused_kernels_supported_devices()
        and _dense(p)
        and not skipped_by_fused_sgd(p)
    )


def skipped_by_fused_sgd(p: Tensor) -> bool:
    """Whether torch's fused SGD leaves most elements of ``p`` as they are, an error of torch's.

    Source: https://github.com/pytorch/pytorch/issues/191763, mended in torch 2.14.

    Args:
        p: a parameter, on the device it is trained on.

    Example:
        >>> skipped_by_fused_sgd(torch.zeros(64))
        False
    """
    return torch.__version__ < (2, 14) and p.is_cpu and p.dtype in (torch.half, torch.bfloat16)


def check_fused(group: dict[str, Any]) -> None:
    """Refuses ``fused=True`` for parameters that torch's kernels cannot update.

    For classes whose torch parent knows no ``fused`` and therefore does not check.

    Args:
        group: with ``params`` and ``fused``.

    Raises:
        RuntimeError: as torch's own, naming what the kernels need.

    Example:
        >>> check_fused({"fused": True, "params": [torch.zeros(2).cfloat()]})
        Traceback (most recent call last):
        RuntimeError: `fused=True` requires all the params to be floating point Tensors of ...
    """
    if group["fused"]:
        for p in group["params"]:
            if not is_lazy(p):
                _device_dtype_check_for_fused(p)


class CentralizedOptimizer(torch.optim.Optimizer):
    """Gradient centralization for the ``torch.optim.Optimizer`` class named after it.

    Subclass it together with the optimizer to be centralized; nothing else is needed::

        class NAdam(CentralizedOptimizer, torch.optim.NAdam): ...

    The update itself stays the parent's, fused and foreach kernels included, because GC can
    be written around it exactly:

    * before the moments, ``C(g + wd·p) = (g − μ(g + wd·p)) + wd·p``: the rows of the
      gradient are shifted, and the parent goes on adding ``wd·p`` itself;
    * after them, ``p − lr·C(u) = p′ − (μ(p′) − μ(p))`` with ``p′ = p − lr·u`` the parent's
      step: the row means are put back.

    Args:
        params (iterable): as for the parent class.
        *args, **kwargs: options of the parent class, with its defaults.
        use_gc (bool or float): centralize (default: False).
        gc_conv_only (bool or float): only tensors of more than three dimensions
            (default: False).
        gc_loc (bool or float): GC acts on the gradient, L2 decay included, before any
            moment; otherwise on the final update, decay of any kind included
            (default: False; a subclass may set another).

    All three live in the parameter groups, as ``lr`` does: they may differ between groups,
    be changed between steps, and are part of ``state_dict()``.

    Raises:
        ValueError: an option is not a bool or number, or ``use_gc`` is combined with
            ``differentiable``.
        RuntimeError: at ``step``, a gradient that GC would act on is sparse.

    Example:
        >>> class NAdam(CentralizedOptimizer, torch.optim.NAdam): ...
        >>> weight = torch.nn.Parameter(torch.ones(2, 3))
        >>> optimizer = NAdam([weight], lr=0.1, use_gc=True)
        >>> weight.grad = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
        >>> optimizer.step()
        >>> weight.data.mean(dim=1)  # GC keeps the row means where they were
        tensor([1., 1.])
    """

    #: options this project adds to the parent's, with their defaults
    added_defaults: ClassVar[dict[str, Any]] = {
        "use_gc": False,
        "gc_conv_only": False,
        "gc_loc": False,
    }

    #: what the parent's ``weight_decay`` is, where its groups do not say: True if it acts on
    #: the weights, False if it is L2, through the gradient. Known for torch's own classes.
    decoupled_weight_decay: ClassVar[bool | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        parent = next(c for c in cls.__mro__ if not issubclass(c, CentralizedOptimizer))
        if cls.decoupled_weight_decay is None:
            cls.decoupled_weight_decay = _decay_is_decoupled(parent)
        for key, text in _DOCS.items():
            if cls.__doc__:
                cls.__doc__ = cls.__doc__.replace(f"{{{key}}}", text)
        # help() and inspect show the parent's options and the added ones.
        if "__init__" in vars(cls):
            cls.__signature__ = inspect.Signature(
                list(inspect.signature(cls.__init__).parameters.values())[1:]
            )
        else:
            options = dict(inspect.signature(parent).parameters)
            for name, default in cls.added_defaults.items():
                options[name] = inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default
                )
            cls.__signature__ = inspect.Signature(sorted(options.values(), key=lambda o: o.kind))

    def __init__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        # The parent fixes what goes into ``defaults`` and calls add_param_group from its
        # own constructor, which then finds the added options here.
        self._added = {k: kwargs.pop(k, v) for k, v in self.added_defaults.items()}
        _check_closure(
            next(c for c in type(self).__mro__ if not issubclass(c, CentralizedOptimizer))
        )
        super().__init__(params, *args, **kwargs)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        for name, value in vars(self).get("_added", {}).items():
            self.defaults.setdefault(name, value)
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
        except Exception:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict[str, Any]) -> None:
        """Refuses options and parameters that a new group must not have."""
        self._check_options(group)
        params = [p for p in group["params"] if not is_lazy(p)]
        if group["use_gc"]:
            self._check_rows(params)
        if group.get("fused"):
            _check_dense(params)

    def _check_options(self, options: dict[str, Any]) -> None:
        for name in CentralizedOptimizer.added_defaults:
            if name in options:
                if name not in self.added_defaults:
                    raise ValueError(
                        f"{type(self).__name__} has no option {name} (got {options[name]!r})"
                    )
                check_flag(name, options[name])
        if not options["use_gc"]:
            return
        if options.get("differentiable"):
            raise ValueError(
                "use_gc=True cannot be combined with differentiable=True: GC works in place, "
                "outside autograd"
            )
        decoupled = options.get("decoupled_weight_decay", self.decoupled_weight_decay)
        if options.get("gc_loc", True) and options.get("weight_decay") and decoupled is None:
            raise ValueError(
                f"gc_loc=True needs to know what the weight_decay of {type(self).__name__} is: say "
                "decoupled_weight_decay=True (it acts on the weights) or False (L2, through the "
                "gradient)"
            )

    def _check_rows(
        self,
        params: list[Tensor],
        needs: str = "with use_gc=True needs the rows of a weight",
        remedy: str = ", or set use_gc=False",
    ) -> None:
        for p in params:
            if "FlatParameter" in type(p).__name__ or getattr(p, "_fsdp_flattened", False):
                raise RuntimeError(
                    f"{type(self).__name__} {needs}, and FSDP1 flattens them away (parameter of "
                    f"shape {list(p.shape)}); shard the model with "
                    f"torch.distributed.fsdp.fully_shard{remedy}"
                )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; a state saved by the torch class keeps this optimizer's GC options.

        Args:
            state_dict: what ``state_dict()`` of this class or of its torch parent returned.

        Raises:
            ValueError: the parameter groups differ in number or size.
        """
        added = [{k: g[k] for k in self.added_defaults} for g in self.param_groups]
        super().load_state_dict(state_dict)
        for group, options in zip(self.param_groups, added, strict=True):
            for name, value in options.items():
                group.setdefault(name, value)
        self.__dict__.pop("_forms", None)

    def _follow_parameters(self) -> None:
        """Starts a group anew whose parameters lie in memory otherwise than at its last step.

        Between steps ``p.data`` may be given another layout, dtype or shape, and a group other
        parameters, another state or ``fused``. What is cached of the old ones goes, and moments
        are laid out as their parameters, which fused kernels take for granted.
        """
        known = self.__dict__.get("_forms", {})
        self._forms: dict[int, tuple[Any, dict[Any, _Layout]]] = {}
        for group in self.param_groups:
            fused = bool(group.get("fused"))
            if not (fused or group["use_gc"]):
                continue
            # A lazy parameter has no shape yet; is_lazy would take longer than all the rest.
            params = [p for p in group["params"] if type(p) is not UninitializedParameter]
            form = (
                fused,
                list(map(id, params)),
                [p.shape for p in params],
                [p.stride() for p in params],
                [p.dtype for p in params],
            )
            if id(group) not in known or known[id(group)][0] != form:
                known[id(group)] = form, {}
                if fused:
                    _check_dense(params)
                    for p in params:
                        state = self.state.get(p, {})
                        for name, value in state.items():
                            if isinstance(value, Tensor) and value.shape == p.shape:
                                state[name] = _laid_out_as(p, value)
            self._forms[id(group)] = known[id(group)]

    def _layout(self, group: dict[str, Any], params: list[Tensor]) -> _Layout:
        """What GC acts on among ``params``, all of them with a gradient, and in what portions."""
        # Finding it anew each step would cost more than the update of many tiny tensors.
        switches = tuple(bool(group.get(k)) for k in ("use_gc", "gc_conv_only", "fused"))
        key = (switches, *map(id, params))
        _, cache = self._forms[id(group)]
        if key not in cache:
            use_gc, gc_conv_only, fused = switches
            if use_gc:
                self._check_rows(params)
            eligible = dict.fromkeys(  # torch lets a group hold a parameter twice
                p
                for p in params
                if ineligible_reason(p, use_gc=use_gc, gc_conv_only=gc_conv_only) is None
            )
            plain = all(type(p) in (Tensor, torch.nn.Parameter) and p.is_cpu for p in params)
            has_parts = type(self)._fused_parts is not CentralizedOptimizer._fused_parts
            blocks = None
            if params and fused and has_parts and plain and not centralization.TRITON:
                blocks = row_blocks(params, eligible)
            if len(cache) > 8:  # of parameters that take turns in having gradients
                cache.clear()
            cache[key] = _Layout(params, in_batches(eligible), blocks)
        return cache[key]

    def _plan(self, group: dict[str, Any]) -> _Layout | None:
        """What GC does to a group in this step; refuses what it cannot do."""
        self._check_options(group)
        if not group["use_gc"]:
            return None
        layout = self._layout(group, [p for p in group["params"] if p.grad is not None])
        for batch in layout.batches:
            for p in batch:
                if p.grad.layout != torch.strided:
                    raise RuntimeError(
                        f"{type(self).__name__} with use_gc=True does not support sparse gradients "
                        f"(shape {list(p.shape)}); set use_gc=False for its parameter group"
                    )
        return layout

    def _lay_out_gradients(self) -> None:
        """Replaces gradients that cannot be worked on in place as they lie in memory.

        Autograd makes none of them; a user who sets ``p.grad`` may. Fused kernels need a
        gradient that lies as its parameter does (torch's CPU kernels would pair its elements
        with the wrong weights), GC one whose elements do not share memory.
        """
        for group in self.param_groups:
            as_parameter = group.get("fused") or centralization.TRITON
            if not (as_parameter or group["use_gc"]):
                continue
            for p in group["params"]:
                g = p.grad
                if g is None or g.layout != torch.strided:
                    continue
                # Looking up a missing attribute is slow, so not on a plain tensor.
                if (
                    type(g) is not Tensor
                    and hasattr(g, "placements")
                    and g.placements != p.placements
                ):
                    # Autograd leaves sums of replicated weights to whoever reads them.
                    g = p.grad = g.redistribute(placements=p.placements)
                if as_parameter:
                    laid_out = _laid_out_as(p, g)
                    if laid_out is not g:
                        p.grad = laid_out
                elif 0 in g.stride():
                    p.grad = g.contiguous()

    def _transform_gradients(self) -> None:
        """What a subclass does to the gradients before GC sees them; nothing here."""

    def _centralize_gradients(self, group: dict[str, Any], batches: list[_Batch]) -> None:
        """Shifts the rows of the gradients so that the update's ``g + wd·p`` is centralized."""
        decoupled = group.get("decoupled_weight_decay", self.decoupled_weight_decay)
        wd = 0 if decoupled else group.get("weight_decay", 0)
        if group.get("maximize"):
            wd = -wd  # the update negates the gradient: μ(−g + wd·p) = −μ(g − wd·p)
        # GradScaler sets grad_scale where the fused kernel is to unscale the gradient itself.
        scale = getattr(self, "grad_scale", None)
        for params, grads in batches:
            if isinstance(params, KernelBatch):
                params.kernel.centralize_(grads, params if wd else (), float(wd), scale)
                continue
            if wd:
                # The gradient is read last, so that the shift finds it in cache.
                sums = batch_row_sums(params)
                sums.mul_(wd if scale is None else wd * scale.to(sums.device))
                sums.add_(batch_row_sums(grads))
            else:
                sums = batch_row_sums(grads)
            shift_batch_rows_(grads, sums)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform a single optimization step, centralized where the groups say so.

        Args:
            closure (callable, optional): reevaluates the model and returns the loss; called
                once, with gradients enabled, before anything is centralized.

        Returns:
            What ``closure`` returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Everything that can be refused is refused before any value is changed.
        self._follow_parameters()
        plan = [(group, self._plan(group)) for group in self.param_groups]
        self._lay_out_gradients()
        self._transform_gradients()
        self._centralized_update(plan)
        return loss

    def _centralized_update(self, plan: list[tuple[dict[str, Any], _Layout | None]]) -> None:
        """The update of every group, with GC around it."""
        whole = [(group, layout) for group, layout in plan if not (layout and layout.blocks)]
        if whole:
            groups = [group for group, _ in whole]
            batches = [(g, _with_gradients(layout.batches)) for g, layout in whole if layout]
            self._around(batches, lambda: self._update(groups))
        for group, layout in plan:
            if not (layout and layout.blocks):
                continue
            for kernel, tensors in self._fused_parts(group):
                whole = len(tensors[0]) == len(layout.params)
                part = layout if whole else self._layout(group, tensors[0])
                pieces = list(map(part.blocks.cut, tensors))
                for block in part.blocks.blocks:
                    args = [xs[block.pieces] for xs in pieces]
                    params, grads = args[:2]
                    batches = [
                        ([params[j] for j in batch], [grads[j] for j in batch])
                        for batch in block.batches
                    ]
                    self._around([(group, batches)], functools.partial(kernel, *args))

    def _around(
        self, groups: list[tuple[dict[str, Any], list[_Batch]]], update: Callable[[], Any]
    ) -> None:
        """GC before or after the moments, as each group says; ``update`` steps its tensors."""
        after = []
        for group, batches in groups:
            if group.get("gc_loc", True):
                self._centralize_gradients(group, batches)
            else:
                after += [(params, batch_row_sums(params)) for params, _ in batches]
        update()
        for params, sums in after:
            if isinstance(params, KernelBatch):
                params.kernel.restore_(params, sums)
            else:
                shift_batch_rows_(params, batch_row_sums(params).sub_(sums))

    def _fused_parts(self, group: dict[str, Any]) -> Iterable[_Part]:
        """The update of a group on torch's fused kernels, for a subclass that knows it.

        Yields:
            A kernel, and the lists of tensors that go with each other one by one and that it
            steps, or any rows of them: parameters, gradients, moments. Together the parts
            hold every parameter that has a gradient.
        """
        raise NotImplementedError

    def _update(self, groups: list[dict[str, Any]]) -> None:
        """The parent's own step on these groups, without the hooks: torch wraps ``step`` of
        every class it instantiates in code that runs them, and this class's ``step`` is wrapped
        already.
        """
        if not groups:
            return
        step = super().step.__func__
        all_groups, self.param_groups = self.param_groups, groups
        try:
            (step.__wrapped__ if getattr(step, "hooked", False) else step)(self)
        finally:
            self.param_groups = all_groups

    def _fused_update(self, group: dict[str, Any], in_blocks: bool = False) -> None:
        """All parts of a group, without GC; in blocks if the kernels need scratch memory."""
        for kernel, tensors in self._fused_parts(group):
            if not tensors[0]:
                continue
            blocks = self._layout(group, tensors[0]).blocks if in_blocks else None
            if blocks is not None:
                pieces = list(map(blocks.cut, tensors))
                for block in blocks.blocks:
                    kernel(*(xs[block.pieces] for xs in pieces))
                continue
            # torch's kernels want one device and dtype.
            by_kind = self._group_tensors_by_device_and_dtype(list(tensors))
            for lists, _ in by_kind.values():
                kernel(*lists)

    def _scaling(self, device: torch.device) -> dict[str, Tensor | None]:
        """What GradScaler tells the fused kernels, if it does."""
        scaling = {name: getattr(self, name, None) for name in ("grad_scale", "found_inf")}
        return {k: x if x is None else x.to(device) for k, x in scaling.items()}


class _CentralizedInstance(CentralizedOptimizer):
    """What :func:`centralize_optimizer` makes of the class of an optimizer that exists."""

    added_defaults: ClassVar = {
        **CentralizedOptimizer.added_defaults,
        "decoupled_weight_decay": None,
    }
    _parent: ClassVar[type[torch.optim.Optimizer]]

    def __reduce__(self) -> tuple[Any, ...]:
        # pickle cannot import a class that was made at run time.
        return _new_instance, (self._parent,), self.__getstate__()


@functools.cache
def _centralized_class(cls: type[torch.optim.Optimizer]) -> type[_CentralizedInstance]:
    return type(cls)(
        f"Centralized{cls.__name__}", (_CentralizedInstance, cls), {"_parent": cls, "__doc__": None}
    )


def _new_instance(cls: type[torch.optim.Optimizer]) -> _CentralizedInstance:
    return object.__new__(_centralized_class(cls))


def centralize_optimizer(
    optimizer: torch.optim.Optimizer,
    *,
    use_gc: bool | float = True,
    gc_conv_only: bool | float = False,
    gc_loc: bool | float = False,
    decoupled_weight_decay: bool | None = None,
) -> torch.optim.Optimizer:
    """Gradient centralization for an optimizer that exists, of whatever class.

    The optimizer stays the same object, with its state, groups and hooks; its class becomes
    a subclass of its own and of :class:`CentralizedOptimizer`.

    Args:
        optimizer (torch.optim.Optimizer): one whose ``step`` needs no closure.
        use_gc (bool or float): centralize (default: True)
        gc_conv_only (bool or float): leave tensors of up to three dimensions alone
            (default: False)
        gc_loc (bool or float): centralize the gradient, with the group's ``weight_decay`` if
            that is L2 decay, instead of the update, which holds whatever the optimizer did
            to the weights (default: False)
        decoupled_weight_decay (bool, optional): the optimizer's ``weight_decay`` acts on the
            weights, not through the gradient; only needed with ``gc_loc`` for classes that
            torch does not ship (default: None, known for those that it does)

    A parameter group that has one of these keys already keeps its value.

    Returns:
        ``optimizer`` itself.

    Raises:
        TypeError: not a ``torch.optim.Optimizer``, or centralized already.
        ValueError: an option is out of range, or the optimizer cannot be centralized.

    Source: Yong et al., *Gradient Centralization*, ECCV 2020,
    https://arxiv.org/abs/2004.01461.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer = centralize_optimizer(torch.optim.Adagrad([weight], lr=0.5))
        >>> (weight * torch.tensor([[-1.0, 3.0]])).sum().backward()
        >>> optimizer.step()
        >>> weight.tolist()
        [[1.5, 0.5]]
    """
    cls = type(optimizer)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, not {cls.__name__}")
    if isinstance(optimizer, CentralizedOptimizer):
        raise TypeError(f"{cls.__name__} centralizes already: set its use_gc")
    if "step" in vars(optimizer):
        raise ValueError(
            f"the step of this {cls.__name__} was replaced, by a learning-rate scheduler perhaps: "
            "centralize the optimizer first"
        )
    _check_closure(cls)
    if decoupled_weight_decay is None:
        decoupled_weight_decay = _decay_is_decoupled(cls)
    added = {
        "use_gc": use_gc,
        "gc_conv_only": gc_conv_only,
        "gc_loc": gc_loc,
        "decoupled_weight_decay": decoupled_weight_decay,
    }
    optimizer.__class__ = _centralized_class(cls)
    try:
        for group in optimizer.param_groups:
            optimizer._check_group({**added, **group})
    except Exception:
        optimizer.__class__ = cls
        raise
    for options in (optimizer.defaults, *optimizer.param_groups):
        for name, value in added.items():
            options.setdefault(name, value)
    optimizer._patch_step_function()
    return optimizer
