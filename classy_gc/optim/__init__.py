"""Classy Vision optimizers with gradient centralization, one file per registered name.

As in Classy Vision itself, every module here is imported, which registers its name.
"""

from pathlib import Path

import classy_vision.optim  # noqa: F401  which registers the names in these folders
from classy_vision.generic.registry_utils import import_all_modules

from classy_gc.optim.adam_gc import AdamGC as AdamGC
from classy_gc.optim.adamw_gc import AdamWGC as AdamWGC
from classy_gc.optim.classy_gc_optimizer import ClassyGCOptimizer as ClassyGCOptimizer
from classy_gc.optim.gc import GC as GC
from classy_gc.optim.plain_radam_gc import PlainRAdamGC as PlainRAdamGC
from classy_gc.optim.radam_gc import RAdamGC as RAdamGC
from classy_gc.optim.rmsprop_gc import RMSPropGC as RMSPropGC
from classy_gc.optim.rmsprop_tf_gc import RMSPropTFGC as RMSPropTFGC
from classy_gc.optim.sgd_gc import SGDGC as SGDGC
from classy_gc.optim.torch_gc import TorchGC as TorchGC
from classy_gc.optim.zero import ZeRO as ZeRO

import_all_modules(Path(__file__).parent, "classy_gc.optim")
