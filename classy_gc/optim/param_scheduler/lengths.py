"""Lengths of a ``composite`` in steps and epochs, for a warm-up such as ``"500 steps"``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from classy_vision.optim.param_scheduler import PARAM_SCHEDULER_REGISTRY

from classy_gc.options import NON_NEGATIVE, Rule

_NEXT_TO_NOTHING = 1e-5
_TEXT = re.compile(r"(\d+) steps?|(\d+(?:\.\d+)?) epochs?|rest")


def _is_length(value: Any) -> bool:
    return NON_NEGATIVE.accepts(value) or (isinstance(value, str) and bool(_TEXT.fullmatch(value)))


LENGTHS = Rule(
    "a list of shares of the training, 'N steps', 'N epochs' and 'rest'",
    lambda v: isinstance(v, list) and all(map(_is_length, v)),
)


def with_shares(
    config: Any, num_epochs: float, steps: float | None = None, label: str = "optimizer"
) -> Any:
    """Turns lengths in steps and epochs in an optimizer's config into shares of the training.

    Args:
        config: of an optimizer, or a section of one; not changed.
        num_epochs: of the training.
        steps: optimizer steps in the training (default: None, not known yet; any number of steps
            then counts as next to nothing)
        label: names the config in messages (default: ``optimizer``)

    Raises:
        ValueError: lengths that exceed or do not fill the training.

    Example:
        >>> part = {"name": "constant", "value": 0.1}
        >>> warm_up = {"name": "composite", "schedulers": [part] * 2}
        >>> with_shares(warm_up | {"lengths": ["50 steps", "rest"]}, 4, 200)["lengths"]
        [0.25, 0.75]
    """
    if not isinstance(config, Mapping):
        return config
    if config.get("name") == "composite" and LENGTHS.accepts(config.get("lengths")):
        return {**config, "lengths": _shares(config["lengths"], num_epochs, steps, label)}
    if config.get("name") in PARAM_SCHEDULER_REGISTRY:
        return config
    return {k: with_shares(v, num_epochs, steps, f"{label}.{k}") for k, v in config.items()}


def _shares(lengths: list[Any], num_epochs: float, steps: float | None, label: str) -> list[Any]:
    if not any(isinstance(length, str) for length in lengths):
        return lengths
    shares = []
    for length in lengths:
        if isinstance(length, str) and length != "rest":
            in_steps, in_epochs = _TEXT.fullmatch(length).groups()
            in_training, length = (steps, in_steps) if in_steps else (num_epochs, in_epochs)
            length = float(length) / in_training if in_training else _NEXT_TO_NOTHING
        shares.append(length)
    rest = 1 - sum(share for share in shares if share != "rest")
    rests = shares.count("rest")
    if rest < -1e-9 or rests > 1 or (rests == 0 and rest > 1e-3):
        raise ValueError(
            f"{label}: lengths must fill the training, {num_epochs:g} epochs"
            f"{f' or {steps:g} steps' if steps else ''}, with at most one 'rest', "
            f"not {lengths!r}"
        )
    return [max(rest, 0.0) if share == "rest" else share for share in shares]
