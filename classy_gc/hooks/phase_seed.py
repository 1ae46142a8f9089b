"""``phase_seed``: seeds every random number generator anew for each phase."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from classy_vision.generic.distributed_util import get_rank
from classy_vision.hooks import ClassyHook, register_hook

from classy_gc.options import check_known


@register_hook("phase_seed")
class PhaseSeedHook(ClassyHook):
    """``phase_seed``: what is random in a phase depends on the seed, the phase and the rank.

    So a run resumed from a checkpoint draws the dropout masks and augmentations that the
    uninterrupted one drew, though Classy Vision's checkpoints hold no generator state. Must
    come after hooks that draw random numbers themselves when training starts, as
    ``model_complexity`` does. Seeds torch, numpy and ``random``.

    Args:
        seed (int): >= 0 (default: 0)

    Raises:
        ValueError: an unknown key, or a seed that is not an integer >= 0.

    Source: https://numpy.org/doc/stable/reference/random/parallel.html, *SeedSequence*.

    Example:
        >>> from classy_vision.hooks import build_hook
        >>> build_hook({"name": "phase_seed", "seed": 1}).seed
        1
    """

    on_phase_start = ClassyHook._noop
    on_step = ClassyHook._noop
    on_end = ClassyHook._noop

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"hook 'phase_seed': seed must be an integer >= 0, not {seed!r}")
        self.seed = seed

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PhaseSeedHook:
        """Instantiates the hook from a configuration: its arguments, by name."""
        check_known(config, ["seed"], "hook 'phase_seed'")
        return cls(**config)

    def on_start(self, task: Any) -> None:
        """Seeds the first phase, or the one that a resumed run starts with."""
        self._seed_next_phase(task)

    def on_phase_end(self, task: Any) -> None:
        """Seeds the next phase, before its data loader draws the seeds of its workers."""
        self._seed_next_phase(task)

    def _seed_next_phase(self, task: Any) -> None:
        entropy = np.random.SeedSequence([self.seed, task.phase_idx + 1, get_rank()])
        seed = int(entropy.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
