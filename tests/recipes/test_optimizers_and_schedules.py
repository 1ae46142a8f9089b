"""How the recipes for optimizers, clipping and schedules change the steps of a training."""

import math
import sys
from pathlib import Path

import pytest
import torch
from classy_vision.hooks import ClassyHook
from classy_vision.tasks import build_task
from classy_vision.trainer import LocalTrainer

from classy_gc import core, param_groups
from classy_gc.configuration.load import load_config
from classy_gc.param_groups import ParamGroupBuilder

RECIPES = Path(__file__).parents[2] / "configs" / "recipes"


class Recorder(ClassyHook):
    """What the optimizer sees at each step, after every hook of the recipe."""

    on_phase_start = on_step = on_phase_end = on_end = ClassyHook._noop

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_start(self, task):
        self.task = task
        task.optimizer.optimizer.register_step_pre_hook(self.record)

    def record(self, optimizer, args, kwargs):
        grads = torch.cat([p.grad.flatten() for g in optimizer.param_groups for p in g["params"]])
        group = optimizer.param_groups[0]
        self.steps.append(
            {
                "where": self.task.where,
                "lr": group["lr"],
                "rates": [g["lr"] for g in optimizer.param_groups],
                "momentum": group["betas"][0] if "betas" in group else group["momentum"],
                "largest": grads.abs().max().item(),
                "norm": grads.norm().item(),
            }
        )


def trained(recipe, without=()):
    """The task and the steps of a recipe, with less data, and some of its keys left out."""
    config = load_config(RECIPES / f"{recipe}.json")
    config = {key: value for key, value in config.items() if key not in without}
    config["use_gpu"] = False
    config["dataset"]["train"]["num_samples"] = 480
    config["dataset"]["test"]["num_samples"] = 64
    torch.manual_seed(0)
    task, recorder = build_task(config), Recorder()
    task.set_hooks([*task.hooks, recorder])
    LocalTrainer().train(task)
    assert len(recorder.steps) == 15 * config["num_epochs"]
    return task, recorder.steps


def values(steps, key):
    return [step[key] for step in steps]


def linear(start, end, t):
    return start + (end - start) * t


def cosine(start, end, t):
    return linear(start, end, (1 - math.cos(math.pi * t)) / 2)


def warmed_up(then):
    """From 0.005 to 0.05 in a tenth of the training, then ``then``."""
    return lambda t: linear(0.005, 0.05, t / 0.1) if t < 0.1 else then((t - 0.1) / 0.9)


def wave(start, middle, end, rise):
    return lambda t: (
        cosine(start, middle, t / rise)
        if t < rise
        else cosine(middle, end, (t - rise) / (1 - rise))
    )


def in_thirds(*periods):
    def schedule(t):
        k = int(3 * t + 1e-9)
        return periods[k](3 * t - k)

    return schedule


def follows(**schedules):
    def check(task, steps, recipe):
        for option, schedule in schedules.items():
            wanted = [schedule(where) for where in values(steps, "where")]
            assert values(steps, option) == pytest.approx(wanted, abs=1e-12)
            assert max(wanted) > 1.1 * min(wanted)

    return check


def torch_optimizer(task, steps, recipe):
    optimizer = task.optimizer.optimizer
    assert isinstance(optimizer, torch.optim.NAdam)
    assert isinstance(optimizer, core.CentralizedOptimizer)
    (group,) = [g for g in optimizer.param_groups if g["weight_decay"]]
    assert (group["momentum_decay"], group["decoupled_weight_decay"]) == (0.004, True)
    assert group["use_gc"]
    assert all("mu_product" in state for state in optimizer.state.values())


def clips_by_norm(task, steps, recipe):
    assert max(values(steps, "norm")) == pytest.approx(1, rel=1e-4)
    assert max(values(trained(recipe, without=["clip_grad_norm"])[1], "norm")) > 1.1


def clips_by_value(task, steps, recipe):
    assert max(values(steps, "largest")) == pytest.approx(0.05)
    assert max(values(trained(recipe, without=["hooks"])[1], "largest")) > 0.06


def own_constructor(task, steps, recipe):
    builder = task.param_group_builder
    assert isinstance(builder, ParamGroupBuilder)
    assert type(builder).__module__ == "my_package.my_builder"
    names = {id(p): name for name, p in task.base_model.named_parameters()}
    for group in task.optimizer.param_groups:
        slow = {names[id(p)].startswith("initial_block") for p in group["params"]}
        assert slow == {group["lr"] < 0.5 * max(steps[-1]["rates"])}
    for step in steps:
        assert {round(rate / max(step["rates"]), 9) for rate in step["rates"]} == {0.1, 1}
        assert max(step["rates"]) == pytest.approx(cosine(0.05, 0, step["where"]))


MOMENTUM = wave(0.95, 0.85, 0.95, 0.3)
CHECKS = {
    "torch_optimizer": torch_optimizer,
    "clip_grad_norm": clips_by_norm,
    "clip_grad_value": clips_by_value,
    "own_optimizer_constructor": own_constructor,
    "schedule_step": follows(
        lr=lambda t: linear(0.005, 0.05, t / 0.1) if t < 0.1 else 0.05 if t < 2 / 3 else 0.005
    ),
    "schedule_cosine": follows(lr=warmed_up(lambda t: cosine(0.05, 0.0005, t))),
    "schedule_poly": follows(lr=warmed_up(lambda t: 0.0005 + 0.0495 * (1 - t) ** 0.9)),
    "schedule_one_cycle_sgd": follows(lr=wave(0.004, 0.1, 4e-7, 0.3), momentum=MOMENTUM),
    "schedule_one_cycle_adam": follows(lr=wave(4e-4, 0.01, 4e-8, 0.3), momentum=MOMENTUM),
    "schedule_cyclic": follows(
        lr=in_thirds(*(wave(0.01, peak, 0.01, 0.4) for peak in (0.1, 0.055, 0.0325))),
        momentum=in_thirds(*[wave(0.95, 0.85, 0.95, 0.4)] * 3),
    ),
}


@pytest.fixture
def _from_the_folder(monkeypatch):
    monkeypatch.chdir(RECIPES)
    monkeypatch.setattr(sys, "path", [str(RECIPES), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    # What a recipe's modules register must not affect later tests.
    registry = dict(param_groups.PARAM_GROUP_BUILDER_REGISTRY)
    monkeypatch.setattr(param_groups, "PARAM_GROUP_BUILDER_REGISTRY", registry)
    yield
    for module in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[module]


@pytest.mark.usefixtures("_from_the_folder")
@pytest.mark.parametrize("recipe", CHECKS)
def test_recipe(recipe):
    task, steps = trained(recipe)
    assert task.meters[0].value["top_1"] > 0.3
    assert all(math.isfinite(norm) for norm in values(steps, "norm"))
    CHECKS[recipe](task, steps, recipe)


def test_every_schedule_has_a_check():
    assert {path.stem for path in RECIPES.glob("schedule_*.json")} <= set(CHECKS)
