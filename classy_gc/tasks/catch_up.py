"""Sets a resumed task's options to the current values of its schedules."""

from classy_vision.optim.param_scheduler import UpdateInterval
from classy_vision.tasks import ClassificationTask

from classy_gc.files import warn_once


def catch_up(task: ClassificationTask) -> None:
    """Sets the options whose schedules change once per epoch to their current values.

    Classy Vision continues with the checkpoint's values until the end of the next epoch, although
    the schedules may have changed. Schedules count samples: with more data than before they go
    back, which a warning says.

    Args:
        task: prepared, with the state of a checkpoint; not changed if its data have no length.

    Raises:
        ValueError: with fewer data or smaller batches than before, so that the schedules, which
            count samples, would run past their end.
    """
    dataset, optimizer = task.datasets["train"], task.optimizer
    if not hasattr(dataset, "__len__"):
        return
    phases, done = task.get_total_training_phases(), task.train_phase_idx + 1
    batch = dataset.get_global_batchsize()
    samples = len(task.build_dataloader_from_dataset(dataset)) * batch  # of a phase
    where = task.num_updates / (phases * samples)
    ahead = task.num_updates - done * samples
    if done < phases and abs(ahead) >= batch:
        text = (
            f"the checkpoint was trained on {task.num_updates} samples in {done} epochs, which "
            f"would be {done * samples} with the data and batches of this config: its schedules "
        )
        if ahead > 0:
            raise ValueError(f"{text}would run past their end")
        warn_once(f"{text}continue at {where:.1%} of the training")
    if where < 1:
        optimizer._update_schedule(optimizer._run_schedulers(where, UpdateInterval.EPOCH))
