"""Sets a resumed task's options to the current values of its schedules."""

from __future__ import annotations

from classy_vision.optim.param_scheduler import UpdateInterval
from classy_vision.tasks import ClassificationTask


def catch_up(task: ClassificationTask) -> None:
    """Sets the options whose schedules change once per epoch to their current values.

    Classy Vision continues with the checkpoint's values until the end of the next epoch, although
    the schedules may have changed.

    Args:
        task: prepared, with the state of a checkpoint; not changed if its data have no length.
    """
    dataset, optimizer = task.datasets["train"], task.optimizer
    if not hasattr(dataset, "__len__"):
        return
    steps = len(task.build_dataloader_from_dataset(dataset)) * task.get_total_training_phases()
    where = task.num_updates / dataset.get_global_batchsize() / steps
    if where < 1:
        optimizer._update_schedule(optimizer._run_schedulers(where, UpdateInterval.EPOCH))
