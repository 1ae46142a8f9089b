"""How many threads a training takes."""

import pytest
import torch

from tests.commands.training import short, train

LARGE = {"name": "mlp", "input_dim": 192, "output_dim": 10, "hidden_dims": [2048, 2048]}


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("changes", "variable", "threads"),
    [({}, None, 1), ({}, "2", 2), ({"model": LARGE}, None, 2)],
    ids=["small", "set by the user", "large"],
)
def test_threads(here, monkeypatch, changes, variable, threads):
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert train(short(samples=32) | changes, "--skip_tensorboard") == 0
    assert torch.get_num_threads() == threads
