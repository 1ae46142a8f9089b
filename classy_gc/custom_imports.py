"""``custom_imports`` of a config: modules whose import registers what the config names."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def import_from_current_folder() -> None:
    """Lets modules in the current folder be imported, as under ``classy_train.py``."""
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def import_from_folders(folders: Iterable[Path]) -> None:
    """Lets modules in these folders be imported, where no module elsewhere has their name.

    Args:
        folders: such as those of a config and its bases.
    """
    sys.path += [name for name in dict.fromkeys(map(str, folders)) if name not in sys.path]


def import_project() -> None:
    """In a folder that ``classy-project`` made, imports what ``classy_train.py`` would.

    These are the packages beside that script, whose import registers what configs name. One that
    cannot be imported is warned of, with the reason.

    Source: Classy Vision's ``generic/registry_utils.py``.
    """
    if not Path("classy_train.py").is_file():
        return
    import_from_current_folder()
    for file in sorted(Path().glob("*/__init__.py")):
        package = file.parent.name
        if "." in package or package in sys.modules:
            continue
        try:
            importlib.import_module(package)
        except (Exception, SystemExit) as error:  # whatever the code of a module may raise
            logging.warning(
                f"package {package!r} beside classy_train.py cannot be imported: "
                f"{type(error).__name__}: {error}"
            )


def import_custom(config: Mapping[str, Any]) -> None:
    """Imports the modules of ``custom_imports``, so that their registrations are known.

    Args:
        config: of a task; without the key nothing happens. The modules may lie in the current
            folder, or beside the config that a command reads.

    Raises:
        ValueError: not a list of names, or a module that cannot be imported, with the reason.

    Example:
        >>> import_custom({"custom_imports": ["json"]})
        >>> import_custom({"custom_imports": ["jason"]})
        Traceback (most recent call last):
        ValueError: custom_imports: 'jason' cannot be imported: ModuleNotFoundError: No module
        named 'jason'
    """
    modules = config.get("custom_imports", [])
    if not isinstance(modules, list) or not all(isinstance(m, str) and m for m in modules):
        raise ValueError(f"custom_imports must be a list of module names, not {modules!r}")
    if modules:
        import_from_current_folder()
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # whatever the code of a module may raise
            raise ValueError(
                f"custom_imports: {module!r} cannot be imported: {type(error).__name__}: {error}"
            ) from error
