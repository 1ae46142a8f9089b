"""``phase_seed``: seeds every random number generator anew for each phase."""

import random
from typing import Any, ClassVar

import numpy as np
import torch
from classy_vision.generic.distributed_util import get_rank
from classy_vision.hooks import register_hook

from classy_gc.hooks.checked_hook import CheckedHook
from classy_gc.options import COUNT_OR_ZERO


def seed_generators(seed: int) -> None:
    """Seeds torch, numpy and ``random``.

    Args:
        seed: in [0, 2³²).
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@register_hook("phase_seed")
class PhaseSeedHook(CheckedHook):
    """``phase_seed``: seeds the random numbers of a phase by the seed, the phase and the rank.

    So a run resumed from a checkpoint draws the dropout masks and augmentations of an uninterrupted
    one, although Classy Vision's checkpoints hold no generator state. This hook must come after
    hooks that draw random numbers when training starts, such as ``model_complexity``. It seeds
    torch, numpy and ``random``.

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

    OPTIONS: ClassVar = {"seed": (0, COUNT_OR_ZERO)}

    def on_start(self, task: Any) -> None:
        """Seeds the next phase, before its data loader draws the seeds of its workers."""
        entropy = np.random.SeedSequence([self.seed, task.phase_idx + 1, get_rank()])
        seed_generators(int(entropy.generate_state(1)[0]))

    on_phase_end = on_start
