"""Warm-ups in steps and epochs are as long as they say, for all data and batches."""

import pytest
import torch
from classy_vision.hooks import ClassyHook, register_hook
from classy_vision.optim import build_optimizer
from classy_vision.tasks import build_task
from classy_vision.trainer import LocalTrainer

from tests.commands.training import short, train

RATES = []


@register_hook("warm_up_rates")
class Rates(ClassyHook):
    on_start = on_phase_start = on_phase_end = on_end = ClassyHook._noop

    @classmethod
    def from_config(cls, config):
        return cls()

    def on_step(self, task):
        if task.train:
            RATES.append(task.optimizer.options_view.lr)


def given(*lengths, task="classification_task", name="sgd", epochs=2, **changes):
    """Six batches of 16 an epoch; the rate rises from 0 to 1 and stays."""
    RATES.clear()
    rise = {"name": "linear", "start_value": 0.0, "end_value": 1.0}
    lr = {"name": "composite", "schedulers": [rise, {"name": "constant", "value": 1.0}]}
    config = short(epochs) | {"name": task, "hooks": [{"name": "warm_up_rates"}], **changes}
    config["dataset"]["train"]["batchsize_per_replica"] = 16
    config["optimizer"] = {"name": name, "param_schedulers": {"lr": lr | {"lengths": [*lengths]}}}
    return config


TASKS = ["classification_task", "paramwise_classification_task"]
#: lengths, and in how many of the twelve steps the rate rises
LENGTHS = [(["4 steps", "rest"], 4), (["1 step", "rest"], 1), (["0.5 epochs", "1.5 epochs"], 3)]


@pytest.mark.parametrize(("lengths", "rising"), LENGTHS, ids=str)
@pytest.mark.parametrize("name", ["sgd", "adam_gc"])
@pytest.mark.parametrize("task", TASKS)
def test_of_a_command(here, task, name, lengths, rising):
    config = given(*lengths, task=task, name=name)
    assert train(config, "--skip_tensorboard") == 0
    assert pytest.approx([i / rising for i in range(rising)] + [1.0] * (12 - rising)) == RATES


def test_of_our_task_under_another_trainer():
    config = given("4 steps", "rest", task=TASKS[1])
    assert "4 steps" in config["optimizer"]["param_schedulers"]["lr"]["lengths"]
    LocalTrainer().train(build_task(config))
    assert pytest.approx([0, 0.25, 0.5, 0.75] + [1.0] * 8) == RATES


def test_steps_are_the_optimizers_where_gradients_accumulate(here):
    config = given("2 steps", "rest", simulated_global_batchsize=48)
    assert train(config, "--skip_tensorboard") == 0
    steps = RATES[2::3]  # three batches each; Classy Vision reads the schedule at the third
    assert pytest.approx([2 / 6, 5 / 6, 1.0, 1.0]) == steps


def test_schedules_of_param_groups(here):
    config = given("4 steps", "rest", task=TASKS[1])
    lr = config["optimizer"].pop("param_schedulers")["lr"]
    keys = {"heads": {"lr": lr}}
    config["optimizer"] |= {"lr": 0.0, "param_groups": {"name": "paramwise", "custom_keys": keys}}
    assert train(config, "--skip_tensorboard") == 0
    assert pytest.approx([0, 0.25, 0.5, 0.75] + [1.0] * 8) == RATES  # the largest of all groups


@pytest.mark.parametrize(
    "lengths", [["13 steps", "rest"], ["3 epochs", "rest"], ["2 steps", "1 epoch"]]
)
def test_refused_where_they_do_not_fill_the_training(here, capsys, lengths):
    with pytest.raises(SystemExit, match="2"):
        train(given(*lengths), "--skip_tensorboard")
    error = capsys.readouterr().err
    assert "optimizer.param_schedulers.lr: lengths must fill the training, 2 epochs" in error
    assert repr(lengths) in error
    assert not RATES


def test_a_rate_out_of_range_is_refused_once_it_is_known(here, capsys):
    config = given("4 steps", "rest")
    config["optimizer"]["param_schedulers"]["lr"]["schedulers"][0]["end_value"] = -1
    with pytest.raises(SystemExit, match="2"):
        train(config, "--skip_tensorboard")
    assert "lr must be a number >= 0" in capsys.readouterr().err


def test_elsewhere_one_error_says_who_takes_them():
    config = given("4 steps", "rest", name="sgd_gc")
    message = r"param_schedulers.lr: '4 steps' in lengths is only for .* commands of classy-gc"
    with pytest.raises(ValueError, match=message):
        build_task(config)
    optimizer = build_optimizer(given("4 steps", "rest", name="sgd_gc")["optimizer"])
    with pytest.raises(ValueError, match=message):
        optimizer.set_param_groups([torch.nn.Parameter(torch.zeros(2))])
