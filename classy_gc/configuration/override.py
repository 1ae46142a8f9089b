"""Sets single values of a config, by dotted keys that lead somewhere."""

from __future__ import annotations

import copy
import inspect
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from classy_vision.dataset import DATASET_REGISTRY
from classy_vision.heads import HEAD_REGISTRY
from classy_vision.hooks import HOOK_REGISTRY
from classy_vision.losses import LOSS_REGISTRY
from classy_vision.models import MODEL_REGISTRY
from classy_vision.optim import OPTIMIZER_REGISTRY
from classy_vision.optim.param_scheduler import PARAM_SCHEDULER_REGISTRY

from classy_gc.configuration.load import Config
from classy_gc.configuration.settings import value_text
from classy_gc.optim.stock import is_stock
from classy_gc.options import check_known
from classy_gc.param_groups import PARAM_GROUP_BUILDER_REGISTRY

# Where the class of a section is registered, by the last key on the way to it that is here.
_REGISTRIES = {
    "optimizer": OPTIMIZER_REGISTRY,
    "base_optimizer": OPTIMIZER_REGISTRY,
    "param_schedulers": PARAM_SCHEDULER_REGISTRY,
    "param_groups": PARAM_GROUP_BUILDER_REGISTRY,
    "model": MODEL_REGISTRY,
    "heads": HEAD_REGISTRY,
    "loss": ChainMap(LOSS_REGISTRY, vars(torch.nn)),
    "train": DATASET_REGISTRY,
    "test": DATASET_REGISTRY,
    "hooks": HOOK_REGISTRY,
}

# Arguments that `from_config` reads under another name, or (None) from elsewhere.
_IN_CONFIGS = {
    "shuffle": "use_shuffle",
    "transform": "transforms",
    "metadata_filepath": "metadata_file",
    "num_updates": None,
}


def with_settings(
    config: dict[str, Any], settings: Mapping[str, Any], flag: str = ""
) -> dict[str, Any]:
    """A copy of a config with values at dotted keys, which it has or could have.

    Args:
        config: of a task.
        settings: the keys that lead to a value, such as ``model.heads.0.num_classes``, and the
            value. The last key may be new where it is known that its section has such an option.
        flag: that gave them, for messages (default: none).

    Raises:
        ValueError: a key that leads nowhere, with the nearest one.

    Example:
        >>> config = {"optimizer": {"name": "sgd_gc", "lr": 0.1}}
        >>> with_settings(config, {"optimizer.lr": 0.2})
        {'optimizer': {'name': 'sgd_gc', 'lr': 0.2}}
        >>> with_settings(config, {"optimiser.lr": 0.2})
        Traceback (most recent call last):
        classy_gc.options.OptionError: unknown key 'optimiser' in the config, did you mean ...
    """
    config = copy.deepcopy(config)
    for key, value in settings.items():
        path = _set(config, key, copy.deepcopy(value))
        if isinstance(config, Config):
            config.set_source(path, f"{flag} {key}={value_text(value)}".strip())
    return config


def _set(config: dict[str, Any], dotted_key: str, value: Any) -> tuple[Any, ...]:
    """Sets a value in place, and returns the keys that lead to it."""
    path, last = dotted_key.split(".")[:-1], dotted_key.rpartition(".")[2]
    section: Any = config
    owner, keys = section, []
    if path == ["optimizer", "param_schedulers"] and "optimizer" in config:
        config["optimizer"].setdefault("param_schedulers", {})
    for i, key in enumerate(path):
        keys.append(_key(section, key, path[:i]))
        owner, section = section, section[keys[-1]]
    new: Sequence[str] | None = ()
    if isinstance(section, Mapping):
        # Whatever the optimizer takes can have a schedule.
        scheduled = path[-1:] == ["param_schedulers"]
        new = _new_keys(owner, path[:-1]) if scheduled else _new_keys(section, path)
    keys.append(_key(section, last, path, new))
    section[keys[-1]] = value
    return tuple(keys)


def _key(section: Any, key: str, path: Sequence[str], new: Sequence[str] | None = ()) -> str | int:
    """The key as its section has it, or could have it: any where ``new`` is None."""
    label = ".".join(path) or "the config"
    if isinstance(section, list):
        check_known([key], map(str, range(len(section))), label, "index")
        return int(key)
    if not isinstance(section, Mapping):
        raise ValueError(f"{label} is {section!r}, so it has no key {key!r}")
    if new is not None:
        check_known([key], [*section, *new], label)
    return key


def _new_keys(section: Mapping[str, Any], path: Sequence[str]) -> list[str] | None:
    """What a section may have though its author did not write it: arguments of its class.

    None where they are checked later: check_config refuses what the config cannot have, and our
    own classes do so too.
    """
    registry: Mapping[str, Any] = next(
        (_REGISTRIES[key] for key in reversed(path) if key in _REGISTRIES), {}
    )
    cls = registry.get(section.get("name"), object)
    checked = registry is OPTIMIZER_REGISTRY and is_stock(cls)
    if not path or checked or cls.__module__.startswith("classy_gc."):
        return None
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = [key for name in names if (key := _IN_CONFIGS.get(name, name))]
    if hasattr(cls, "update_interval"):
        names.append("update_interval")
    return [*names, *(["param_schedulers", "param_groups"] if path == ["optimizer"] else [])]
