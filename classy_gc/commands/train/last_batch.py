"""Warns of epochs that end with a batch too small for batch normalization."""

from __future__ import annotations

import logging

from classy_vision.generic.distributed_util import get_world_size
from classy_vision.tasks import ClassyTask
from torch import nn

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def warn_of_last_batch(task: ClassyTask) -> None:
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
