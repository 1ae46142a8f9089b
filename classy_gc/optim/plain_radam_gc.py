"""``plain_radam_gc``: RAdam without the scalar cache, with gradient centralization."""

from __future__ import annotations

from classy_vision.optim import register_optimizer

from classy_gc import core
from classy_gc.optim.radam_gc import RAdamGC


@register_optimizer("plain_radam_gc")
class PlainRAdamGC(RAdamGC):
    __doc__ = RAdamGC.__doc__.replace("radam_gc", "plain_radam_gc").replace("RAdam", "PlainRAdam")

    core_class = core.PlainRAdam
