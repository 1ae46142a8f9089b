import copy
import json
from pathlib import Path

import pytest
import torch
from classy_vision.hooks import ClassyHook
from classy_vision.optim import build_optimizer
from classy_vision.optim.param_scheduler import build_param_scheduler
from classy_vision.tasks import FineTuningTask, build_task
from classy_vision.trainer import LocalTrainer

from classy_gc.configuration.schema import check_config
from tests.commands.training import checkpoint, digits, flat, train

CONFIGS = Path(__file__).parents[2] / "configs"
BUILDER = {"name": "paramwise", "custom_keys": {"blocks": {"lr_mult": 0.1, "decay_mult": 0.5}}}


def config(task="paramwise_classification_task", optimizer=None, param_groups=BUILDER, **changes):
    """The digits config, shortened."""
    result = digits(2) | {"name": task, **changes}
    result["optimizer"] |= optimizer or {}
    if param_groups is not None:
        result["optimizer"]["param_groups"] = param_groups
    return result


def prepared(*args, **kwargs):
    torch.manual_seed(0)
    task = build_task(config(*args, **kwargs))
    if isinstance(task, FineTuningTask):
        task._set_pretrained_checkpoint_dict(checkpoint_of(task))
    task.prepare()
    return task


def checkpoint_of(task):
    state = task.base_model.get_classy_state(deep_copy=True)
    return {"classy_state_dict": {"base_model": state}}


def group_of(task, name):
    parameter = dict(task.base_model.named_parameters())[name]
    (group,) = (g for g in task.optimizer.param_groups if any(p is parameter for p in g["params"]))
    return group


BLOCK = "blocks.0.block0-0.convolutional_block.0.weight"
STEM = "initial_block._module.0.weight"
HEAD = "_heads.block1-0.default_head.fc.weight"


class Recorder(ClassyHook):
    """The rates of every step."""

    on_start = on_phase_start = on_phase_end = on_end = ClassyHook._noop

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_step(self, task):
        if task.train:
            rates = [group_of(task, name)["lr"] for name in (BLOCK, HEAD)]
            self.rates.append((task.where, *rates, task.optimizer.options_view.lr))


