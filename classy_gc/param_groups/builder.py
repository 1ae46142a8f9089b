"""What a builder of parameter groups is given, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import nn

from classy_gc.options import BOOL, Rule, check_options


class NamedParameter(NamedTuple):
    """A parameter and where it stands."""

    prefix: str  #: full name of the module that holds it, "" for the model itself
    name: str  #: its name in that module
    parameter: nn.Parameter
    module: nn.Module  #: which holds it
    parents: tuple[nn.Module, ...]  #: of the module, from the model down

    @property
    def full_name(self) -> str:
        """As in ``model.named_parameters()``; what is the loss's starts with ``loss.``."""
        return f"{self.prefix}.{self.name}" if self.prefix else self.name


class GroupOptions(Protocol):
    """What a builder can ask of an optimizer; :class:`OptimizerOptions` answers."""

    values: dict[str, Any]  #: of each option, where a group does not give it
    rules: dict[str, Rule]  #: what each option accepts

    def require(self, multiplier: str, label: str) -> None:
        """Refuses a multiplier of an option that the optimizer does not have."""

    def check(self, options: Mapping[str, Any], label: str) -> None:
        """Refuses options that the optimizer does not have, and values that they do not accept."""


class ParamGroupBuilder(ABC):
    """Says which options of the optimizer differ for which parameter.

    Args:
        **options: by keyword; those of :attr:`OPTIONS`, each an attribute afterwards.
            ``bypass_duplicate`` (bool) is every builder's: leave out, with a warning, a shared
            parameter the second time, which is an error otherwise (default: False).

    Raises:
        ValueError: an unknown option, or a value that its rule does not accept.
    """

    #: option: (default, rule)
    OPTIONS: ClassVar[dict[str, tuple[Any, Rule]]] = {"bypass_duplicate": (False, BOOL)}
    bypass_duplicate: bool
    #: under which it is registered
    name: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        vars(self).update(check_options(options, self.OPTIONS, self.label()))

    @classmethod
    def label(cls) -> str:
        """For messages."""
        return f"param_groups {vars(cls).get('name', cls.__name__)!r}"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ParamGroupBuilder:
        """Instantiates the builder from a configuration, which stays as it is.

        Args:
            config: ``name`` and the options of the class.
        """
        return cls(**{key: value for key, value in config.items() if key != "name"})

    @abstractmethod
    def options(
        self,
        model: nn.Module,
        parameters: Sequence[NamedParameter],
        optimizer: GroupOptions,
    ) -> list[dict[str, Any]]:
        """What differs for each parameter.

        Args:
            model: of the task.
            parameters: of model and loss, in the order of ``named_parameters()``; frozen
                and shared ones are among them, and what is said of those is not used.
            optimizer: which options there are, and with which rules.

        Returns:
            A dict a parameter. Options are numbers, bools or ParamSchedulers (built, or as a
            config). Besides: ``lr_mult`` multiplies ``lr`` and ``decay_mult`` multiplies
            ``weight_decay``, schedules included; ``bn_weight_decay`` (bool) takes the place of
            the task's.
        """
