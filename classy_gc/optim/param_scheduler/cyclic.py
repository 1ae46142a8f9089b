"""``cyclic``: repeats a schedule several times."""

from dataclasses import dataclass, replace

from classy_vision.optim.param_scheduler import UpdateInterval, register_param_scheduler
from fvcore.common.param_scheduler import ParamScheduler

from classy_gc.optim.param_scheduler.checks import CheckedParamScheduler
from classy_gc.optim.param_scheduler.one_cycle import OneCycleParamScheduler


@register_param_scheduler("cyclic")
@dataclass(eq=False)
class CyclicParamScheduler(CheckedParamScheduler):
    """``scheduler(periods · where − k)`` in period ``k`` = 0, 1, …, its height scaled by
    ``decay^k``.

    ``decay`` shrinks the height above the base of a period. A ``one_cycle`` keeps its start and
    end, and its peak comes nearer to its start, as with MMCV's ``gamma``: 0.1, 0.055, 0.0325 over a
    start of 0.01. For any other scheduler the base is the lesser of its first and last values.

    With a cosine as ``scheduler`` this is SGDR; with a ``one_cycle`` it is the triangle or wave of
    cyclical rates and momenta::

        {"name": "cyclic", "periods": 4, "scheduler": {"name": "one_cycle",
            "start_value": 0.01, "peak_value": 0.1, "end_value": 0.01, "pct_start": 0.4}}

    Args:
        scheduler: of one period, which it treats as the whole training; in a config, a
            ParamScheduler config without ``update_interval``
        periods (int): how many, all equally long, >= 1
        decay (float): factor of the height above the base from one period to the next, > 0
            (default: 1)
        update_interval: ``step`` or ``epoch`` (default: ``step``)

    Raises:
        ValueError: from a config, an unknown or missing key, or a value that is not allowed.

    Source: Loshchilov & Hutter, *SGDR*, https://arxiv.org/abs/1608.03983; Smith, *Cyclical
    Learning Rates*, https://arxiv.org/abs/1506.01186; MMCV's ``CyclicLrUpdaterHook``.

    Example:
        >>> from fvcore.common.param_scheduler import LinearParamScheduler
        >>> schedule = CyclicParamScheduler(LinearParamScheduler(1.0, 0.0), periods=2, decay=0.5)
        >>> [schedule(where) for where in (0, 0.25, 0.5, 0.75)]
        [1.0, 0.5, 0.5, 0.25]
        >>> from classy_gc.optim.param_scheduler import OneCycleParamScheduler
        >>> triangle = OneCycleParamScheduler(1.0, 5.0, 1.0, pct_start=0.5)
        >>> [CyclicParamScheduler(triangle, 2, decay=0.5)(where) for where in (0, 0.25, 0.5, 0.75)]
        [1.0, 5.0, 1.0, 3.0]
    """

    scheduler: ParamScheduler
    periods: int
    decay: float = 1.0
    update_interval: UpdateInterval = UpdateInterval.STEP

    def __call__(self, where: float) -> float:
        period = int((where + self.WHERE_EPSILON) * self.periods)
        period = min(period, self.periods - 1)
        inner = max(where * self.periods - period, 0.0)
        factor = self.decay**period
        if factor == 1:
            return self.scheduler(inner)
        if isinstance(self.scheduler, OneCycleParamScheduler):
            start, peak = self.scheduler.start_value, self.scheduler.peak_value
            return replace(self.scheduler, peak_value=start + factor * (peak - start))(inner)
        base = min(self.scheduler(0.0), self._last())
        return base + factor * (self.scheduler(inner) - base)

    def _last(self) -> float:
        try:
            return self.scheduler(1.0)
        except IndexError:  # raised by schedulers that choose one of several values or schedulers
            return self.scheduler(1 - 2 * self.WHERE_EPSILON)
