"""One line on what is wrong with a config, whatever stumbled over it."""

from __future__ import annotations

import json
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from classy_vision.dataset.transforms.mixup import MixupTransform
from classy_vision.heads import ClassyHead
from classy_vision.hooks import HOOK_REGISTRY, ClassyHook
from classy_vision.meters import METER_REGISTRY, ClassyMeter
from classy_vision.tasks import ClassyTask

Keys = tuple[Any, ...]

# What these methods of a task work on; set_… on the key of that name. What they call may know more.
_FUNCTIONS: dict[str, Keys] = {
    "set_distributed_options": ("distributed",),
    "prepare_optimizer": ("optimizer",),
    "compute_model": ("model",),
    "compute_loss": ("loss",),
    "check_inf_nan": ("loss",),
    "update_meters": ("meters",),
}

# Their message says all there is to say; of others the class helps too.
_SELF_EXPLAINING = (ValueError, AssertionError, OSError, ImportError, RuntimeError, ArithmeticError)

_LONGEST_VALUE = 120


def user_error(error: BaseException) -> str:
    """What an error says of the config that it comes from.

    Args:
        error: caught while a task was built from a config, prepared, or tried with a batch.

    Returns:
        One line: the section of the config, where the traceback leads through one, with its
        value where that is short; and the message. What this package's own checks say names its
        place already.

    Example:
        >>> from classy_vision.tasks import build_task
        >>> config = {"name": "classification_task", "test_only": True, "dataset": {}}
        >>> config |= {"loss": {"name": "CrossEntropyLoss"}, "meters": {"accuracy": {}}}
        >>> try:
        ...     build_task(config)
        ... except KeyError as error:
        ...     print(user_error(error))
        meters {"accuracy": {}}: missing key 'topk' (read by classy_vision.meters.accuracy_meter)
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    frame, line = frames[-1]
    module = frame.f_globals.get("__name__", "")
    text = str(error)
    if isinstance(error, KeyError):
        # Some raise it with a sentence.
        text = text.strip("'\"") if " " in text else f"missing key {text} (read by {module})"
    elif not text:  # a bare assert
        source = traceback.extract_tb(error.__traceback__)[-1].line
        text = f"{module}, line {line}: {source}"
    if not isinstance(error, (KeyError, *_SELF_EXPLAINING)):
        text = f"{type(error).__name__}: {text}"
    own = isinstance(error, ValueError) and module.startswith("classy_gc.")
    label = "" if own else _section(frames)
    return textwrap.shorten(f"{label}: {text}" if label else text, 800, placeholder=" …")


def _section(frames: list[tuple[Any, int]]) -> str:
    """The innermost section of a config on the way to an error, as a person would write it."""
    config, path, other = {}, (), ""
    for frame, _ in frames:
        variables = frame.f_locals
        owner = variables.get("self")
        if isinstance(owner, ClassyTask):
            config = getattr(owner, "_config", config)
        code = frame.f_code
        parameters = code.co_varnames[: code.co_argcount]
        for name in {"config", *parameters} & variables.keys():
            value = variables[name]
            if name == "config" and isinstance(value, Mapping) and "dataset" in value:
                config = value
            elif name.endswith("config") and isinstance(value, Mapping):
                path = _path(config, value) or path
        method, key = code.co_name, code.co_name.removeprefix("set_")
        if method == "first_batch":
            path = ("dataset", variables["phase"])
        elif isinstance(owner, ClassyTask):
            path = _FUNCTIONS.get(method) or ((key,) if key != method and key in config else path)
        elif isinstance(owner, MixupTransform):
            path = ("mixup",)
        elif isinstance(owner, ClassyHead):
            path = _head(config, owner) or path
        elif isinstance(owner, ClassyMeter):
            name = next((n for n, c in METER_REGISTRY.items() if c is type(owner)), None)
            path = ("meters", name)
        elif isinstance(owner, ClassyHook):
            name = next((n for n, c in HOOK_REGISTRY.items() if isinstance(owner, c)), None)
            names = [hook["name"] for hook in config.get("hooks") or []]
            path = ("hooks", names.index(name)) if name in names else ()
            other = f"hook {name!r}" if name else ""
    return _shown(config, path) or other


def _path(config: Any, section: Any) -> Keys:
    """The keys that lead to a section of a config: itself, else the first that equals it."""
    items = list(_sections(config, ()))
    for same in (lambda x: x is section, lambda x: x == section):
        for path, value in items:
            if path and same(value):
                return path
    return ()


def _sections(value: Any, path: Keys) -> Iterator[tuple[Keys, Any]]:
    yield path, value
    if isinstance(value, (Mapping, list)):
        for key, x in value.items() if isinstance(value, Mapping) else enumerate(value):
            if isinstance(x, (Mapping, list)):
                yield from _sections(x, (*path, key))


def _head(config: Mapping[str, Any], head: ClassyHead) -> Keys:
    for i, section in enumerate(config.get("model", {}).get("heads", [])):
        if section.get("unique_id") == head.unique_id:
            return "model", "heads", i
    return ()


def _shown(config: Any, path: Keys) -> str:
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
        try:
            config = config[key]
        except (KeyError, IndexError, TypeError):  # a task that was not built from a config
            return text[1:]
    value = json.dumps(config, default=str) if path else ""
    return f"{text} {value}"[1:] if len(value) <= _LONGEST_VALUE else text[1:]
