"""Without GC, training by ``<name>_gc`` is training by the stock ``<name>``, bit for bit.

It is trained by Classy Vision itself: its task, its trainer, its options.
"""

import copy

import pytest
import torch
from classy_vision.tasks import build_task
from classy_vision.trainer import LocalTrainer

from .cases import CONFIGS, STOCK, assert_same, keeps_row_means

RUNS = {
    "sgd": STOCK["sgd"],
    "adam": {**STOCK["adam"], "amsgrad": False},
    "adam-amsgrad": STOCK["adam"],
    "adamw": {**STOCK["adamw"], "amsgrad": False},
    "adamw-amsgrad": STOCK["adamw"],
    "rmsprop": {**STOCK["rmsprop"], "centered": False},
    "rmsprop-centered": STOCK["rmsprop"],
}
SCHEDULES = {
    "lr": {"name": "cosine", "start_value": 0.01, "end_value": 0.0001},
    "weight_decay": {"name": "step", "values": [0.1, 0.01]},
}
BN = {"bn_weight_decay": True}
CLIP = {"clip_grad_norm": 0.05}
ACCUMULATE = {"simulated_global_batchsize": 64}  # two batches
ALL = BN | CLIP | ACCUMULATE
OPTIONS = [{}, ALL]


def dataset(split, num_samples):
    return {
        "name": "digits",
        "split": split,
        "batchsize_per_replica": 32,
        "use_shuffle": split == "train",
        "num_samples": num_samples,
        "num_workers": 0,
    }


def trained(optimizer, **options):
    """A task after epochs of four batches, and the weights it started from."""
    config = {
        "name": "classification_task",
        "num_epochs": 2,
        "use_gpu": False,
        "loss": {"name": "CrossEntropyLoss"},
        "dataset": {"train": dataset("train", 128), "test": dataset("test", 32)},
        "model": {
            "name": "mlp",
            "input_dim": 192,
            "hidden_dims": [12],
            "output_dim": 10,
            "use_batchnorm": True,
        },
        "optimizer": optimizer,
        **options,
    }
    torch.manual_seed(0)
    task = build_task(copy.deepcopy(config))
    start = copy.deepcopy(task.base_model.state_dict())
    LocalTrainer().train(task)
    return task, start


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("run", RUNS)
def test_without_gc_training_is_that_of_the_stock_optimizer(run, options):
    name = run.partition("-")[0]
    stock = {"name": name, **RUNS[run], "param_schedulers": SCHEDULES}
    ours = {**stock, "name": f"{name}_gc", "use_gc": False, "fused": False}
    (task, _), (other, start) = trained(stock, **options), trained(ours, **options)
    weights, others = task.base_model.state_dict(), other.base_model.state_dict()
    assert weights.keys() == others.keys()
    assert_same(others.values(), weights.values())
    assert all(x.isfinite().all() for x in others.values())
    for key in start:
        assert not torch.equal(start[key], others[key])
    assert len(other.optimizer.param_groups) == 2  # BatchNorm has one of its own
    for view in (task.optimizer.options_view, other.optimizer.options_view):
        assert view.weight_decay == (0.01 if options.get("bn_weight_decay") else [0.01, 0])
    # As many epochs, and half the steps where two batches make one.
    steps = {float(s["step"]) for s in other.optimizer.optimizer.state.values() if "step" in s}
    assert steps <= {4.0 if "simulated_global_batchsize" in options else 8.0}


@pytest.mark.parametrize("row", CONFIGS)
def test_with_gc_the_task_options_still_keep_row_means(row):
    task, start = trained(keeps_row_means(row, param_schedulers=SCHEDULES), **ALL, num_epochs=4)
    for key, value in task.base_model.state_dict().items():
        if value.dim() > 1:
            torch.testing.assert_close(value.mean(1), start[key].mean(1), rtol=0, atol=1e-6)
            assert not torch.allclose(value, start[key], atol=1e-5)
