"""Registers the builders of parameter groups under their names in configs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

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
            taken = PARAM_GROUP_BUILDER_REGISTRY[name]
            raise ValueError(
                f"cannot register param group builder {name!r} twice: it is "
                f"already {taken.__module__}.{taken.__qualname__}"
            )
        if not issubclass(cls, ParamGroupBuilder):
            raise ValueError(
                f"param group builder {name!r} ({cls.__qualname__}) must extend ParamGroupBuilder"
            )
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
        ValueError: no name, an unknown name, or an option that the builder refuses.
        ImportError: there is no such module.

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
        if not isinstance(module, str) or not module:
            raise ValueError(f"module of param_groups must be a module's name, not {module!r}")
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            raise ImportError(f"module {module!r} of param_groups: {error}") from error
    check_known([config["name"]], sorted(PARAM_GROUP_BUILDER_REGISTRY), "param_groups", "name")
    return PARAM_GROUP_BUILDER_REGISTRY[config["name"]].from_config(config)
