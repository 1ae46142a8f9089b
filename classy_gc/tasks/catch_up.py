"""A resumed task's options, as the schedules of its config have them now."""

from __future__ import annotations

from classy_vision.optim.param_scheduler import UpdateInterval
from classy_vision.optim.zero import ZeRO
from classy_vision.tasks import ClassificationTask

from classy_gc.optim.scheduled_gc import ScheduledGC


def catch_up(task: ClassificationTask) -> None:
    """Sets the options of schedules that change by the epoch to what they are now.

    Classy Vision goes on with the checkpoint's values until the end of the next epoch, though the
    schedules may be others by now.

    Args:
        task: prepared, with the state of a checkpoint; one whose data have no length stays as it
            is.
    """
    dataset, optimizer = task.datasets["train"], task.optimizer
    if not hasattr(dataset, "__len__"):
        return
    steps = len(task.build_dataloader_from_dataset(dataset)) * task.get_total_training_phases()
    where = task.num_updates / dataset.get_global_batchsize() / steps
    if where >= 1:
        return
    wrapped = optimizer.base_optimizer if isinstance(optimizer, ZeRO) else optimizer
    if isinstance(wrapped, ScheduledGC):
        wrapped.catch_up(where, optimizer)
    else:
        optimizer._update_schedule(optimizer._run_schedulers(where, UpdateInterval.EPOCH))
