"""``paramwise_classification_task``: Classy's task, with options per parameter."""

from classy_vision.tasks import ClassificationTask, register_task

from classy_gc.tasks.paramwise import ParamwiseMixin


@register_task("paramwise_classification_task")
class ParamwiseClassificationTask(ParamwiseMixin, ClassificationTask):
    """``paramwise_classification_task``: ``classification_task`` that reads ``param_groups``.

    Example:
        >>> from classy_gc.param_groups import Paramwise
        >>> task = ParamwiseClassificationTask()
        >>> task.set_param_group_builder(Paramwise(bias_lr_mult=2)).param_group_builder.label()
        "param_groups 'paramwise'"
    """
