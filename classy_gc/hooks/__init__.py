"""Classy Vision hooks, one file per registered name."""

import classy_vision  # noqa: F401  which registers the names in these folders

from classy_gc.hooks.clip_grad_value import ClipGradValueHook as ClipGradValueHook
from classy_gc.hooks.gc_monitor import GCMonitorHook as GCMonitorHook
from classy_gc.hooks.json_log import JSONLogHook as JSONLogHook
from classy_gc.hooks.mlflow_log import MlflowLogHook as MlflowLogHook
from classy_gc.hooks.phase_seed import PhaseSeedHook as PhaseSeedHook
from classy_gc.hooks.predictions import PredictionsHook as PredictionsHook
from classy_gc.hooks.provenance import ProvenanceHook as ProvenanceHook
from classy_gc.hooks.rolling_checkpoint import RollingCheckpointHook as RollingCheckpointHook
from classy_gc.hooks.training_curves import TrainingCurvesHook as TrainingCurvesHook
from classy_gc.hooks.wandb_log import WandbLogHook as WandbLogHook
