"""What the hooks have in common: options that are checked, and events that they leave alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from classy_vision.hooks import HOOK_REGISTRY, ClassyHook
from typing_extensions import Self

from classy_gc.options import Rule, check_options, registered_name


class CheckedHook(ClassyHook):
    """Base of hooks; a subclass has its ``OPTIONS`` and overrides the events that it acts on.

    Args:
        **options: of the hook, which become its attributes.

    Raises:
        ValueError: an unknown or a missing key, or a value that is not allowed.

    Example:
        >>> from classy_gc.hooks import PhaseSeedHook
        >>> PhaseSeedHook.from_config({"seed": 1}).seed
        1
    """

    #: option: (default, rule)
    OPTIONS: ClassVar[Mapping[str, tuple[Any, Rule]]] = {}

    on_start = ClassyHook._noop
    on_phase_start = ClassyHook._noop
    on_step = ClassyHook._noop
    on_phase_end = ClassyHook._noop
    on_end = ClassyHook._noop

    def __init__(self, **options: Any) -> None:
        super().__init__()
        vars(self).update(self._checked(options))

    @classmethod
    def _checked(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        name = registered_name(cls, HOOK_REGISTRY)
        return check_options(options, cls.OPTIONS, f"hook {name!r}")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Instantiates the hook from a configuration: its arguments, by name."""
        return cls(**cls._checked(config))
