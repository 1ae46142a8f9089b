"""Classy Vision tasks, one file a registered name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classy_vision.tasks import ClassificationTask, FineTuningTask

from classy_gc.custom_imports import import_custom
from classy_gc.optim.stock import refuse_gc_keys
from classy_gc.options import without_comments
from classy_gc.tasks.paramwise_classification_task import ParamwiseClassificationTask
from classy_gc.tasks.paramwise_fine_tuning import ParamwiseFineTuning

__all__ = ["ParamwiseClassificationTask", "ParamwiseFineTuning", "refuse_under_stock_task"]

_PARAMWISE = {
    ClassificationTask: "paramwise_classification_task",
    FineTuningTask: "paramwise_fine_tuning",
}
_from_config = ClassificationTask.from_config.__func__


def refuse_under_stock_task(task: type, config: Mapping[str, Any]) -> None:
    """Refuses ``param_groups`` where nobody would read them.

    Args:
        task: class of the task.
        config: of the task.

    Raises:
        ValueError: naming the task that reads them.
    """
    if task in _PARAMWISE and "param_groups" in config.get("optimizer", {}):
        raise ValueError(
            f"unknown key 'param_groups' in optimizer of task {config['name']!r}; the task that "
            f"reads it is {_PARAMWISE[task]!r}"
        )


def _extended_from_config(
    cls: type[ClassificationTask], config: Mapping[str, Any]
) -> ClassificationTask:
    import_custom(config)
    config = without_comments(config)
    refuse_under_stock_task(cls, config)
    if not config.get("test_only", False):
        refuse_gc_keys(config["optimizer"])
    return _from_config(cls, config)


# The stock tasks and optimizers ignore keys that they do not know, and nothing of theirs can be
# asked to look: these keys are worth the intrusion. A user's own task may read param_groups.
ClassificationTask.from_config = classmethod(_extended_from_config)
