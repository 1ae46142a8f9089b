"""Registers the builders of parameter groups under their names in configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from classy_gc.custom_imports import import_named
from classy_gc.options import check_known, without_comments
from classy_gc.param_groups.builder import ParamGroupBuilder

_Builder = TypeVar("_Builder", bound=type[ParamGroupBuilder])

PARAM_GROUP_BUILDER_REGISTRY: dict[str, type[ParamGroupBuilder]] = {}


def register_param_group_builder(name: str) -> Callable[[_Builder], _Builder]:
    """Registers a :class:`ParamGroupBuilder` subclass under its ``name`` in configs.

    Args:
        name: one that is not taken.

    Raises:
        ValueError: the name is taken, or the class is not a ``ParamGroupBuilder``.

    Example:
        >>> @register_param_group_builder("half_rate_for_vectors")
        ... class HalfRateForVectors(ParamGroupBuilder):
        ...     def options(self, model, parameters, optimizer):
        ...         return [{"lr_mult": 0.5} if p.parameter.ndim == 1 else {} for p in parameters]
        >>> build_param_group_builder({"name": "half_rate_for_vectors"}).bypass_duplicate
        False
        >>> del PARAM_GROUP_BUILDER_REGISTRY["half_rate_for_vectors"]
    """

    def register(cls: _Builder) -> _Builder:
        if name in PARAM_GROUP_BUILDER_REGISTRY:
            raise ValueError(f"param_groups {name!r} is {PARAM_GROUP_BUILDER_REGISTRY[name]}")
        if not issubclass(cls, ParamGroupBuilder):
            raise ValueError(f"param_groups {name!r} must extend ParamGroupBuilder, not be {cls}")
        PARAM_GROUP_BUILDER_REGISTRY[name] = cls
        cls.name = name
        return cls

    return register


def build_param_group_builder(config: Mapping[str, Any]) -> ParamGroupBuilder:
    """Builds the builder that the ``param_groups`` of an optimizer config describe.

    Args:
        config: ``name``, the options of the builder, and optionally ``module``, which is
            imported first, so that a builder of your own registers itself.

    Raises:
        ValueError: no name, an unknown name, a module that cannot be imported, or an option that
            the builder refuses.

    Example:
        >>> build_param_group_builder({"name": "layer_decay", "decay": 0.75}).decay
        0.75
        >>> build_param_group_builder({"name": "layerdecay"})
        Traceback (most recent call last):
        classy_gc.options.OptionError: unknown name 'layerdecay' in param_groups, did you mean ...
    """
    if not isinstance(config, Mapping) or "name" not in config:
        raise ValueError(f"param_groups must be an object with a 'name', not {config!r}")
    config = without_comments(config)
    module = config.pop("module", None)
    if module is not None:
        import_named(module, "module of param_groups")
    check_known([config["name"]], sorted(PARAM_GROUP_BUILDER_REGISTRY), "param_groups", "name")
    return PARAM_GROUP_BUILDER_REGISTRY[config["name"]].from_config(config)
