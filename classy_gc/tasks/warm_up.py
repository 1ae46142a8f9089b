"""Warm-ups in steps and epochs: a task knows the length of its training."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from classy_vision.dataset import ClassyDataset
from classy_vision.optim import build_optimizer_schedulers
from classy_vision.tasks import ClassificationTask

from classy_gc.optim.param_scheduler.checks import check_schedulers
from classy_gc.optim.param_scheduler.lengths import with_shares
from classy_gc.optim.stock import group_options
from classy_gc.param_groups.builder import build_param_group_builder


def optimizer_steps(
    dataset: ClassyDataset, batches: int, phases: float, simulated_global_batchsize: int | None
) -> float:
    """How many steps the optimizer takes in a training; fewer with gradient accumulation.

    Args:
        dataset: of the training.
        batches: in a phase.
        phases: of the training.
        simulated_global_batchsize: of the task.
    """
    batch = dataset.get_global_batchsize()
    return math.ceil(phases) * batches * batch / (simulated_global_batchsize or batch)


def preliminary(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a task in a form that can be built before the length of an epoch is known.

    Args:
        config: its schedules may have lengths in steps and epochs; not changed.

    Raises:
        ValueError: lengths in epochs that do not fill the training.
    """
    if "optimizer" not in config or config.get("test_only"):
        return {**config}
    return {**config, "optimizer": with_shares(config["optimizer"], config["num_epochs"])}


def resolve_when_prepared(task: ClassificationTask, config: Mapping[str, Any]) -> None:
    """Turns lengths in steps and epochs into shares of the training when a task is prepared.

    Only then is it known how many processes share an epoch.

    Args:
        task: built from the preliminary config.
        config: the one that may have such lengths.

    Raises:
        ValueError: when the task is prepared, lengths that do not fill the training.
    """
    if preliminary(config) != config:
        task.prepare = functools.partial(_prepare, task, task.prepare, config["optimizer"])


def _prepare(
    task: ClassificationTask, prepare: Callable[[], None], optimizer: Mapping[str, Any]
) -> None:
    dataset, phases = task.datasets["train"], task.train_phases_per_epoch * task.num_epochs
    batches = len(task.build_dataloader_from_dataset(dataset))
    steps = optimizer_steps(dataset, batches, phases, task.simulated_global_batchsize)
    resolved = with_shares(copy.deepcopy(dict(optimizer)), task.num_epochs, steps)
    resolved["num_epochs"] = phases
    rules = group_options(task.optimizer)[1]
    check_schedulers(resolved, f"optimizer {optimizer['name']!r}", rules)
    task.set_optimizer_schedulers(build_optimizer_schedulers(resolved))
    if "param_groups" in resolved:
        task.set_param_group_builder(build_param_group_builder(resolved["param_groups"]))
    prepare()
