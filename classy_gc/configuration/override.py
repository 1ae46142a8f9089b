"""Sets single values of a config by dotted keys."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from classy_gc.configuration.load import Config
from classy_gc.configuration.settings import value_text
from classy_gc.options import check_known


def with_settings(
    config: dict[str, Any], settings: Mapping[str, Any], flag: str = ""
) -> dict[str, Any]:
    """A copy of a config with values at dotted keys.

    Args:
        config: of a task.
        settings: values by dotted key, such as ``model.heads.0.num_classes``. The last key may be
            new: the class that reads the section refuses keys that it does not know, and
            :func:`classy_gc.configuration.build.build_task` keys that nothing reads.
        flag: the one that gave them, for messages (default: none).

    Raises:
        ValueError: a key that leads nowhere, with the nearest one.

    Example:
        >>> config = {"optimizer": {"name": "sgd_gc", "lr": 0.1}}
        >>> with_settings(config, {"optimizer.lr": 0.2})
        {'optimizer': {'name': 'sgd_gc', 'lr': 0.2}}
        >>> with_settings(config, {"optimiser.lr": 0.2})
        Traceback (most recent call last):
        ValueError: optimiser.lr=0.2: unknown key 'optimiser' in the config, did you mean ...
    """
    config = copy.deepcopy(config)
    for key, value in settings.items():
        setting = f"{flag} {key}={value_text(value)}".strip()
        try:
            path = _set(config, key, copy.deepcopy(value))
        except ValueError as error:
            whole = f"{key.rpartition('.')[0]}={{…}}"
            raise ValueError(
                f"{setting}: {error}; a new section is set as JSON: {whole}"
            ) from error
        if isinstance(config, Config):
            config.set_source(path, setting)
            config.settings.add(path)
    return config


def _set(config: dict[str, Any], dotted_key: str, value: Any) -> tuple[Any, ...]:
    """Sets a value in place, and returns the keys that lead to it."""
    *path, last = dotted_key.split(".")
    if path == ["optimizer", "param_schedulers"] and "optimizer" in config:
        config["optimizer"].setdefault("param_schedulers", {})
    section: Any = config
    keys: list[str | int] = []
    for i, key in enumerate(path):
        keys.append(_key(section, key, path[:i]))
        section = section[keys[-1]]
    keys.append(_key(section, last, path, new=True))
    section[keys[-1]] = value
    return tuple(keys)


def _key(section: Any, key: str, path: Sequence[str], new: bool = False) -> str | int:
    """The key, or the index, in its section, which may lack the key if it is new."""
    label = ".".join(path) or "the config"
    if isinstance(section, list):
        check_known([key], map(str, range(len(section))), label, "index")
        return int(key)
    if not isinstance(section, Mapping):
        raise ValueError(f"{label} is {section!r}, so it has no key {key!r}")
    if not new:
        check_known([key], section, label)
    return key
