"""Classy Vision tasks, one file per registered name."""

import classy_vision  # noqa: F401  which registers the names in these folders

from classy_gc.tasks.paramwise_classification_task import ParamwiseClassificationTask
from classy_gc.tasks.paramwise_fine_tuning import ParamwiseFineTuning

__all__ = ["ParamwiseClassificationTask", "ParamwiseFineTuning"]
