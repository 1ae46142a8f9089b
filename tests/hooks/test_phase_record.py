"""The record of a finished phase."""

import math
from types import SimpleNamespace

import pytest
import torch
from classy_vision.optim import build_optimizer

from classy_gc.hooks.phase_record import (
    FOLDER,
    PhaseRecordHook,
    flat_meters,
    mean_loss,
    meter_values,
    scheduled_options,
    trained_epochs,
)


def optimizer(groups, **config):
    built = build_optimizer({"name": "sgd_gc", "lr": 0.5, **config})
    built.set_param_groups([{"params": [torch.nn.Parameter(torch.ones(2))], **g} for g in groups])
    return built


def test_of_groups_that_differ_the_largest_is_told():
    built = optimizer([{"lr": 0.1}, {"lr": 0.3, "momentum": 0.9}, {}])
    assert scheduled_options(built) == {"lr": 0.5, "momentum": 0.9}


def test_options_that_nobody_schedules_are_left_out():
    assert scheduled_options(optimizer([{}], weight_decay=0.1)) == {"lr": 0.5}


def test_betas_that_no_schedule_drives_are_not_read():
    built = optimizer([{}])
    built.param_groups[0]["betas"] = None  # as of an optimizer of one's own
    assert scheduled_options(built) == {"lr": 0.5}


def test_an_option_is_read_once_of_each_group():
    reads = []

    class Group(dict):
        def get(self, name, default=None):
            reads.append(name)
            return super().get(name, default)

    scheduled = {"lr": None, "weight_decay": None}
    groups = [Group(lr=0.5, weight_decay=0.1) for _ in range(20)]
    built = SimpleNamespace(_param_group_schedulers=[scheduled] * 20, param_groups=groups)
    assert scheduled_options(built) == {"lr": 0.5, "weight_decay": 0.1}
    assert len(reads) == 2 * 20  # not for each group that schedules it, at every step


def test_momentum_is_the_first_beta_where_there_is_no_other():
    built = build_optimizer({"name": "adam_gc", "betas": [0.8, 0.9]})
    built.set_param_groups([torch.nn.Parameter(torch.ones(2))], momentum=0.75)
    del built.param_groups[0]["momentum"]
    assert scheduled_options(built)["momentum"] == 0.8


def task(**values):
    defaults = {
        "losses": [1.0, 2.0],
        "meters": [
            SimpleNamespace(name="accuracy", value={"top_1": 0.5, "top_k": None}),
            SimpleNamespace(name="video", value=None),
        ],
        "train": True,
        "phase_type": "train",
        "train_phase_idx": 2,
        "train_phases_per_epoch": 2,
        "optimizer": optimizer([{}]),
    }
    return SimpleNamespace(**defaults | values)


class Hook(PhaseRecordHook):
    on_phase_end = PhaseRecordHook._noop


def test_a_record():
    hook = Hook()
    hook.on_step(task())
    assert hook.record(task()) == {
        "phase": "train",
        "epoch": 1.5,
        "loss": 1.5,
        "meters": {"accuracy": {"top_1": 0.5}},
        "options": {"lr": 0.5},
    }
    tested = hook.record(task(train=False, phase_type="test"))
    assert (tested["phase"], tested["options"]) == ("test", {})


def test_a_phase_without_a_batch_has_none():
    assert Hook().record(task(losses=[])) is None


def test_nan_is_a_mean_too():
    assert math.isnan(mean_loss(task(losses=[1.0, math.nan])))


def test_meters_by_one_name():
    values = meter_values(task())
    assert flat_meters(values) == {"accuracy/top_1": 0.5}


@pytest.mark.parametrize(("phases", "epochs"), [(None, 3), (1, 3), (2, 1.5)])
def test_epochs(phases, epochs):
    assert trained_epochs(task(train_phases_per_epoch=phases)) == epochs


def test_a_test_counts_what_its_checkpoint_was_trained():
    checkpoint = {"classy_state_dict": {"train_phase_idx": 7}}
    tested = task(test_only=True, checkpoint_dict=checkpoint)
    assert trained_epochs(tested) == 4
    assert trained_epochs(task(test_only=True, checkpoint_dict=None)) == 1.5


@pytest.mark.parametrize(
    ("path", "local"), [("runs", True), ("", True), ("s3://bucket/run", False), (3, False)]
)
def test_folders(path, local):
    assert FOLDER.accepts(path) == local
