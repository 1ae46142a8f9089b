"""``paramwise_fine_tuning``: Classy's task, with options per parameter."""

from classy_vision.tasks import FineTuningTask, register_task

from classy_gc.tasks.paramwise import ParamwiseMixin


@register_task("paramwise_fine_tuning")
class ParamwiseFineTuning(ParamwiseMixin, FineTuningTask):
    """``paramwise_fine_tuning``: ``fine_tuning`` that reads ``param_groups``.

    Example:
        >>> ParamwiseFineTuning().set_freeze_trunk(True).freeze_trunk
        True
    """
