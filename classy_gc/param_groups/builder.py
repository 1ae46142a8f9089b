"""The base class of builders of parameter groups, what they get, and their registry."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import nn

from classy_gc.options import BOOL, Rule, check_known, check_options, without_comments
from classy_gc.param_groups.multipliers import OptimizerOptions


class NamedParameter(NamedTuple):
    """A parameter and its place in the model."""

    prefix: str  #: full name of the module that holds it, "" for the model itself
    name: str  #: its name in that module
    parameter: nn.Parameter
    module: nn.Module  #: that module
    parents: tuple[nn.Module, ...]  #: of the module, from the model down

    @property
    def full_name(self) -> str:
        """As in ``model.named_parameters()``; parameters of the loss start with ``loss.``."""
        return f"{self.prefix}.{self.name}" if self.prefix else self.name


class ParamGroupBuilder(ABC):
    """Says which options of the optimizer differ for which parameter.

    Args:
        **options: by keyword, those in :attr:`OPTIONS`; they become attributes. Every builder has
            ``bypass_duplicate`` (bool): leave out the second occurrence of a shared parameter, with
            a warning, instead of raising an error (default: False).

    Raises:
        ValueError: an unknown option, or a value that its rule does not accept.
    """

    #: option: (default, rule)
    OPTIONS: ClassVar[dict[str, tuple[Any, Rule]]] = {"bypass_duplicate": (False, BOOL)}
    bypass_duplicate: bool
    #: the registered name
    name: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        vars(self).update(check_options(options, self.OPTIONS, self.label()))

    @classmethod
    def label(cls) -> str:
        """The name in messages."""
        return f"param_groups {vars(cls).get('name', cls.__name__)!r}"

    @abstractmethod
    def options(
        self, model: nn.Module, parameters: list[NamedParameter], optimizer: OptimizerOptions
    ) -> list[dict[str, Any]]:
        """Returns the options that differ for each parameter.

        Args:
            model: of the task.
            parameters: of model and loss, in the order of ``named_parameters()``, with frozen and
                shared ones, whose options are not used.
            optimizer: the options of the optimizer, and their rules.

        Returns:
            One dict per parameter. Options are numbers, bools or ParamSchedulers (built, or as a
            config). In addition, ``lr_mult`` multiplies ``lr`` and ``decay_mult`` multiplies
            ``weight_decay``, schedules included; ``bn_weight_decay`` (bool) replaces the task's.
        """


_Builder = TypeVar("_Builder", bound=type[ParamGroupBuilder])

PARAM_GROUP_BUILDER_REGISTRY: dict[str, type[ParamGroupBuilder]] = {}


def register_param_group_builder(name: str) -> Callable[[_Builder], _Builder]:
    """Registers a :class:`ParamGroupBuilder` subclass under its ``name`` in configs.

    Args:
        name: one that is not taken.

    Raises:
        ValueError: the name is taken.

    Example:
        >>> @register_param_group_builder("half_rate_for_vectors")
        ... class HalfRateForVectors(ParamGroupBuilder):
        ...     def options(self, model, parameters, optimizer):
        ...         return [{"lr_mult": 0.5} if p.parameter.ndim == 1 else {} for p in parameters]
        >>> build_param_group_builder({"name": "half_rate_for_vectors"}).bypass_duplicate
        False
        >>> del PARAM_GROUP_BUILDER_REGISTRY["half_rate_for_vectors"]
    """

    def register(cls: _Builder) -> _Builder:
        if name in PARAM_GROUP_BUILDER_REGISTRY:
            raise ValueError(f"param_groups {name!r} is {PARAM_GROUP_BUILDER_REGISTRY[name]}")
        PARAM_GROUP_BUILDER_REGISTRY[name] = cls
        cls.name = name
        return cls

    return register


def build_param_group_builder(config: Mapping[str, Any]) -> ParamGroupBuilder:
    """Builds the builder that the ``param_groups`` of an optimizer config describe.

    Args:
        config: ``name`` and the options of the builder; not changed. ``custom_imports`` of the task
            import a builder of your own.

    Raises:
        ValueError: no name, an unknown name, or an option that the builder refuses.

    Example:
        >>> build_param_group_builder({"name": "layer_decay", "decay": 0.75}).decay
        0.75
        >>> build_param_group_builder({"name": "layerdecay"})
        Traceback (most recent call last):
        classy_gc.options.OptionError: unknown name 'layerdecay' in param_groups, did you mean ...
    """
    if not isinstance(config, Mapping) or "name" not in config:
        raise ValueError(f"param_groups must be an object with a 'name', not {config!r}")
    options = without_comments(config)
    name = options.pop("name")
    check_known([name], sorted(PARAM_GROUP_BUILDER_REGISTRY), "param_groups", "name")
    return PARAM_GROUP_BUILDER_REGISTRY[name](**options)
