"""What a training does before its first step."""

import pytest
import torch

from tests.commands.training import short, train

LARGE = {"name": "mlp", "input_dim": 192, "output_dim": 10, "hidden_dims": [2048, 2048]}
SMALL = LARGE | {"hidden_dims": [4]}


@pytest.mark.parametrize(
    ("changes", "variable", "threads"),
    [({}, None, 1), ({}, "2", 2), ({"model": LARGE}, None, 2)],
    ids=["small", "set by the user", "large"],
)
def test_threads(here, monkeypatch, changes, variable, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    try:
        assert train(short(samples=32) | changes, "--skip_tensorboard") == 0
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("samples", "drop_last", "changes", "warned"),
    [
        (67, False, {}, True),
        (68, False, {}, False),  # an eighth of 32
        (64, False, {}, False),
        (67, True, {}, False),
        (67, False, {"model": SMALL | {"use_batchnorm": True}}, True),
        (67, False, {"model": SMALL}, False),
    ],
)
def test_a_last_batch_that_is_too_small_is_told_once(
    samples, drop_last, changes, warned, here, capfd
):
    config = short(epochs=2, samples=samples) | changes
    config["dataset"]["train"]["drop_last"] = drop_last
    config["dataset"]["test"]["num_samples"] = 8
    assert train(config, "--skip_tensorboard") == 0
    text = 'each epoch ends with a batch of 3, not 32: too few for batch normalization; set "drop'
    assert capfd.readouterr().err.count(text) == warned
