"""Drop-in ``torch.optim`` classes with gradient centralization, independent of Classy Vision."""

from classy_gc.core.adam import Adam, AdamW
from classy_gc.core.centralization import centralize_, ineligible_reason
from classy_gc.core.centralize_optimizer import centralize_optimizer
from classy_gc.core.centralized_optimizer import CentralizedOptimizer
from classy_gc.core.larc import LARC
from classy_gc.core.radam import PlainRAdam, RAdam
from classy_gc.core.rmsprop import RMSprop, RMSpropTF
from classy_gc.core.sgd import SGD

__all__ = [
    "LARC",
    "SGD",
    "Adam",
    "AdamW",
    "CentralizedOptimizer",
    "PlainRAdam",
    "RAdam",
    "RMSprop",
    "RMSpropTF",
    "centralize_",
    "centralize_optimizer",
    "ineligible_reason",
]
