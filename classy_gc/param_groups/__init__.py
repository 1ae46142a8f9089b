"""Which parameter gets which options: the registry of builders, one file a registered name.

A builder is to parameter groups what MMSegmentation's optimizer constructor is: it looks at
every parameter and says which options differ for it. Merging equal options into few groups,
multiplying schedules and checking what is asked for is done once, for all builders, by
:func:`build_param_groups`.
"""

import classy_vision  # noqa: F401  which has all of these folders registered

from classy_gc.param_groups.build import build_param_groups, parameter_occurrences
from classy_gc.param_groups.builder import GroupOptions, NamedParameter, ParamGroupBuilder
from classy_gc.param_groups.layer_decay import LayerDecay
from classy_gc.param_groups.multipliers import OptimizerOptions, ScaledParamScheduler
from classy_gc.param_groups.paramwise import Paramwise
from classy_gc.param_groups.registry import (
    PARAM_GROUP_BUILDER_REGISTRY,
    build_param_group_builder,
    register_param_group_builder,
)
from classy_gc.param_groups.tables import full_table, short_table

__all__ = [
    "PARAM_GROUP_BUILDER_REGISTRY",
    "GroupOptions",
    "LayerDecay",
    "NamedParameter",
    "OptimizerOptions",
    "ParamGroupBuilder",
    "Paramwise",
    "ScaledParamScheduler",
    "build_param_group_builder",
    "build_param_groups",
    "full_table",
    "parameter_occurrences",
    "register_param_group_builder",
    "short_table",
]
