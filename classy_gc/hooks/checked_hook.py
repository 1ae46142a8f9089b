"""What the hooks have in common: options that are checked, and events that they leave alone."""

from typing import Any, ClassVar

from classy_vision.hooks import HOOK_REGISTRY, ClassyHook

from classy_gc.options import Table, check_options, registered_name


class CheckedHook(ClassyHook):
    """Base of hooks; a subclass has a table of options and overrides the events that it acts on.

    Args:
        **options: those in ``OPTIONS``; they become attributes.

    Raises:
        ValueError: an unknown or a missing key, or a value that is not allowed.

    Example:
        >>> from classy_gc.hooks import PhaseSeedHook
        >>> PhaseSeedHook.from_config({"seed": 1}).seed
        1
    """

    OPTIONS: ClassVar[Table] = {}

    on_start = ClassyHook._noop
    on_phase_start = ClassyHook._noop
    on_step = ClassyHook._noop
    on_phase_end = ClassyHook._noop
    on_end = ClassyHook._noop

    def __init__(self, **options: Any) -> None:
        ClassyHook.__init__(self)
        label = f"hook {registered_name(type(self), HOOK_REGISTRY)!r}"
        vars(self).update(check_options(options, self.OPTIONS, label))
