"""Classy Vision hooks, one file a registered name."""

import classy_vision  # noqa: F401  which has all of these folders registered

from classy_gc.hooks.clip_grad_value import ClipGradValueHook
from classy_gc.hooks.gc_monitor import GCMonitorHook
from classy_gc.hooks.json_log import JSONLogHook
from classy_gc.hooks.mlflow_log import MlflowLogHook
from classy_gc.hooks.phase_seed import PhaseSeedHook
from classy_gc.hooks.predictions import PredictionsHook
from classy_gc.hooks.provenance import ProvenanceHook
from classy_gc.hooks.rolling_checkpoint import RollingCheckpointHook
from classy_gc.hooks.training_curves import TrainingCurvesHook
from classy_gc.hooks.wandb_log import WandbLogHook

__all__ = [
    "ClipGradValueHook",
    "GCMonitorHook",
    "JSONLogHook",
    "MlflowLogHook",
    "PhaseSeedHook",
    "PredictionsHook",
    "ProvenanceHook",
    "RollingCheckpointHook",
    "TrainingCurvesHook",
    "WandbLogHook",
]
