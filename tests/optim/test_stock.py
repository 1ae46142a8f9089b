"""Keys that a stock optimizer would ignore are refused; all that it reads pass."""

import copy
import inspect
import json
import re
from pathlib import Path

import pytest
from classy_vision.optim import OPTIMIZER_REGISTRY, build_optimizer
from classy_vision.tasks import build_task

from classy_gc.commands import main
from classy_gc.optim.stock import check_stock_optimizer, group_options

from .cases import CONFIGS, STOCK, config

DIGITS = json.loads((Path(__file__).parents[2] / "configs/digits_sgd_gc.json").read_text())
LINEAR = {"name": "linear", "start_value": 0.5, "end_value": 0.1}


def stock(name, **options):
    return {"name": name, **options}


def zero(base, **options):
    return {"name": "zero", "base_optimizer": base, **options}


def scheduled(*names):
    return {"param_schedulers": dict.fromkeys(names, LINEAR)}


GC_KEYS = [
    *((stock(name, use_gc=True), "use_gc (True)", f"'{name}_gc'") for name in STOCK),
    (stock("adam", gc_loc=False), "gc_loc (False)", "'adam_gc'"),
    (stock("sgd", gc_conv_only=True), "gc_conv_only (True)", "'sgd_gc'"),
    (stock("sgd", **scheduled("lr", "use_gc")), "param_schedulers.use_gc", "'sgd_gc'"),
    (stock("adamw_mt", use_gc=True), "'adamw_mt' would ignore use_gc", "put 'gc' around it"),
    (zero(stock("sgd", use_gc=True)), "'sgd' would ignore use_gc", "'sgd_gc'"),
    (zero(stock("sgd"), **scheduled("use_gc")), "param_schedulers.use_gc", "'sgd_gc'"),
    (zero(stock("sgd_gc"), use_gc=True), "'zero' would ignore use_gc", "belongs in base_optimizer"),
]
OTHERS = [
    (stock("sgd", momentun=0.9), "'momentun' in optimizer 'sgd'", "did you mean 'momentum'?"),
    (stock("adam", momentum=0.9), "'momentum' in optimizer 'adam'", "betas"),
    (stock("sgd", fused=True), "'fused' in optimizer 'sgd'", "nesterov"),
    (stock("sgd", **scheduled("momentun")), "'momentun' in param_schedulers", "mean 'momentum'?"),
    (stock("adam", **scheduled("momentum")), "'momentum' in param_schedulers", "lr, eps"),
    (stock("sgd", **scheduled("nesterov")), "'nesterov' in param_schedulers", "lr, momentum"),
    (stock("adam", **scheduled("betas")), "'betas' in param_schedulers", "lr, eps"),
    (stock("sgd", param_schedulers=[]), "param_schedulers must map options", "[]"),
    (
        stock("sgd", param_schedulers={"lr": {**LINEAR, "strat_value": 1}}),
        "'strat_value' in optimizer 'sgd': param_schedulers.lr",
        "did you mean 'start_value'?",
    ),
    (zero(stock("sgd"), lr=0.1), "'lr' in optimizer 'zero'", "base_optimizer"),
    (zero(stock("sgd", momentun=1)), "'momentun' in optimizer 'sgd'", "did you mean 'momentum'?"),
    (zero(stock("sdg")), "'sdg' in optimizer 'zero'", "did you mean 'sgd'?"),
    (zero("sgd"), "base_optimizer must be an optimizer config", "'sgd'"),
    (zero(stock("sgd", **scheduled("lr"))), "param_schedulers belong beside", "base_optimizer"),
]


@pytest.mark.parametrize(("given", "what", "advice"), GC_KEYS + OTHERS, ids=lambda x: str(x)[:60])
def test_what_it_would_ignore_is_refused(given, what, advice):
    before = copy.deepcopy(given)
    with pytest.raises(ValueError, match=re.escape(what)) as caught:
        check_stock_optimizer(given)
    assert advice in str(caught.value)
    assert given == before


@pytest.mark.parametrize(("given", "what", "advice"), GC_KEYS, ids=lambda x: str(x)[:60])
def test_paramwise_tasks_refuse_gc_keys_too(given, what, advice):
    task = "paramwise_classification_task"
    with pytest.raises(ValueError, match=re.escape(what)) as caught:
        build_task({**copy.deepcopy(DIGITS), "name": task, "optimizer": copy.deepcopy(given)})
    assert advice in str(caught.value)


@pytest.mark.parametrize("name", STOCK)
def test_every_key_and_schedule_that_it_reads_passes(name):
    written = {"name": name}
    OPTIMIZER_REGISTRY[name].from_config(written)  # which writes all of them
    check_stock_optimizer({**written, "num_epochs": 2, "param_groups": {"name": "paramwise"}})
    numbers = ["momentum"] if "momentum" in written else ["eps"]
    check_stock_optimizer({**written, "num_epochs": 2, **scheduled("lr", "weight_decay", *numbers)})


@pytest.mark.parametrize("row", CONFIGS)
def test_under_zero_schedules_are_those_of_its_base(row):
    check_stock_optimizer(zero(config(row), num_epochs=2, **scheduled("lr", "use_gc", "momentum")))
    rules = group_options(build_optimizer(zero(config(row))))[1]
    assert {"lr", "use_gc", "momentum"} <= {
        name for name, rule in rules.items() if rule.schedulable
    }


@pytest.mark.parametrize("row", CONFIGS)
def test_under_zero_a_gc_optimizer_checks_its_schedules_as_it_is_built(row):
    with pytest.raises(ValueError, match=r"unknown key 'momentun' in param_schedulers of .* lr"):
        build_optimizer(zero(config(row), **scheduled("momentun")))


def test_ones_own_optimizers_read_what_they_like():
    keys = inspect.signature(OPTIMIZER_REGISTRY["sgd"]).parameters
    assert "steps" not in keys
    own = type("TestCheckOwn", (OPTIMIZER_REGISTRY["sgd"],), {"__module__": "own"})
    OPTIMIZER_REGISTRY["test_check_own"] = own
    try:
        check_stock_optimizer({"name": "test_check_own", "use_gc": True, **scheduled("anything")})
    finally:
        del OPTIMIZER_REGISTRY["test_check_own"]


FLAGS = {
    "train": [],
    "inspect": [],
    "param-groups": [],
    "schedules": [],
    "compare": ["--vary", "optimizer.use_gc=false,true", "--output_folder", "compared"],
    "bench": [],
}


@pytest.mark.parametrize("command", FLAGS)
def test_every_command_refuses_gc_on_a_stock_optimizer_in_one_line(command, here, capsys):
    given = copy.deepcopy(DIGITS)
    given["optimizer"] = {"name": "sgd", "lr": 0.1}
    if command != "compare":
        given["optimizer"]["use_gc"] = True
    Path("config.json").write_text(json.dumps(given))
    with pytest.raises(SystemExit) as exit_:
        main([command, "--config_file", "config.json", *FLAGS[command]])
    assert exit_.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "use_gc" in line
    assert "'sgd_gc'" in line
    assert [path.name for path in here.iterdir()] == ["config.json"]
