"""A hand-written loop follows the schedules of the config, as Classy Vision's task does."""

import copy

import pytest
import torch
from classy_vision.losses import build_loss
from classy_vision.optim import ClassyOptimizer, build_optimizer, register_optimizer
from classy_vision.tasks import build_task
from classy_vision.trainer import LocalTrainer
from fvcore.common.param_scheduler import LinearParamScheduler

from .cases import CONFIGS, assert_same, config, problem

EPOCHS = 2
SCHEDULES = {
    "lr": {"name": "cosine", "start_value": 0.1, "end_value": 0.0},
    "weight_decay": {"name": "step", "values": [0.1, 0.01]},
    "use_gc": {"name": "step", "values": [0, 1], "update_interval": "step"},
}


def task_of(optimizer):
    data = {"name": "digits", "batchsize_per_replica": 32, "use_shuffle": False}
    return {
        "name": "classification_task",
        "num_epochs": EPOCHS,
        "use_gpu": False,
        "loss": {"name": "CrossEntropyLoss"},
        "dataset": {"train": {**data, "split": "train", "num_samples": 128}},
        "model": {"name": "mlp", "input_dim": 192, "hidden_dims": [12], "output_dim": 10},
        "optimizer": optimizer,
    }


def own_loop(given, model, batches):
    loss = build_loss(given["loss"])
    optimizer = build_optimizer({**given["optimizer"], "num_epochs": EPOCHS})
    optimizer.set_param_groups(model.parameters())
    steps = EPOCHS * len(batches)
    for step in range(steps):
        batch = batches[step % len(batches)]
        optimizer.zero_grad()
        loss(model(batch["input"]), batch["target"]).backward()
        optimizer.step(where=step / steps)
        if (step + 1) % len(batches) == 0:
            optimizer.on_epoch(where=(step + 1) / steps)
    return optimizer


@pytest.mark.parametrize("row", CONFIGS)
def test_an_own_loop_trains_as_the_task_does(row):
    given = task_of(config(row, param_schedulers=SCHEDULES))
    torch.manual_seed(0)
    model = build_task(copy.deepcopy(given)).base_model
    torch.manual_seed(0)
    task = build_task(copy.deepcopy(given))
    batches = list(task.datasets["train"].iterator())
    LocalTrainer().train(task)
    optimizer = own_loop(given, model, batches)
    assert optimizer.options_view.lr < 0.01
    assert optimizer.options_view.weight_decay == 0.01
    assert_same(model.state_dict().values(), task.base_model.state_dict().values())


def test_what_is_given_wins():
    schedules = dict.fromkeys(("lr", "weight_decay", "momentum"), SCHEDULES["lr"])
    optimizer = build_optimizer(config("sgd_gc", nesterov=False, param_schedulers=schedules))
    params, _ = problem(0)
    groups = [{"params": params[:1], "lr": 0.3}, {"params": params[1:]}]
    optimizer.set_param_groups(groups, weight_decay=LinearParamScheduler(0.5, 0.1))
    optimizer.step(where=0.5)
    first, second = optimizer.param_groups
    assert (first["lr"], second["lr"]) == (0.3, pytest.approx(0.05))
    assert first["weight_decay"] == second["weight_decay"] == pytest.approx(0.3)
    assert first["momentum"] == second["momentum"] == pytest.approx(0.05)


def test_a_kept_schedule_of_an_option_that_nobody_has_is_refused():
    class Own(ClassyOptimizer):
        """One's own, whose options are those of the optimizer that it prepares."""

        @classmethod
        def from_config(cls, config):
            return cls()

        def prepare(self, param_groups):
            self.optimizer = torch.optim.Rprop(param_groups, lr=0.1)

    register_optimizer("test_own_loop_rprop")(Own)
    given = {"name": "gc", "base_optimizer": {"name": "test_own_loop_rprop"}}
    with pytest.raises(ValueError, match="unknown key 'momentum' in param_schedulers of optimizer"):
        build_optimizer({**given, "param_schedulers": {"momentum": SCHEDULES["lr"]}})


def test_a_schedule_that_needs_the_number_of_epochs_says_so():
    multistep = {"name": "multistep", "values": [0.1, 0.01], "milestones": [1]}
    given = config("sgd_gc", param_schedulers={"lr": multistep})
    optimizer = build_optimizer(given)
    with pytest.raises(ValueError, match=r"param_schedulers.lr: .*num_epochs beside"):
        optimizer.set_param_groups(problem(0)[0])
    optimizer = build_optimizer({**given, "num_epochs": 2})
    optimizer.set_param_groups(problem(0)[0])
    optimizer.on_epoch(where=0.5)
    assert optimizer.options_view.lr == 0.01
