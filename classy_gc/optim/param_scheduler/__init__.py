"""ParamSchedulers that Classy Vision lacks, one file a registered name.

A warm-up and a one-cycle schedule are Classy Vision's ``composite``.
"""

from classy_gc.optim.param_scheduler.cyclic import CyclicParamScheduler
from classy_gc.optim.param_scheduler.polynomial_floor import PolynomialFloorParamScheduler

__all__ = ["CyclicParamScheduler", "PolynomialFloorParamScheduler"]
