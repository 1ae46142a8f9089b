"""What is done before the first step: checks of the prepared task, and its threads."""

import logging
import os
from collections.abc import Callable

import torch
from classy_vision.generic.distributed_util import get_world_size
from classy_vision.tasks import ClassificationTask, ClassyTask
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from classy_gc.commands.train.hooks import Output
from classy_gc.commands.train.ranks import Ranks
from classy_gc.configuration.trial import try_batches
from classy_gc.hooks.phase_record import trained_epochs
from classy_gc.tasks.schedules import catch_up

# So many floating-point operations in the trial take one core some ten milliseconds.
_SMALL = 400_000_000

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def start_training(
    task: ClassyTask, ranks: Ranks, output: Output, start_hooks: Callable[[], None]
) -> None:
    """Replaces a prepared task's ``on_start``: refuses what cannot be trained, then starts.

    Args:
        task: prepared.
        ranks: of the training.
        output: of the run.
        start_hooks: the task's own ``on_start``.
    """
    with FlopCounterMode(display=False) as counter:
        ranks.agreed(lambda: try_batches(task))
    _take_threads(task, counter.get_total_flops())
    if not getattr(task, "test_only", False):
        if task.checkpoint_dict and isinstance(task, ClassificationTask):
            catch_up(task)
        _warn_of_last_batch(task)
    output.epochs_before = trained_epochs(task)
    start_hooks()
    output.started = True


def _take_threads(task: ClassyTask, operations: int) -> None:
    """Trains a small model with one thread on a CPU, unless ``OMP_NUM_THREADS`` is set.

    On a busy machine, each of torch's parallel regions waits until all of its threads have run.

    Args:
        task: prepared.
        operations: of the trial; 0, and torch's threads stay, for a task that is not tried.
    """
    small = 0 < operations < _SMALL and not getattr(task, "use_gpu", False)
    if small and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _warn_of_last_batch(task: ClassyTask) -> None:
    """Logs a line if each epoch ends with less than an eighth of a batch.

    The mean and variance of so few samples are noise, as are the loss and the gradient. Classy
    Vision averages the loss of a phase over its batches, and this one counts as much as any other.

    Args:
        task: prepared; one without batch normalization is fine.
    """
    dataset = getattr(task, "datasets", {}).get("train")
    if not hasattr(dataset, "__len__") or getattr(dataset, "drop_last", False):
        return
    batch = dataset.get_batchsize_per_replica()
    last = -(-len(dataset) // get_world_size()) % batch
    normalized = any(isinstance(module, _BATCH_NORMS) for module in task.base_model.modules())
    if normalized and 0 < 8 * last < batch:
        logging.warning(
            f"each epoch ends with a batch of {last}, not {batch}: too few for batch normalization;"
            ' set "drop_last": true in dataset.train, or another batchsize_per_replica'
        )
