"""Which parameter gets which options: the registry of builders, one file a registered name.

A builder is to parameter groups what MMSegmentation's optimizer constructor is: it looks at
every parameter and says which options differ for it. Merging equal options into few groups,
multiplying schedules and checking what is asked for is done once, for all builders, by
:func:`build_param_groups`.
"""

import classy_vision  # noqa: F401  which has all of these folders registered

from classy_gc.param_groups.build import build_param_groups as build_param_groups
from classy_gc.param_groups.build import parameter_occurrences as parameter_occurrences
from classy_gc.param_groups.builder import GroupOptions as GroupOptions
from classy_gc.param_groups.builder import NamedParameter as NamedParameter
from classy_gc.param_groups.builder import ParamGroupBuilder as ParamGroupBuilder
from classy_gc.param_groups.layer_decay import LayerDecay as LayerDecay
from classy_gc.param_groups.multipliers import OptimizerOptions as OptimizerOptions
from classy_gc.param_groups.multipliers import ScaledParamScheduler as ScaledParamScheduler
from classy_gc.param_groups.paramwise import Paramwise as Paramwise
from classy_gc.param_groups.registry import (
    PARAM_GROUP_BUILDER_REGISTRY as PARAM_GROUP_BUILDER_REGISTRY,
)
from classy_gc.param_groups.registry import build_param_group_builder as build_param_group_builder
from classy_gc.param_groups.registry import (
    register_param_group_builder as register_param_group_builder,
)
from classy_gc.param_groups.tables import full_table as full_table
from classy_gc.param_groups.tables import short_table as short_table
