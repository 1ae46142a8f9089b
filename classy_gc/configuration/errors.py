"""Turns any error from a config into one line on what is wrong with it."""

import json
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from classy_gc.options import dotted

# The messages of these say enough; for others the name of the class helps.
_SELF_EXPLAINING = (ValueError, AssertionError, OSError, ImportError, RuntimeError, ArithmeticError)

Keys = tuple[Any, ...]  #: the path of a value in a config

_LONGEST_VALUE = 120
_LONGEST_LINE = 800


@contextmanager
def section(*path: Any) -> Iterator[None]:
    """Makes an error in the ``with`` block, or in a function, name a section of a config.

    Args:
        *path: the keys that lead to the section. The innermost block decides.

    Example:
        >>> try:
        ...     with section("model"), section("model", "heads", 0):
        ...         raise IndexError("list index out of range")
        ... except IndexError as error:
        ...     print(user_error(error))
        model.heads[0]: IndexError: list index out of range
    """
    try:
        yield
    except Exception as error:
        if not hasattr(error, "section"):
            error.section = path  # type: ignore[attr-defined]
        raise


def user_error(error: BaseException, config: Mapping[str, Any] | None = None) -> str:
    """The message of an error that comes from a config.

    Args:
        error: caught while a task was built from a config, prepared, or tried with a batch.
        config: the one that :func:`section` refers to (default: None, and its values are not
            shown).

    Returns:
        One line: the file, if the config knows it; the section, with its value if that is short;
        and the message. The messages of this package's own checks already name their place.

    Example:
        >>> from classy_vision.meters import build_meter
        >>> try:
        ...     with section("meters", "accuracy"):
        ...         build_meter({"name": "accuracy"})
        ... except KeyError as error:
        ...     print(user_error(error, {"meters": {"accuracy": {}}}))
        meters.accuracy {}: missing key 'topk' (read by classy_vision.meters.accuracy_meter)
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    module = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    text = str(error)
    if isinstance(error, KeyError):
        # Some KeyErrors hold a sentence.
        text = text.strip("'\"") if " " in text else f"missing key {text} (read by {module})"
    elif not text and frames:  # a bare assert
        source = traceback.extract_tb(error.__traceback__)[-1].line
        text = f"{module}, line {frames[-1][1]}: {source}"
    if not isinstance(error, (KeyError, *_SELF_EXPLAINING)):
        text = f"{type(error).__name__}: {text}"
    path = getattr(error, "section", None)
    if path is not None:
        own = isinstance(error, ValueError) and module.startswith("classy_gc.")
        if path and not own:
            text = f"{_label(path, config)}: {text}"
        origin = getattr(config, "origin", None)
        if origin:
            text = f"{origin(*path, *getattr(error, 'keys', ()))}: {text}"
    return textwrap.shorten(text, _LONGEST_LINE, placeholder=" …")


def _label(path: Keys, config: Mapping[str, Any] | None) -> str:
    """A section as a person would write it, with its value if that is short."""
    text = dotted(path)
    value: Any = config
    try:
        for key in path:
            value = value[key]
    except (KeyError, IndexError, TypeError):  # it is not in the config, like the default hooks
        return text
    shown = json.dumps(value, default=str)
    return f"{text} {shown}" if len(shown) <= _LONGEST_VALUE else text
