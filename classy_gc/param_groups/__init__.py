"""Which parameter gets which options: the registry of builders, one file per registered name.

Like an optimizer constructor in MMSegmentation, a builder looks at every parameter and says which
options differ for it. :func:`build_param_groups` does the rest for all builders: it merges equal
options into few groups, multiplies schedules and checks the options.
"""

import classy_vision  # noqa: F401  which registers the names in these folders

from classy_gc.param_groups.build import build_param_groups as build_param_groups
from classy_gc.param_groups.build import parameter_occurrences as parameter_occurrences
from classy_gc.param_groups.builder import (
    PARAM_GROUP_BUILDER_REGISTRY as PARAM_GROUP_BUILDER_REGISTRY,
)
from classy_gc.param_groups.builder import NamedParameter as NamedParameter
from classy_gc.param_groups.builder import OptimizerOptions as OptimizerOptions
from classy_gc.param_groups.builder import ParamGroupBuilder as ParamGroupBuilder
from classy_gc.param_groups.builder import ScaledParamScheduler as ScaledParamScheduler
from classy_gc.param_groups.builder import build_param_group_builder as build_param_group_builder
from classy_gc.param_groups.builder import (
    register_param_group_builder as register_param_group_builder,
)
from classy_gc.param_groups.layer_decay import LayerDecay as LayerDecay
from classy_gc.param_groups.paramwise import Paramwise as Paramwise
