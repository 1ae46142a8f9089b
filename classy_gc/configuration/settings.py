"""``KEY=VALUE`` on the command line: dotted keys, and JSON or words."""

import json
from typing import Any

Setting = tuple[str, Any]


def parse_values(text: str) -> list[Any]:
    """Reads JSON values between commas; a value that is not JSON is a string.

    Args:
        text: of the flag.

    Raises:
        ValueError: a value is empty, or a list, an object or a string is not JSON.

    Example:
        >>> parse_values("false,0.1,cosine,[0.9,0.99]")
        [False, 0.1, 'cosine', [0.9, 0.99]]
    """
    decoder, values, at = json.JSONDecoder(), [], 0
    while at <= len(text):
        try:
            value, end = decoder.raw_decode(text, at)
            if text[end : end + 1] not in ("", ","):
                raise ValueError
        except ValueError:
            end = text.find(",", at) if "," in text[at:] else len(text)
            value = text[at:end]
            if not value or value[0] in '[{"':
                raise ValueError(f"{text[at:]!r} is neither JSON nor a word") from None
        values.append(value)
        at = end + 1
    return values


def parse_settings(text: str) -> tuple[str, list[Any]]:
    """Reads a dotted key, and the values that it takes in turn.

    Args:
        text: ``KEY=VALUE,…``

    Raises:
        ValueError: no key, no value, or one that is neither JSON nor a word.

    Example:
        >>> parse_settings("optimizer.use_gc=false,true")
        ('optimizer.use_gc', [False, True])
    """
    key, equals, values = text.partition("=")
    if not key or not equals:
        raise ValueError(f"{text!r} must be KEY=VALUE")
    try:
        return key, parse_values(values)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def parse_setting(text: str) -> Setting:
    """Reads a dotted key and its one value.

    Args:
        text: ``KEY=VALUE``

    Raises:
        ValueError: as in :func:`parse_settings`, or several values.

    Example:
        >>> parse_setting("optimizer.lr=0.2")
        ('optimizer.lr', 0.2)
    """
    key, values = parse_settings(text)
    if len(values) > 1:
        raise ValueError(f"{key} must have one value, not {len(values)}")
    return key, values[0]


def value_text(value: Any) -> str:
    """A value in the form of a flag: words unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
