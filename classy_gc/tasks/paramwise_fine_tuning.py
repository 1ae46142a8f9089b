"""``paramwise_fine_tuning``: Classy's task, with options per parameter."""

from classy_vision.optim import ClassyOptimizer
from classy_vision.tasks import FineTuningTask, register_task
from torch import nn

from classy_gc.param_groups.build import freeze_trunk
from classy_gc.tasks.paramwise import ParamwiseMixin


@register_task("paramwise_fine_tuning")
class ParamwiseFineTuning(ParamwiseMixin, FineTuningTask):
    """``paramwise_fine_tuning``: ``fine_tuning`` that reads ``param_groups``.

    Example:
        >>> ParamwiseFineTuning().set_freeze_trunk(True).freeze_trunk
        True
    """

    def prepare_optimizer(
        self, optimizer: ClassyOptimizer, model: nn.Module, loss: nn.Module | None = None
    ) -> None:
        if self.freeze_trunk:  # the stock task freezes only after the groups are built
            freeze_trunk(model)
        super().prepare_optimizer(optimizer, model, loss)
