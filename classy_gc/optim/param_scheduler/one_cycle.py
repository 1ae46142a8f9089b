"""``one_cycle``: up to a peak and down again, or, for momentum, down and up."""

import math
from dataclasses import dataclass

from classy_vision.optim.param_scheduler import UpdateInterval, register_param_scheduler

from classy_gc.optim.param_scheduler.checks import CheckedParamScheduler


@register_param_scheduler("one_cycle")
@dataclass(eq=False)
class OneCycleParamScheduler(CheckedParamScheduler):
    """From ``start_value`` to ``peak_value``, then to ``end_value``.

    With ``s = pct_start`` and ``a`` the annealing, ``(1 − cos πx)/2`` or ``x``:

    * ``start + (peak − start)·a(where/s)`` up to ``where = s``,
    * ``peak + (end − peak)·a((where − s)/(1 − s))`` from there.

    The mirrored cycle of the momentum is the same, with the least value as the peak.

    Here ``where`` is 1 after the last step; torch's and MMEngine's ``OneCycleLR`` reach the end at
    the last step, so each of their values after the first comes up to one step earlier.

    Args:
        start_value (float): at the beginning
        peak_value (float): at ``pct_start``, the largest rate or the least momentum
        end_value (float): at the end
        pct_start (float): share of the training before the peak, in (0, 1) (default: 0.3)
        anneal (str): ``cosine`` or ``linear`` (default: ``cosine``)
        update_interval: ``step`` or ``epoch`` (default: ``step``)

    Raises:
        ValueError: from a config, an unknown or missing key, or a value that is not allowed.

    Source: Smith & Topin, *Super-Convergence*, https://arxiv.org/abs/1708.07120;
    :class:`torch.optim.lr_scheduler.OneCycleLR`.

    Example:
        >>> rate = OneCycleParamScheduler(0.0, 1.0, 0.5, pct_start=0.5, anneal="linear")
        >>> [rate(where) for where in (0, 0.25, 0.5, 0.75, 1)]
        [0.0, 0.5, 1.0, 0.75, 0.5]
    """

    start_value: float
    peak_value: float
    end_value: float
    pct_start: float = 0.3
    anneal: str = "cosine"
    update_interval: UpdateInterval = UpdateInterval.STEP

    def __call__(self, where: float) -> float:
        start, end, x = self.start_value, self.peak_value, where / self.pct_start
        if x > 1:
            start, end = self.peak_value, self.end_value
            x = (where - self.pct_start) / (1 - self.pct_start)
        if self.anneal == "cosine":
            x = (1 - math.cos(math.pi * x)) / 2
        return start + (end - start) * x
