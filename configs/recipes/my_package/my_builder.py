"""Parameter groups of one's own: weights near the input learn more slowly."""

from typing import ClassVar

from classy_gc.options import FRACTION
from classy_gc.param_groups import ParamGroupBuilder, register_param_group_builder


@register_param_group_builder("my_slow_start")
class MySlowStart(ParamGroupBuilder):
    """``my_slow_start``: multiplies the learning rate of the first block by ``factor``."""

    OPTIONS: ClassVar = {**ParamGroupBuilder.OPTIONS, "factor": (0.1, FRACTION)}

    def options(self, model, parameters, optimizer):
        return [
            {"lr_mult": self.factor} if p.full_name.startswith("initial_block") else {}
            for p in parameters
        ]
