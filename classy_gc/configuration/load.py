"""Reads Classy Vision configs, and has them checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from classy_gc.configuration.schema import check_config, check_keys
from classy_gc.configuration.shipped import find_config
from classy_gc.custom_imports import import_custom, import_project
from classy_gc.options import without_comments


def load_config(path: str | Path) -> dict[str, Any]:
    """Reads a config, imports what may register its names, and checks them.

    That are its ``custom_imports``, and the packages of a ``classy-project``.

    Args:
        path: of a JSON file, or of one that the package ships.

    Returns:
        The config.

    Raises:
        ValueError: there is no such file, it is not JSON, a module cannot be imported, or
            :func:`check_config` refuses it.
    """
    try:
        text = Path(find_config(str(path))).read_text(encoding="utf-8")
        config = without_comments(json.loads(text, object_pairs_hook=_without_duplicates))
    except OSError as error:
        raise ValueError(f"--config_file {path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--config_file {path} is not valid JSON: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    try:
        check_keys(config, "the config")
        import_project()
        import_custom(config)
        check_config(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return config


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON file, of which json would keep the last of equal keys."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result and not key.startswith("_"):
            raise ValueError(f"key {key!r} is there twice, as {result[key]!r} and as {value!r}")
        result[key] = value
    return result
