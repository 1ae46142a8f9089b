import random
from types import SimpleNamespace

import numpy as np
import torch
from classy_vision.hooks import build_hook

import classy_gc  # noqa: F401


def draws(seed, phase_idx):
    build_hook({"name": "phase_seed", "seed": seed}).on_phase_end(
        SimpleNamespace(phase_idx=phase_idx)
    )
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_each_phase_of_each_seed_has_its_own_numbers():
    runs = [draws(seed, phase) for seed in (0, 1, 2**40) for phase in (-1, 0, 1)]
    for generator in zip(*runs, strict=True):
        assert len(set(generator)) == len(runs)
    assert draws(1, 0) == runs[4]


def test_a_resumed_run_starts_as_the_phase_before_it_ended():
    hook, task = build_hook({"name": "phase_seed"}), SimpleNamespace(phase_idx=2)
    hook.on_phase_end(task)
    expected = torch.rand(3)
    hook.on_start(task)
    assert torch.equal(torch.rand(3), expected)
