"""Builds core optimizers from Classy Vision configs: defaults, validation, schedules."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch.optim.optimizer import required
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from classy_gc.core import CentralizedOptimizer, RMSprop
from classy_gc.core._torch import local_tensor
from classy_gc.core.centralization import HALF
from classy_gc.core.memory import is_dense
from classy_gc.optim.resume import first_steps
from classy_gc.optim.scheduled_gc import ScheduledGC
from classy_gc.optim.stock import CLASSY_KEYS, SPEED_KEYS
from classy_gc.options import REQUIRED, Rule, check_known, check_options, rule_of, without_comments

# Useless in Classy Vision's training: CUDA graphs, and autograd through the step.
_LEFT_OUT = ("params", "capturable", "differentiable")
_IN_JSON = (bool, int, float, str, type(None), list, tuple, Mapping)


def constructor_options(cls: type) -> dict[str, tuple[Any, Rule]]:
    """The options of a constructor that a config can express: option: (default, rule).

    Args:
        cls: options without a default have :data:`classy_gc.options.REQUIRED`.

    Example:
        >>> default, rule = constructor_options(torch.optim.Adagrad)["lr_decay"]
        >>> default, rule.allowed
        (0, 'a number >= 0')
    """
    # A class may leave its constructor to the optimizer that it centralizes.
    cls = next(c for c in cls.__mro__ if "__init__" in vars(c) and c is not CentralizedOptimizer)
    options = {}
    for option in inspect.signature(cls).parameters.values():
        # Some packages still mark an option without a default by an object of torch.
        default = REQUIRED if option.default is required else option.default
        plain = option.kind not in (option.VAR_POSITIONAL, option.VAR_KEYWORD)
        if plain and (default is REQUIRED or isinstance(default, _IN_JSON)):
            options[option.name] = (default, rule_of(option.name, default))
    return options


def options_table(core_class: type, stands_for: type | None = None) -> dict[str, tuple[Any, Rule]]:
    """The options of an optimizer, in the order of its positional arguments.

    Args:
        core_class: the torch optimizer.
        stands_for: another class, whose options it has apart from the GC options and speed
            switches (default: None, the options of ``core_class``).
    """
    of_class = constructor_options(core_class)
    options = constructor_options(stands_for) if stands_for else of_class
    # One of torch's own classes is centralized after it is built.
    added = getattr(core_class, "added_defaults", CentralizedOptimizer.added_defaults)
    gc = {name: (default, rule_of(name, default)) for name, default in added.items()}
    speed = {name: of_class[name] for name in SPEED_KEYS if name in of_class}
    return {**{k: v for k, v in options.items() if k not in _LEFT_OUT}, **gc, **speed}


def _signature(options: Mapping[str, tuple[Any, Rule]]) -> inspect.Signature:
    return inspect.Signature(
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for name, (default, _) in options.items()
    )


def fused_supported(p: torch.Tensor) -> bool:
    """Whether torch's fused kernels can update ``p``.

    Before torch 2.14, its fused SGD on the CPU does not update most elements of half-precision
    parameters (https://github.com/pytorch/pytorch/issues/191763).

    Args:
        p: a parameter on the device where it is trained.

    Returns:
        True if it is real floating point, dense in memory, and its device has the kernels.

    Example:
        >>> fused_supported(torch.zeros(2, 3)), fused_supported(torch.zeros(2, 3).cfloat())
        (True, False)
    """
    skipped = torch.__version__ < (2, 14) and p.is_cpu and p.dtype in HALF
    x = local_tensor(p)
    return (
        p.is_floating_point()
        and p.device.type in _get_fused_kernels_supported_devices()
        and is_dense(x.shape, x.stride())
        and not skipped
    )


class ClassyGCOptimizer(ScheduledGC):
    """A Classy Vision optimizer that wraps one of :mod:`classy_gc.core`.

    A subclass names its ``core_class``. The options, their defaults and the values they accept are
    read from the constructor of that class, or of the stock class that it ``stands_for``.

    ParamSchedulers drive every numeric option and the GC options; a scheduled ``use_gc`` is on
    while its value is not zero. If the core optimizer has ``betas``, a schedule of ``momentum``
    drives ``betas[0]``.

    Args:
        *args, **options: see the subclass; positional arguments as in the stock class.

    Raises:
        ValueError: an unknown option, or a value out of range; the message has the value and what
            is allowed.

    Example:
        >>> from classy_gc.optim import SGDGC
        >>> optimizer = SGDGC(lr=0.5, use_gc=True)
        >>> weight = torch.nn.Parameter(torch.tensor([[1.0, 1.0]]))
        >>> optimizer.set_param_groups([weight])
        >>> (weight * torch.tensor([[1.0, 3.0]])).sum().backward()
        >>> optimizer.step(where=0.0)
        >>> weight.tolist(), optimizer.options_view.use_gc
        ([[1.5, 0.5]], True)
    """

    core_class: type[torch.optim.Optimizer]
    #: Classy Vision's class that gives the options, defaults and positional arguments
    stands_for: ClassVar[type | None] = None
    #: option: (default, rule), of all options
    OPTIONS: Mapping[str, tuple[Any, Rule]]
    #: defaults that differ between a JSON config and the constructor
    config_defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "core_class"):
            cls.OPTIONS = options_table(cls.core_class, cls.stands_for)
            cls.OPTIONS.pop("maximize", None)  # as in the stock optimizers
            cls.__signature__ = _signature(cls.OPTIONS)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__()
        label, cls = self.label(), self.core_class
        options = dict(**_signature(self.OPTIONS).bind_partial(*args).arguments, **options)
        left_out = constructor_options(cls).keys() - {*self.OPTIONS, *_LEFT_OUT}
        for name in options:
            if name in left_out:
                advice = f"'torch_gc' has it, with \"optimizer\": {cls.__name__!r}"
                raise ValueError(f"unknown key {name!r} in {label}; {advice}")
        check_known(options, [*CLASSY_KEYS, *self.OPTIONS], label)
        self._options = check_options(options, self.OPTIONS, label)
        for name, value in self._options.items():
            if isinstance(value, (list, tuple)):
                self._options[name] = tuple(map(float, value)) if name == "betas" else tuple(value)
        try:  # a class may refuse options that do not go together, or what a task gives it
            with torch.random.fork_rng(devices=[]):
                self._in_groups = first_steps(self).defaults.keys() - {*SPEED_KEYS}
        except Exception as error:  # of any kind
            raise ValueError(f"{label}: {error or type(error).__name__}") from error

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ClassyGCOptimizer":
        """Instantiates the optimizer from a configuration, which is not changed.

        Args:
            config: ``name``, the options of the class, and optionally ``param_schedulers``
                (option: ParamScheduler config) and ``num_epochs``, which the task adds.

        Raises:
            ValueError: an unknown key, a value out of range, or a schedule of an option that cannot
                be scheduled.
        """
        config = without_comments(config)
        options = {k: v for k, v in config.items() if k not in CLASSY_KEYS}
        return cls(**{**cls.config_defaults, **options}).keep_schedules(config)

    def _built(self, params: list[Any], options: dict[str, Any]) -> torch.optim.Optimizer:
        """The core optimizer."""
        return self.core_class(params, **options)

    def own_options(self) -> tuple[dict[str, Any], dict[str, Rule]]:
        rules = {name: rule for name, (_, rule) in self.OPTIONS.items() if name in self._in_groups}
        return dict(self._options), rules

    def torch_optimizer(self, param_groups: Any) -> torch.optim.Optimizer:
        options = dict(self._options)
        if options.get("fused", True) is None and not options["foreach"]:
            params = [p for group in param_groups for p in group["params"]]
            # torch has no fused RMSprop, and ours is for the CPU.
            ours = not issubclass(self.core_class, RMSprop) or all(p.is_cpu for p in params)
            options["fused"] = (ours and all(map(fused_supported, params))) or None
        return self._built(param_groups, options)
