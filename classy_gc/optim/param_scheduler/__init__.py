"""ParamSchedulers that Classy Vision lacks, one file per registered name; and checks of all.

A warm-up is Classy Vision's ``composite`` of a ``linear`` scheduler and another.
"""

from classy_gc.optim.param_scheduler.cyclic import CyclicParamScheduler
from classy_gc.optim.param_scheduler.one_cycle import OneCycleParamScheduler
from classy_gc.optim.param_scheduler.polynomial_floor import PolynomialFloorParamScheduler

__all__ = ["CyclicParamScheduler", "OneCycleParamScheduler", "PolynomialFloorParamScheduler"]
