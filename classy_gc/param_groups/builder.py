"""The base class of builders of parameter groups, and what they get."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import nn

from classy_gc.options import BOOL, Rule, check_options
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

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ParamGroupBuilder:
        """Instantiates the builder from a configuration, which is not changed.

        Args:
            config: ``name`` and the options of the class.
        """
        return cls(**{key: value for key, value in config.items() if key != "name"})

    @abstractmethod
    def options(
        self,
        model: nn.Module,
        parameters: Sequence[NamedParameter],
        optimizer: OptimizerOptions,
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
