"""One thread for small models, where several threads wait longer than they compute."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from classy_vision.tasks import ClassyTask
from torch import Tensor, nn

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

# So many multiplications per batch take one core some milliseconds.
_SMALL = 100_000_000


def take_threads(task: ClassyTask, run: Callable[[], None]) -> None:
    """Trains a small model with one thread on a CPU, unless ``OMP_NUM_THREADS`` is set.

    On a busy machine, each of torch's parallel regions waits until all of its threads have run.

    Args:
        task: prepared.
        run: runs a batch through the model or its copies; a model that it does not run keeps
            torch's threads.
    """
    multiplications = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal multiplications
        multiplications += output.numel() * layer.weight[0].numel()

    layers = [layer for layer in task.base_model.modules() if isinstance(layer, _LAYERS)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    small = 0 < multiplications < _SMALL and not getattr(task, "use_gpu", False)
    if small and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
