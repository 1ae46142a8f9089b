"""Builds a task whose random numbers depend only on a seed."""

import argparse
import copy
import functools
import os
from typing import Any

import torch
from classy_vision.tasks import ClassyTask

from classy_gc.configuration.build import build_task
from classy_gc.hooks.phase_seed import seed_generators

#: the name of the hook that the training builds itself
TENSORBOARD = "tensorboard_plot"

# More epochs than anyone trains, so that no two seeds share the order of an epoch.
_SHUFFLE_STRIDE = 1_000_000


def build_seeded_task(args: argparse.Namespace, config: dict[str, Any]) -> ClassyTask:
    """Builds a task whose random numbers, and the order of its data, depend only on the seed.

    Args:
        args: with ``seed``.
        config: of the task; not changed.
    """
    seed_generators(args.seed)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=True)
    # Classy Vision would create the folder of this hook at once, on every rank.
    config = copy.copy(config)
    config["hooks"] = [h for h in config.get("hooks") or [] if h["name"] != TENSORBOARD]
    task = build_task(config)
    if getattr(task, "test_only", False):
        # Classy Vision would test num_epochs times, and compare the test's batch size with the one
        # that training simulates.
        task.set_num_epochs(1).set_simulated_global_batchsize(None)
    if hasattr(task, "build_dataloader_from_dataset"):
        task.build_dataloader_from_dataset = functools.partial(
            task.build_dataloader_from_dataset, shuffle_seed=_SHUFFLE_STRIDE * args.seed
        )
    return task
