"""Classy Vision optimizers with gradient centralization, one file a registered name.

As in Classy Vision itself, every module here is imported, which registers the names.
"""

from pathlib import Path

import classy_vision  # noqa: F401  which has all of these folders registered
from classy_vision.generic.registry_utils import import_all_modules

from classy_gc.optim.adam_gc import AdamGC
from classy_gc.optim.adamw_gc import AdamWGC
from classy_gc.optim.classy_gc_optimizer import ClassyGCOptimizer
from classy_gc.optim.gc import GC
from classy_gc.optim.param_scheduler import (
    CyclicParamScheduler,
    OneCycleParamScheduler,
    PolynomialFloorParamScheduler,
)
from classy_gc.optim.plain_radam_gc import PlainRAdamGC
from classy_gc.optim.radam_gc import RAdamGC
from classy_gc.optim.rmsprop_gc import RMSPropGC
from classy_gc.optim.rmsprop_tf_gc import RMSPropTFGC
from classy_gc.optim.sgd_gc import SGDGC
from classy_gc.optim.torch_gc import TorchGC

import_all_modules(Path(__file__).parent, "classy_gc.optim")

__all__ = [
    "GC",
    "SGDGC",
    "AdamGC",
    "AdamWGC",
    "ClassyGCOptimizer",
    "CyclicParamScheduler",
    "OneCycleParamScheduler",
    "PlainRAdamGC",
    "PolynomialFloorParamScheduler",
    "RAdamGC",
    "RMSPropGC",
    "RMSPropTFGC",
    "TorchGC",
]
