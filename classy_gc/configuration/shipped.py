"""The configs that the package ships."""

from __future__ import annotations

from pathlib import Path

import classy_gc


def shipped_configs() -> Path:
    """The folder of the configs: inside an installed package, beside that of a clone."""
    package = Path(classy_gc.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(path: str, folder: str | Path = "") -> str:
    """A config as a person names it: a file, or else one that the package ships.

    Args:
        path: of a file, or its path in the package's ``configs``, with or without that folder.
        folder: that the path of a file is relative to (default: the current one).

    Example:
        >>> Path(find_config("digits_sgd_gc.json")).is_file()
        True
        >>> find_config("my.json", "experiments")
        'experiments/my.json'
    """
    file, inside = Path(folder, path), shipped_configs() / path.removeprefix("configs/")
    try:
        return str(inside if not file.exists() and inside.is_file() else file)
    except OSError:  # who reads it tells, such as that the name is too long
        return str(file)
