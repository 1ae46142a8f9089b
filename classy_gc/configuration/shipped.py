"""Finds the configs that the package ships."""

from __future__ import annotations

from pathlib import Path

import classy_gc


def shipped_configs() -> Path:
    """The folder of the configs: inside an installed package, or beside the package in a clone."""
    package = Path(classy_gc.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(path: str, folder: str | Path = "") -> str:
    """Finds the config that a person names: a file, or else one that the package ships.

    Args:
        path: of a file, or a path in the package's ``configs``, with or without that folder.
        folder: the one that a path is relative to (default: the current one).

    Example:
        >>> Path(find_config("digits_sgd_gc.json")).is_file()
        True
        >>> find_config("my.json", "experiments")
        'experiments/my.json'
    """
    file, inside = Path(folder, path), shipped_configs() / path.removeprefix("configs/")
    try:
        return str(inside if not file.exists() and inside.is_file() else file)
    except OSError:  # reading it will raise the same error, such as a name that is too long
        return str(file)
