"""Classy Vision tasks, one file a registered name."""

import classy_vision  # noqa: F401  which has all of these folders registered

from classy_gc.tasks.paramwise_classification_task import (
    ParamwiseClassificationTask as ParamwiseClassificationTask,
)
from classy_gc.tasks.paramwise_fine_tuning import ParamwiseFineTuning as ParamwiseFineTuning
