"""Lengths of a ``composite`` in steps and epochs, for a warm-up of ``"500 steps"``."""

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
    """The config of an optimizer with shares of the training as lengths, not steps and epochs.

    Args:
        config: of an optimizer, or a part of one, which stays as it is.
        num_epochs: of the training.
        steps: of the optimizer in the training (default: None, not known yet, and any number of
            them is taken for next to nothing)
        label: what the config is, for the message (default: ``optimizer``)

    Raises:
        ValueError: lengths that exceed the training, or do not fill it.

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
            f"{f' of together {steps:g} steps' if steps else ''}, with one 'rest' at most, "
            f"not {lengths!r}"
        )
    return [max(rest, 0.0) if share == "rest" else share for share in shares]
