"""``cyclic``: a schedule several times over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classy_vision.optim.param_scheduler import (
    PARAM_SCHEDULER_REGISTRY,
    ClassyParamScheduler,
    UpdateInterval,
    build_param_scheduler,
    register_param_scheduler,
)
from fvcore.common.param_scheduler import ParamScheduler

from classy_gc.optim.param_scheduler.arguments import arguments
from classy_gc.options import COUNT, MAPPING, POSITIVE, check_known

_PERIODS = COUNT._replace(allowed="an integer >= 1")


@register_param_scheduler("cyclic")
class CyclicParamScheduler(ClassyParamScheduler):
    """``decay^k · scheduler(periods · where − k)`` in period ``k`` = 0, 1, …

    A cosine as ``scheduler`` is SGDR, a ``one_cycle`` the triangle or the wave of cyclical rates
    and momenta::

        {"name": "cyclic", "periods": 4, "scheduler": {"name": "one_cycle",
            "start_value": 0.01, "peak_value": 0.1, "end_value": 0.01, "pct_start": 0.4}}

    Args:
        scheduler: of one period, which it sees as the whole training; in a config, a
            ParamScheduler config without ``update_interval``
        periods (int): how many, all equally long, >= 1
        decay (float): multiplies each period after the first once more, > 0 (default: 1)
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
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        periods: int,
        decay: float = 1.0,
        update_interval: UpdateInterval = UpdateInterval.STEP,
    ) -> None:
        super().__init__(update_interval)
        self._scheduler = scheduler
        self._periods = periods
        self._decay = decay

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> CyclicParamScheduler:
        """Instantiates the scheduler from a configuration: its arguments, by name."""
        where = "scheduler 'cyclic'"
        rules = {"scheduler": MAPPING, "periods": _PERIODS, "decay": POSITIVE}
        given = arguments(cls, config, where, rules)
        inner = dict(given["scheduler"])
        check_known([inner.get("name")], PARAM_SCHEDULER_REGISTRY, where, "scheduler")
        if "update_interval" in inner:
            raise ValueError(f"{where}: update_interval belongs beside scheduler, not in it")
        if "num_epochs" in config:  # as composite hands it on
            inner["num_epochs"] = config["num_epochs"]
        return cls(**{**given, "scheduler": build_param_scheduler(inner)})

    def __call__(self, where: float) -> float:
        period = int((where + self.WHERE_EPSILON) * self._periods)
        period = min(period, self._periods - 1)
        inner = max(where * self._periods - period, 0.0)
        return self._decay**period * self._scheduler(inner)
