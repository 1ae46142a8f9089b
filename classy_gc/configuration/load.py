"""Reads configs and merges them with their bases; nothing here imports torch before it checks."""

import copy
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import classy_gc
from classy_gc.configuration.errors import Keys, section, user_error
from classy_gc.custom_imports import import_custom, import_from_folders, import_project
from classy_gc.files import atomic_write
from classy_gc.options import check_known, dotted, without_comments

_MOST_LEVELS = 50


class Config(dict[str, Any]):
    """A merged config that knows the file of each of its values.

    Args:
        file: the one that was read, as it was given.

    Example:
        >>> config = read_config("digits_adam_gc.json")
        >>> config["optimizer"]["name"], config.origin("optimizer", "name")
        ('adam_gc', 'digits_adam_gc.json')
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file
        self.sources: dict[Keys, str] = {}
        self.files: list[Path] = []  #: all files that were read, the bases first
        self.settings: set[Keys] = set()  #: the values that no file has

    def origin(self, *path: Any) -> str:
        """The file of a value; several for an object that several files wrote.

        Args:
            *path: the keys that lead to the value. A missing key stands for the object above it.
        """
        files = [file for at, file in self.sources.items() if at[: len(path)] == path]
        if path and not files:
            return self.origin(*path[:-1])
        return " and ".join(dict.fromkeys(files)) or self.file

    def set_source(self, path: Keys, file: str = "") -> None:
        """Sets the file of a value that is replaced, and of everything below it.

        Args:
            path: the keys that lead to the value.
            file: of the new value (default: its keys will say).
        """
        self.sources = {at: f for at, f in self.sources.items() if at[: len(path)] != path}
        if file:
            self.sources[path] = file


def load_config(path: str | Path, settings: Sequence[tuple[str, Any]] = ()) -> Config:
    """Reads a config, imports the modules that register its names, changes it, and checks it.

    It imports the ``custom_imports`` of the config, and the packages of a ``classy-project``. From
    here on, modules beside the config or a base of it can be imported.

    Args:
        path: of a JSON file, or of one that the package ships.
        settings: dotted keys and values from ``--set`` (default: none).

    Returns:
        The config, merged and without comments.

    Raises:
        ValueError: an error of :func:`read_config` or
            :func:`classy_gc.configuration.schema.check_config`, a module that cannot be imported,
            or a setting that leads nowhere.
    """
    config = read_config(path)
    import_from_folders(file.parent for file in config.files)
    from classy_gc.configuration.schema import check_config

    try:
        config = with_settings(config, dict(settings), "--set")
        with section():
            import_project()
            with section("custom_imports"):
                import_custom(config)
            check_config(config)
    except ValueError as error:
        raise ValueError(user_error(error, config)) from error
    return config


def read_config(path: str | Path) -> Config:
    """Reads a JSON config, merged onto its bases, without comments.

    ``_base_`` names a file, or a list of files, relative to the one that names them, or configs
    that the package ships. Objects merge key by key, and anything else replaces; a later base wins
    over an earlier one, and the file over its bases. An object with ``"_delete_": true`` replaces
    that of the bases.

    Args:
        path: of a JSON file, or of one that the package ships.

    Raises:
        ValueError: with the chain of files and the fault.

    Source: https://mmengine.readthedocs.io/en/latest/advanced_tutorials/config.html.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "mine.json")
        >>> _ = file.write_text('{"_base_": "digits_sgd_gc.json", "optimizer": {"use_gc": false}}')
        >>> read_config(file)["optimizer"]["use_gc"], read_config(file)["num_epochs"]
        (False, 20)
    """
    config = Config(str(path))
    if not str(path):
        raise ValueError("a config must be a file, not ''")
    _read_onto(config, str(path), Path(), {})
    merged = without_comments(dict(config))
    config.clear()
    config.update(merged)
    return config


def _read_onto(config: Config, name: str, folder: Path, above: Mapping[str, str]) -> None:
    """Merges a file, its bases first, onto the files read before.

    ``above`` maps the real path of each file on the way to it to its name.
    """
    chain = " → ".join([*above.values(), name])
    try:
        path = find_config(name, folder)
        if os.path.realpath(path) in above:
            raise ValueError("a circle of _base_")
        text = path.read_text(encoding="utf-8-sig")  # Windows writes a byte order mark
        data = json.loads(text, object_pairs_hook=_without_duplicates)
        if not isinstance(data, dict):
            raise ValueError(f"the config must be an object with keys, not {data!r}")
        _check_values(data, ())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{chain}: {getattr(error, 'strerror', error)}") from error
    bases = data.pop("_base_", [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str) or not base:
            raise ValueError(f"{chain}: _base_ must be a file or a list of files, not {base!r}")
        _read_onto(config, base, path.parent, {**above, os.path.realpath(path): name})
    _merge(config, config, data, (), chain)
    config.files.append(path.resolve())


def _merge(config: Config, below: Any, new: dict[str, Any], path: Keys, chain: str) -> None:
    """Merges an object of a file, at ``path``, into that of its bases."""
    file = chain.rpartition(" → ")[2]
    delete = new.pop("_delete_", False)
    if not isinstance(delete, bool):
        raise ValueError(f"{chain}: {dotted((*path, '_delete_'))} must be true, not {delete!r}")
    if delete and not below:
        raise ValueError(f"{chain}: {dotted((*path, '_delete_'))}: there is nothing to delete")
    if delete:
        below.clear()
        config.set_source(path)
    for key, value in new.items():
        at = (*path, key)
        if isinstance(value, dict) and value:
            if not isinstance(below.get(key), dict):
                below[key] = {}
                config.set_source(at)
            _merge(config, below[key], value, at, chain)
        elif value != {} or not isinstance(below.get(key), dict):
            below[key] = value
            config.set_source(at, file)


def _check_values(value: Any, path: Keys) -> None:
    """Refuses values that no option can have."""
    if len(path) > _MOST_LEVELS:
        raise ValueError(f"{dotted(path[:3])} is nested more than {_MOST_LEVELS} levels deep")
    if isinstance(value, (int, float)) and not abs(value) <= sys.float_info.max:
        raise ValueError(
            f"{dotted(path)} must be a number in a float's range, not {str(value)[:9]}"
        )
    if isinstance(value, (dict, list)):
        for key, x in value.items() if isinstance(value, dict) else enumerate(value):
            _check_values(x, (*path, key))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of a JSON file; of equal keys, json would silently keep the last."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result and (not key.startswith("_") or key in ("_base_", "_delete_")):
            raise ValueError(f"key {key!r} occurs twice, as {result[key]!r} and as {value!r}")
        result[key] = value
    return result


def dumps(config: Mapping[str, Any]) -> str:
    """A merged config as the text of a file that ``classy_train.py`` can run too."""
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def write_config(config: Config, folder: Path) -> None:
    """Writes a merged config as ``config.json`` into the folder of its run.

    Args:
        config: the one that was read. If it is that very file, or inherits it, nothing is written.
        folder: an existing folder.

    Raises:
        ValueError: there is a ``config.json`` that no run has written.
    """
    path = folder / "config.json"
    if path.resolve() in config.files:
        return
    if path.exists():
        try:
            old = path.read_text(encoding="utf-8")
            of_a_run = old == dumps(json.loads(old))
        except ValueError:
            of_a_run = False
        if not of_a_run:
            raise ValueError(f"{path} is not from a run and would be lost; name another folder")
    with atomic_write(path) as file:
        file.write(dumps(config).encode())


def shipped_configs() -> Path:
    """The folder of the configs: inside an installed package, or beside the package in a clone."""
    package = Path(classy_gc.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(path: str, folder: Path) -> Path:
    """Finds the config that a person names: a file, or else one that the package ships.

    Args:
        path: of a file, or a path in the package's ``configs``, with or without that folder.
        folder: the one that a path is relative to.

    Example:
        >>> find_config("digits_sgd_gc.json", Path()).is_file()
        True
        >>> find_config("my.json", Path("experiments")).as_posix()
        'experiments/my.json'
    """
    file, inside = folder / path, shipped_configs() / path.removeprefix("configs/")
    return inside if not file.exists() and inside.is_file() else file


def with_settings(config: Config, settings: Mapping[str, Any], flag: str = "") -> Config:
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
        >>> config = read_config("digits_sgd_gc.json")
        >>> with_settings(config, {"optimizer.weight_decay": 0.2})["optimizer"]["weight_decay"]
        0.2
        >>> with_settings(config, {"optimiser.weight_decay": 0.2})
        Traceback (most recent call last):
        ValueError: optimiser.weight_decay=0.2: unknown key 'optimiser' in the config, did you ...
    """
    config = copy.deepcopy(config)
    for key, value in settings.items():
        setting = f"{flag} {key}={value_text(value)}".strip()
        try:
            path = _set(config, key, copy.deepcopy(value))
        except ValueError as error:
            above = key.rpartition(".")[0]
            remedy = f"a new section is set as JSON: {above}={{…}}"
            raise ValueError(f"{setting}: {error}; {remedy}") from error
        config.set_source(path, setting)
        config.settings.add(path)
    return config


def value_text(value: Any) -> str:
    """A value in the form of a flag: words unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _set(config: dict[str, Any], dotted_key: str, value: Any) -> Keys:
    """Sets a value in place, and returns the keys that lead to it."""
    *above, last = dotted_key.split(".")
    if above == ["optimizer", "param_schedulers"] and isinstance(config.get("optimizer"), dict):
        config["optimizer"].setdefault("param_schedulers", {})
    section: Any = config
    path: Keys = ()
    for name in above:
        path = (*path, _key(section, name, path))
        if not isinstance(section, list):
            check_known([name], section, dotted(path[:-1]) or "the config")
        section = section[path[-1]]
    key = _key(section, last, path)
    section[key] = value
    return (*path, key)


def _key(section: Any, name: str, path: Keys) -> str | int:
    """A name on the command line as a key, or as the index of a list."""
    label = dotted(path) or "the config"
    if isinstance(section, list):
        check_known([name], map(str, range(len(section))), label, "index")
        return int(name)
    if not isinstance(section, dict):
        raise ValueError(f"{label} is {section!r}, so it has no key {name!r}")
    return name
