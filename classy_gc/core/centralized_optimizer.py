"""One step of an optimizer with gradient centralization, and its options."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from classy_gc.core import _torch, options
from classy_gc.core.around_update import check_gradients, update_around
from classy_gc.core.kernels.pick import pick
from classy_gc.core.kernels.plan import Plan, launch
from classy_gc.core.kernels.update import UPDATES
from classy_gc.core.memory import check_dense, lay_out_state


class CentralizedOptimizer(torch.optim.Optimizer):
    """Adds gradient centralization to the ``torch.optim.Optimizer`` that is its next base class.

    Subclass it together with the optimizer; nothing else is needed::

        class NAdam(CentralizedOptimizer, torch.optim.NAdam): ...

    The update itself stays the parent's, fused and foreach kernels included, because GC around it
    is exact:

    * before the moments, ``C(g + wd·p) = (g − μ(g + wd·p)) + wd·p``: the rows of the gradient are
      shifted in place, and the parent still adds ``wd·p`` itself;
    * after them, ``p − lr·C(u) = p′ − (μ(p′) − μ(p))`` where ``p′ = p − lr·u`` is the parent's
      step: the row means are put back.

    The optimizers of :mod:`classy_gc.core` also have kernels, which do both in one pass over
    memory; :meth:`step_paths` says where.

    Args:
        params (iterable): as for the parent class.
        *args, **kwargs: options of the parent class, with its defaults.
        use_gc (bool or float): centralize, if not zero (default: False)
        gc_conv_only (bool or float): only tensors of four dimensions or more (default: False)
        gc_loc (bool or float): GC acts on the gradient, L2 decay included, before any moment;
            otherwise on the final update, decay of any kind included (default: False)

    All three live in the parameter groups, as ``lr`` does: they may differ between groups and
    change between steps, and they are part of ``state_dict()``.

    Raises:
        ValueError: an option is out of range, or cannot be combined with another.
        RuntimeError: at ``step``, a gradient that GC would act on is sparse.

    Example:
        >>> class NAdam(CentralizedOptimizer, torch.optim.NAdam): ...
        >>> weight = torch.nn.Parameter(torch.ones(2, 3))
        >>> optimizer = NAdam([weight], lr=0.1, use_gc=True)
        >>> weight.grad = torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
        >>> optimizer.step()
        >>> weight.data.mean(dim=1)  # GC keeps the row means
        tensor([1., 1.])
    """

    #: options added to the parent's, with their defaults
    added_defaults: ClassVar = {"use_gc": False, "gc_conv_only": False, "gc_loc": False}
    #: those of them that must be at least 0
    non_negative: ClassVar[tuple[str, ...]] = ()

    #: what the parent's ``weight_decay`` is, if its groups do not say: True if it acts on the
    #: weights, False if it is L2, through the gradient. Known for torch's own classes.
    decoupled_weight_decay: ClassVar[bool | None] = None

    #: ``(optimizer, group, params) → Update`` if :mod:`classy_gc.core.kernels` knows the class, as
    #: it does torch's SGD, Adams, RAdam, RMSprop and Adagrad
    kernel_update: ClassVar[Callable[..., Any] | None] = None
    #: whether ``fused`` means those kernels also with GC off: torch has none for the class
    kernel_without_gc: ClassVar[bool] = False

    #: how the kernels step each group
    _plans: Sequence[Plan] = ()

    #: the optimizer class whose methods GC wraps
    _parent: ClassVar[type[torch.optim.Optimizer]] = torch.optim.Optimizer

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._parent = next(c for c in cls.__mro__ if not issubclass(c, CentralizedOptimizer))
        if cls.decoupled_weight_decay is None:
            cls.decoupled_weight_decay = options.decay_is_decoupled(cls._parent)
        own_update = cls.update_without_gc is not CentralizedOptimizer.update_without_gc
        if cls.kernel_update is None and not own_update:
            cls.kernel_update = UPDATES.get(cls._parent)

    def __init__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        # The parent's constructor calls add_param_group, which reads the added options here.
        self._added = {k: kwargs.pop(k, v) for k, v in self.added_defaults.items()}
        options.check_closure(self._parent)
        super().__init__(params, *args, **kwargs)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; options out of range or in conflict raise a ValueError."""
        self.defaults.update({**getattr(self, "_added", {}), **self.defaults})
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if "betas" in self.defaults:  # a weights-only load refuses OmegaConf's lists
            self.defaults["betas"] = tuple(self.defaults["betas"])
            group["betas"] = tuple(group["betas"])
        try:
            self.check_group(group)
            for name in self.added_defaults:
                if hasattr(group[name], "item"):  # NumPy's, which a weights-only load refuses
                    group[name] = group[name].item()
        except Exception:
            self.param_groups.pop()
            raise

    def check_group(self, group: dict[str, Any]) -> None:
        """Checks the options and parameters of a new group.

        Args:
            group: with all options, defaults included.

        Raises:
            ValueError: with the option, its value, and what is allowed.
            RuntimeError: FSDP1 has flattened the rows, or no fused kernel takes a parameter.
        """
        self._check_options(group)
        pick(self, group)  # which refuses an unknown CLASSY_GC_KERNELS
        if group["use_gc"]:
            self._check_rows(group["params"])
        if group.get("fused"):
            check_dense(group["params"])
            if self.kernel_without_gc:
                for p in group["params"]:
                    _torch.check_fused(p)

    def _check_options(self, group: dict[str, Any]) -> None:
        """Checks the options of a group, which a schedule may have changed since the last step."""
        cls = type(self).__name__
        for name, default in {**CentralizedOptimizer.added_defaults, **self.added_defaults}.items():
            value = group.get(name, False)
            if name in group and name not in self.added_defaults:
                raise ValueError(f"{cls} has no option {name} (got {value!r})")
            # A schedule may give a number; NumPy's bool is not a Real.
            number = isinstance(value, Real) or type(value).__name__ in ("bool", "bool_")
            if isinstance(default, bool) and not (number and value == value):  # no NaN
                raise ValueError(f"Invalid {name} value: {value!r}, must be a bool or a number")
            if name in self.non_negative and not value >= 0:
                raise ValueError(f"Invalid {name} value: {value!r}, must be >= 0")
        if self.kernel_without_gc and group["fused"]:
            for name in ("foreach", "differentiable", "capturable"):
                if group[name]:
                    raise ValueError(f"fused=True cannot be combined with {name}=True in {cls}")
        if group["use_gc"] and group.get("differentiable"):
            reason = "GC works in place, outside autograd"
            raise ValueError(f"use_gc=True cannot be combined with differentiable=True: {reason}")
        decoupled = group.get("decoupled_weight_decay", self.decoupled_weight_decay)
        on_gradient = group["use_gc"] and group.get("gc_loc", True)
        if on_gradient and group.get("weight_decay") and decoupled is None:
            raise ValueError(
                f"gc_loc=True needs to know what the weight_decay of {cls} is: say "
                "decoupled_weight_decay=True (on the weights) or False (L2, through the gradient)"
            )

    def _check_rows(self, params: list[Tensor]) -> None:
        for p in params:
            if _torch.is_flattened(p):
                raise RuntimeError(
                    f"{type(self).__name__} needs whole weights, which FSDP1 flattens (shape "
                    f"{list(p.shape)}): shard the model with torch.distributed.fsdp.fully_shard"
                )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a state from ``load_state_dict`` or a pickle."""
        if "param_groups" in vars(self):  # not unpickled
            torchs = options.is_torchs(self._parent)
            options.check_moments(self.param_groups, state["state"], torchs)
            options.take_gc_options(self, state["param_groups"])
        super().__setstate__(state)
        for p, tensors in self.state.items():
            if isinstance(p, Tensor) and not _torch.is_uninitialized(p):
                lay_out_state(p, tensors.values())

    def step_paths(self) -> list[str]:
        """How the next step of each parameter group will be computed, as far as its options tell.

        Example:
            >>> from classy_gc.core import Adam
            >>> weight = torch.nn.Parameter(torch.ones(2, 3))
            >>> Adam([weight], use_gc=True, foreach=False).step_paths()
            ["GC around torch's own step: foreach is set"]
        """
        paths = []
        for group in self.param_groups:
            _, reason = pick(self, group)
            around = f"GC around torch's own step: {reason}" if reason else "one pass"
            paths.append(around if group["use_gc"] or not reason else "torch's own step")
        return paths

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Performs a single optimization step, centralized where the groups say so.

        Args:
            closure (callable, optional): reevaluates the model and returns the loss, which ``step``
                returns too; called once, with gradients enabled, before anything is centralized.
        """
        grad_enabled = torch.is_grad_enabled()
        try:
            # As in torch's own steps: dynamo does not compile this, but compiles the functions it
            # calls.
            torch._dynamo.graph_break()
            _torch.set_grad_enabled(False)
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            if not self._update_groups():
                self.update_without_gc(self.param_groups)  # which torch.compile traces
            return loss
        finally:
            _torch.set_grad_enabled(grad_enabled)

    @_torch.uncompiled
    def _update_groups(self) -> bool:
        """Steps all groups, or returns False if that takes only the parent's own step.

        All checks come before any value is changed. Torch's own step may still refuse a group: then
        those of the kernels have not moved.
        """
        if len(self._plans) != len(self.param_groups):
            self._plans = [Plan() for _ in self.param_groups]
        groups = list(zip(self.param_groups, self._plans, strict=True))
        for group, plan in groups:
            if not plan.is_for(group):
                self._check_options(group)
                plan.adopt(group, pick(self, group)[0])
        if not any(plan.acts for plan in self._plans):
            return False
        around, others = [], []
        for group, plan in groups:
            pairs = plan.pairs(group)
            if pairs is None:
                around.append(group)
            else:
                others.append((group, plan, pairs))
        eligible = check_gradients(self, around) if around else []
        updates = [(plan, plan.update(self, group, pairs[0])) for group, plan, pairs in others]
        # Torch's own step comes first, for it may still raise an error.
        first = partial(update_around, self, around, eligible) if around else None
        launch([(plan, update) for plan, update in updates if update is not None], first)
        return True

    def update_without_gc(self, groups: list[dict[str, Any]]) -> None:
        """The parent's own step on these groups, without its hooks, which run around ``step``."""
        all_groups = self.param_groups
        splits = [split for group in groups for split in self._split(group)]
        whole = groups is all_groups and len(splits) == len(groups)
        try:
            if not whole:  # torch 2.9 cannot compile a change of the attribute
                self.param_groups = splits
            _torch.unhooked(self._parent.step)(self)
        finally:
            if not whole:
                self.param_groups = all_groups

    def _split(self, group: dict[str, Any]) -> Iterable[dict[str, Any]]:
        """The groups that the parent's step gets for a group."""
        return [group]
