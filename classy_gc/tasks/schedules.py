"""Schedules of a task, which knows the length of its training: warm-ups, and resuming."""

import copy
import functools
import math
from collections.abc import Mapping
from typing import Any

from classy_vision.optim import ClassyOptimizer, build_optimizer_schedulers
from classy_vision.optim.param_scheduler import PARAM_SCHEDULER_REGISTRY
from classy_vision.tasks import ClassificationTask

from classy_gc.files import warn_once
from classy_gc.optim.param_scheduler.checks import LENGTH, LENGTHS, check_schedulers
from classy_gc.optim.stock import group_options
from classy_gc.param_groups.builder import build_param_group_builder

_NEXT_TO_NOTHING = 1e-5


def with_shares(
    config: Any, num_epochs: float, steps: float | None = None, label: str = "optimizer"
) -> Any:
    """Turns lengths in steps and epochs in an optimizer's config into shares of the training.

    Args:
        config: of an optimizer, or a section of one; not changed.
        num_epochs: of the training.
        steps: optimizer steps in the training (default: None, not known yet; any number of steps
            then counts as next to nothing)
        label: names the config in messages (default: ``optimizer``)

    Raises:
        ValueError: lengths that exceed or do not fill the training.

    Example:
        >>> part = {"name": "constant", "value": 0.1}
        >>> warm_up = {"name": "composite", "schedulers": [part] * 2}
        >>> with_shares(warm_up | {"lengths": ["50 steps", "rest"]}, 4, 200)["lengths"]
        [0.25, 0.75]
    """
    if not isinstance(config, Mapping):
        return config
    if config.get("name") == "composite" and LENGTHS.accepts(config.get("lengths")):
        return {**config, "lengths": _shares(config["lengths"], num_epochs, steps, label)}
    if config.get("name") in PARAM_SCHEDULER_REGISTRY:
        return config
    return {k: with_shares(v, num_epochs, steps, f"{label}.{k}") for k, v in config.items()}


def _shares(lengths: list[Any], num_epochs: float, steps: float | None, label: str) -> list[Any]:
    if not any(isinstance(length, str) for length in lengths):
        return lengths
    shares = []
    for length in lengths:
        if isinstance(length, str) and length != "rest":
            in_steps, in_epochs = LENGTH.fullmatch(length).groups()
            in_training, length = (steps, in_steps) if in_steps else (num_epochs, in_epochs)
            length = float(length) / in_training if in_training else _NEXT_TO_NOTHING
        shares.append(length)
    rest = 1 - sum(share for share in shares if share != "rest")
    rests = shares.count("rest")
    if rest < -1e-9 or rests > 1 or (rests == 0 and rest > 1e-3):
        raise ValueError(
            f"{label}: lengths must fill the training, {num_epochs:g} epochs"
            f"{f' or {steps:g} steps' if steps else ''}, with at most one 'rest', "
            f"not {lengths!r}"
        )
    return [max(rest, 0.0) if share == "rest" else share for share in shares]


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
        task.prepare = functools.partial(_prepare, task, config["optimizer"])


def _prepare(task: ClassificationTask, optimizer: Mapping[str, Any]) -> None:
    dataset, phases = task.datasets["train"], task.train_phases_per_epoch * task.num_epochs
    batch = dataset.get_global_batchsize()
    samples = math.ceil(phases) * len(task.build_dataloader_from_dataset(dataset)) * batch
    steps = samples / (task.simulated_global_batchsize or batch)
    resolved = with_shares(copy.deepcopy(dict(optimizer)), task.num_epochs, steps)
    resolved["num_epochs"] = phases
    rules = group_options(task.optimizer)[1]
    check_schedulers(resolved, f"optimizer {optimizer['name']!r}", rules)
    task.set_optimizer_schedulers(build_optimizer_schedulers(resolved))
    if "param_groups" in resolved:
        task.set_param_group_builder(build_param_group_builder(resolved["param_groups"]))
    type(task).prepare(task)


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
    dataset = task.datasets["train"]
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
    # The base class alone: at the end of an epoch, others do more.
    ClassyOptimizer.on_epoch(task.optimizer, where)