@pytest.mark.parametrize("name", ["sgd", "sgd_gc", "adamw", "adamw_gc"])
@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_rates_of_a_training_are_the_schedule_times_the_multiplier(name, interval):
    lr = {"name": "cosine", "start_value": 0.1, "end_value": 0.0, "update_interval": interval}
    optimizer = {"name": name, "param_schedulers": {"lr": lr}}
    given = config(optimizer=optimizer)
    if not name.endswith("gc"):
        del given["optimizer"]["use_gc"]
    before = copy.deepcopy(given)
    task = build_task(given)
    assert given == before
    task.set_hooks([recorder := Recorder()])
    task.dataloader_mp_context = "fork"
    LocalTrainer().train(task)
    schedule = build_param_scheduler({**lr, "num_epochs": 2})
    assert len(recorder.rates) == 6
    for step, (_, block, head, shown) in enumerate(recorder.rates):
        at = step / 6 if interval == "step" else (step // 3) / 2
        assert head == shown == pytest.approx(schedule(at))
        assert block == pytest.approx(0.1 * head)


@pytest.mark.parametrize("name", ["classification_task", "fine_tuning"])
@pytest.mark.parametrize("bn_weight_decay", [False, True])
def test_without_param_groups_it_is_the_stock_task(name, bn_weight_decay):
    tasks = [
        prepared(task, param_groups=None, bn_weight_decay=bn_weight_decay)
        for task in (name, f"paramwise_{name}")
    ]
    stock, ours = (
        [
            {**g, "params": [names[id(p)] for p in g["params"]]}
            for names in [{id(p): n for n, p in task.base_model.named_parameters()}]
            for g in task.optimizer.param_groups
        ]
        for task in tasks
    )
    assert ours == stock


@pytest.mark.parametrize("bn_weight_decay", [False, True])
def test_without_rules_the_options_are_those_of_the_stock_task(bn_weight_decay):
    stock, ours = (
        prepared(name, param_groups=groups, bn_weight_decay=bn_weight_decay)
        for name, groups in (
            ("classification_task", None),
            ("paramwise_classification_task", {"name": "paramwise"}),
        )
    )
    for name in dict(stock.base_model.named_parameters()):
        a, b = (group_of(task, name) for task in (stock, ours))
        assert {**a, "params": 0} == {**b, "params": 0}
    assert len(ours.optimizer.param_groups) == (1 if bn_weight_decay else 2)


def test_frozen_trunk_is_left_out_and_stays():
    torch.manual_seed(0)
    task = build_task(
        config("paramwise_fine_tuning", param_groups={"name": "paramwise"}, freeze_trunk=True)
    )
    task._set_pretrained_checkpoint_dict(checkpoint_of(task))
    task.dataloader_mp_context = "fork"
    before = {n: p.clone() for n, p in task.base_model.named_parameters()}
    LocalTrainer().train(task)
    (group,) = task.optimizer.param_groups
    assert [tuple(p.shape) for p in group["params"]] == [(10, 32), (10,)]
    moved = {n for n, p in task.base_model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {HEAD, HEAD.replace("weight", "bias")}


def test_param_groups_are_an_object():
    changed = config(optimizer={"param_groups": None}, param_groups=None)
    with pytest.raises(ValueError, match="param_groups must be an object with a 'name', not None"):
        build_task(changed)


def test_param_groups_are_refused_before_the_data_are_loaded():
    changed = config(param_groups={"name": "paramwise", "typo": 1})
    changed["dataset"]["train"]["split"] = "nowhere"
    with pytest.raises(ValueError, match="unknown key 'typo' in param_groups 'paramwise'"):
        build_task(changed)


@pytest.mark.parametrize("optimizer", ["sgd", "sgd_gc"])
@pytest.mark.parametrize("task", ["classification_task", "fine_tuning"])
def test_stock_tasks_refuse_param_groups(task, optimizer):
    given = config(task, optimizer={"name": optimizer})
    if optimizer == "sgd":
        del given["optimizer"]["use_gc"]
    with pytest.raises(ValueError, match=f"'param_groups' .* 'paramwise_{task}'"):
        check_config(given)
    if optimizer == "sgd_gc":  # a stock optimizer under a stock task ignores what it does not know
        with pytest.raises(ValueError, match=r"param_groups needs the task 'paramwise_class"):
            build_task(given)
    check_config({**given, "name": f"paramwise_{task}"})


@pytest.mark.parametrize(
    "given", [{"name": "sgd_gc"}, {"name": "gc", "base_optimizer": {"name": "sgd"}}]
)
def test_gc_optimizers_name_the_task_wherever_they_are_built(given):
    given = {**given, "param_groups": {"name": "paramwise"}}
    with pytest.raises(ValueError, match=r"param_groups needs the task 'paramwise_class"):
        build_optimizer(given)


def test_a_checkpoint_resumes(here):
    given = config()
    flags = ("--skip_tensorboard", "--checkpoint_folder")
    train(given, *flags, "whole")
    Path("killed").mkdir()
    (here / "whole/model_phase-0_end.torch").rename("killed/checkpoint.torch")
    train(given, *flags, "resumed", "--checkpoint_load_path", "killed")
    whole, resumed = (checkpoint(name) for name in ("whole", "resumed"))
    assert flat(resumed["base_model"]) == flat(whole["base_model"])
    groups = [state["optimizer"]["optim"]["param_groups"] for state in (whole, resumed)]
    assert groups[0] == groups[1]


def test_fine_tuning_with_a_slow_trunk_and_a_fast_head(here, capfd):
    old = config("classification_task", param_groups=None, num_epochs=1)
    train(old, "--skip_tensorboard", "--checkpoint_folder", "old")
    given = json.loads((CONFIGS / "digits_paramwise_fine_tuning_sgd_gc.json").read_text())
    given |= {"num_epochs": 2, "use_gpu": False, "reset_heads": False}
    for dataset in given["dataset"].values():
        dataset["num_samples"] = 96
    flags = ("--pretrained_checkpoint_path", "old", "--checkpoint_folder")
    capfd.readouterr()
    train(given, "--skip_tensorboard", *flags, "new")
    log = capfd.readouterr().err
    assert "group  tensors  elements  options" in log
    assert "lr 0.1 × cosine from 0.1" in log
    given["optimizer"]["param_groups"]["custom_keys"] = {"blocks": {}, "initial_block": {}}
    train(given, "--skip_tensorboard", *flags, "even")

    state = checkpoint("new")
    groups = state["optimizer"]["optim"]["param_groups"]
    head, bias, *trunk = (g["lr"] for g in groups)
    stem, stem_norms, blocks, block_norms = trunk
    assert head > 0
    assert (bias, stem, blocks) == pytest.approx((2 * head, 0.01 * head, 0.1 * head))
    assert (stem_norms, block_norms) == (stem, blocks)  # and no decay, as the task says
    assert [len(g["params"]) for g in groups] == [1, 1, 1, 2, 5, 10]
    assert [g["weight_decay"] > 0 for g in groups] == [True, True, True, False, True, False]

    def weights(folder):
        model = build_task(config()).base_model
        model.set_classy_state(checkpoint(folder)["base_model"])
        return dict(model.named_parameters())

    def moved(folder, part):
        old, new = map(weights, ("old", folder))
        names = [k for k in old if part in k and k.endswith("weight")]
        assert names
        return sum((new[k] - old[k]).norm().item() for k in names)

    # Slow parts move, but less than with the head's rate by about the factor.
    assert 0 < moved("new", "initial_block") < 0.05 * moved("even", "initial_block")
    assert 0 < moved("new", "blocks.") < 0.3 * moved("even", "blocks.")
    assert moved("new", "default_head") > 0.3 * moved("even", "default_head")
