"""Classy Vision hooks, one file a registered name."""

from classy_gc.hooks.phase_seed import PhaseSeedHook
from classy_gc.hooks.training_curves import TrainingCurvesHook

__all__ = ["PhaseSeedHook", "TrainingCurvesHook"]
