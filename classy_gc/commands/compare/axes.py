"""Reads from the flags what varies between the arms of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from classy_gc.configuration.settings import parse_settings, value_text


class Choice(NamedTuple):
    """One value of --vary, or one --arm."""

    label: str
    settings: dict[str, Any]


def parse_axes(
    named_arms: Sequence[Sequence[str]], varied_keys: Sequence[str]
) -> list[list[Choice]]:
    """The axes of a comparison: the named arms, then a list of choices for each --vary.

    Args:
        named_arms: for each --arm, its name and then ``KEY=VALUE`` settings.
        varied_keys: ``KEY=VALUE,…`` of each --vary.

    Raises:
        ValueError: with the flag and its fault.

    Example:
        >>> axes = parse_axes([], ["optimizer.use_gc=false,true"])
        >>> [choice.label for choice in axes[0]]
        ['use_gc=false', 'use_gc=true']
    """
    named = []
    for name, *settings in named_arms:
        if not name:
            raise ValueError("--arm must have a name, not ''")
        parsed = dict(map(parse_settings, settings))
        if len(parsed) < len(settings):
            raise ValueError(f"--arm {name}: a key occurs twice")
        for key, values in parsed.items():
            if len(values) > 1:
                raise ValueError(f"--arm {name}: {key} must have one value, not {len(values)}")
        named.append(Choice(name, {key: values[0] for key, values in parsed.items()}))
    varied = dict(map(parse_settings, varied_keys))
    keys = [*varied, *{key for choice in named for key in choice.settings}]
    if len(varied) < len(varied_keys) or len(set(keys)) < len(keys):
        raise ValueError("--vary: a key occurs twice")
    axes = [named] if named else []
    for key, values in varied.items():
        short = short_name(key, keys)
        labels = [value_text(value) for value in values]
        names = [
            value_text(v.get("name", v)) if isinstance(v, Mapping) else value_text(v)
            for v in values
        ]
        if len(set(names)) == len(labels):
            labels = names  # schedulers are too long for labels
        axes.append(
            [Choice(f"{short}={label}", {key: v}) for label, v in zip(labels, values, strict=True)]
        )
    return axes


def short_name(key: str, keys: Sequence[str]) -> str:
    """The shortest end of a dotted key that no other key has."""
    parts = key.split(".")
    for n in range(1, len(parts)):
        short = ".".join(parts[-n:])
        if (
            not short[:1].isdigit()
            and sum(f".{other}".endswith(f".{short}") for other in keys) == 1
        ):
            return short
    return key
