"""``custom_imports`` of a config: modules that register the names in the config."""

import importlib
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


def import_from_current_folder() -> None:
    """Makes modules in the current folder importable, as under ``classy_train.py``."""
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def import_from_folders(folders: Iterable[Path]) -> None:
    """Makes modules in these folders importable, unless a module elsewhere has the same name.

    Args:
        folders: such as those of a config and its bases.
    """
    sys.path += [name for name in dict.fromkeys(map(str, folders)) if name not in sys.path]


def import_project() -> None:
    """In a folder made by ``classy-project``, imports what ``classy_train.py`` would import.

    These are the packages beside that script, which register names for configs. A warning says
    which package cannot be imported, and why.

    Source: Classy Vision's ``generic/registry_utils.py``.
    """
    if not Path("classy_train.py").is_file():
        return
    for file in sorted(Path().glob("*/__init__.py")):
        package = file.parent.name
        if "." in package or package in sys.modules:
            continue
        try:
            import_named(package, "beside classy_train.py")
        except ValueError as error:
            logging.warning(error)


def import_named(module: str, label: str) -> ModuleType:
    """Imports a module that a config names, and returns it.

    Args:
        module: its name. It may lie in the current folder, or beside the config that a command
            reads.
        label: of the key that names it, for messages.

    Raises:
        ValueError: it cannot be imported, with the reason.

    Example:
        >>> import_named("json", "custom_imports").__name__
        'json'
    """
    import_from_current_folder()
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a module may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{label}: {module!r} cannot be imported: {reason}") from error


def import_custom(config: Mapping[str, Any]) -> None:
    """Imports the modules of ``custom_imports``, which registers their names.

    Args:
        config: of a task; without the key, nothing happens. The modules may lie in the current
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
    for module in modules:
        import_named(module, "custom_imports")
