"""Errors in a config are refused by name before anything is built; what is right passes."""

import copy
import inspect
import math
import re

import pytest
import torch
from classy_vision.optim import OPTIMIZER_REGISTRY, build_optimizer, build_optimizer_schedulers
from fvcore.common.param_scheduler import LinearParamScheduler

from .cases import CONFIGS, PLAIN, STOCK, advance, build, config, options_of, problem

every_row = pytest.mark.parametrize("row", CONFIGS)

# For each kind of option: values that are refused, and what the message says is allowed.
NOT_A_NUMBER = [True, False, "0.1", None, [0.1], {}, math.nan, math.inf, -math.inf]
NUMBER = ("a number >= 0", [*NOT_A_NUMBER, -1, -0.1])
FRACTION = ("a number in [0, 1)", [*NOT_A_NUMBER, -0.1, 1, 1.0, 2])
BETAS = (
    "a list of two numbers in [0, 1)",
    [
        *(0.9, None, True, "0.9", [], [0.9], [0.9, 0.9, 0.9], {"0": 0.9, "1": 0.9}),
        *([0.9, 1], [-0.1, 0.9], [0.9, "0.9"], [True, 0.9], [0.9, math.nan], [0.9, None]),
    ],
)
BOOL = ("true or false", [0, 1, 0.5, None, "true", "", [], [True]])
GC_FLAG = ("true or false, or a number (0 is false)", [None, "true", "", [], [True], math.nan])
SWITCH = ("true, false or null", [0, 1, "true", "", [True]])
OBJECT = ("an object or null", [1, "clip", [], True])
KINDS = {
    **dict.fromkeys(["lr", "weight_decay", "eps", "initial_square_avg"], NUMBER),
    **dict.fromkeys(["momentum", "alpha"], FRACTION),
    "betas": BETAS,
    **dict.fromkeys(["nesterov", "amsgrad", "centered", "use_larc", "lr_in_momentum"], BOOL),
    **dict.fromkeys(["decoupled_weight_decay", "degenerated_to_sgd"], BOOL),
    **dict.fromkeys(["use_gc", "gc_conv_only", "gc_loc"], GC_FLAG),
    **dict.fromkeys(["fused", "foreach"], SWITCH),
    "larc_config": OBJECT,
}


def keys_of(name):
    """Every option of a registered name."""
    return list(inspect.signature(OPTIMIZER_REGISTRY[name]).parameters)


def bad_values():
    """Each option of each name with its kind."""
    for name in [*PLAIN, "gc"]:
        for key in keys_of(name):
            if key == "base_optimizer":
                continue
            default = inspect.signature(OPTIMIZER_REGISTRY[name]).parameters[key].default
            kind = KINDS.get(key, BOOL if isinstance(default, bool) else ("a number", NOT_A_NUMBER))
            if (name, key) == ("gc", "decoupled_weight_decay"):
                kind = SWITCH
            yield pytest.param(name, key, *kind, id=f"{name}-{key}")


@pytest.mark.parametrize(("name", "key", "allowed", "values"), list(bad_values()))
def test_a_bad_value_is_named_with_what_is_allowed(name, key, allowed, values):
    row = "gc-sgd" if name == "gc" else name
    cls = OPTIMIZER_REGISTRY[name]
    base = {"base_optimizer": OPTIMIZER_REGISTRY["sgd"]()} if name == "gc" else {}
    for value in values:
        for refused in (
            lambda value=value: build_optimizer({**config(row), key: value}),
            lambda value=value: cls(**base, **{key: value}),
        ):
            with pytest.raises(ValueError, match=rf"\b{key}\b") as caught:
                refused()
            message = str(caught.value)
            for fragment in (repr(name), repr(value), allowed):
                assert fragment in message


@every_row
def test_integers_do_where_numbers_are_meant(row):
    whole = {"lr": 1, "momentum": 0, "weight_decay": 0, "eps": 1, "alpha": 0, "betas": [0, 0.9]}
    if row.startswith("gc-"):
        whole = {"lr": 1}  # the stock optimizers refuse the others
    changes = {k: v for k, v in whole.items() if k in options_of(row)}
    # Options that exclude a momentum or an alpha of 0.
    changes |= {"sgd_gc": {"nesterov": False}, "rmsprop_gc": {"centered": False}}.get(row, {})
    params, grads = problem(2)
    optimizer = build(config(row, use_gc=True, **changes), params)
    advance(optimizer, grads)
    assert all(torch.isfinite(p).all() for p in params)
    for key, value in changes.items():
        assert getattr(optimizer.options_view, key) == (tuple(value) if key == "betas" else value)


def sgd(**options):
    return {"name": "sgd_gc", **options}


def adam(**options):
    return {"name": "adam_gc", **options}


def gc(**options):
    return {"name": "gc", "base_optimizer": {"name": "sgd"}, **options}


def scheduled(key, *scheduler, **options):
    name, *_ = scheduler or ("linear",)
    return {"param_schedulers": {key: {"name": name, "start_value": 1, "end_value": 0, **options}}}


def composite(**options):
    parts = [{"name": "linear", "start_value": 0, "end_value": 1}]
    return {"name": "composite", "schedulers": parts, "lengths": [1.0], **options}


NESTED = composite(schedulers=[composite(schedulers=[{"name": "step", "value": [1, 0]}])])

# A config, and what its error must say.
REFUSED = [
    # unknown keys, with the nearest one that is known
    (sgd(momentun=0.9), ["'momentun'", "'sgd_gc'", "did you mean 'momentum'?"]),
    (sgd(use_cg=True), ["'use_cg'", "did you mean 'use_gc'?"]),
    (sgd(gc_loc=True), ["'gc_loc'", "'sgd_gc'"]),
    (sgd(zzz=1), ["'zzz'", "known: ", "nesterov", "param_schedulers"]),
    (sgd(param_scheduler={}), ["did you mean 'param_schedulers'?"]),
    (adam(momentum=0.9), ["'momentum'", "'adam_gc'", "betas"]),
    (adam(beta=[0.9, 0.9]), ["did you mean 'betas'?"]),
    ({"name": "adamw_gc", "gc_convonly": True}, ["did you mean 'gc_conv_only'?"]),
    ({"name": "radam_gc", "amsgrad": True}, ["'amsgrad'", "'radam_gc'"]),
    (
        {"name": "plain_radam_gc", "degenerate_to_sgd": True},
        ["'plain_radam_gc'", "'degenerated_to_sgd'?"],
    ),
    ({"name": "rmsprop_gc", "centred": True}, ["did you mean 'centered'?"]),
    ({"name": "rmsprop_tf_gc", "nesterov": True}, ["'nesterov'", "'rmsprop_tf_gc'"]),
    # options of torch's class that the stock one lacks
    (sgd(dampening=0.5), ["'dampening'", "'sgd_gc'", "'torch_gc' has it, with", "'SGD'"]),
    (adam(maximize=True), ["'maximize'", "'adam_gc'", "'torch_gc' has it, with", "'Adam'"]),
    # options that do not go together
    (sgd(nesterov=True), ["'sgd_gc'", "Nesterov momentum requires a momentum"]),
    (sgd(nesterov=True, momentum=0), ["Nesterov momentum requires a momentum"]),
    *(
        ({"name": name, "fused": True, "foreach": True}, [repr(name), "fused", "foreach"])
        for name in ("sgd_gc", "adam_gc", "adamw_gc", "radam_gc", "plain_radam_gc")
    ),
    # LARC
    (
        sgd(use_larc=True, larc_config={"cilp": True}),
        ["'cilp'", "larc_config", "'sgd_gc'", "'clip'?"],
    ),
    (sgd(larc_config={"trust": 1}), ["'trust'", "trust_coefficient"]),
    (sgd(use_larc=True, larc_config={"clip": 1}), ["clip must be true or false, not 1"]),
    (sgd(use_larc=True, larc_config={"eps": -1}), ["eps must be a number >= 0, not -1"]),
    (sgd(larc_config={"eps": "0"}), ["eps must be", "'0'"]),
    (
        sgd(use_larc=True, larc_config={"trust_coefficient": True}),
        ["trust_coefficient must be a number >= 0, not True"],
    ),
    # schedules
    (sgd(**scheduled("momentun")), ["'momentun'", "param_schedulers", "did you mean 'momentum'?"]),
    (sgd(**scheduled("nesterov")), ["'nesterov'", "param_schedulers"]),
    (sgd(**scheduled("gc_loc")), ["'gc_loc'", "param_schedulers"]),
    (sgd(**scheduled("larc_config")), ["'larc_config'"]),
    (adam(**scheduled("betas")), ["'betas'", "param_schedulers", "momentum"]),
    (adam(**scheduled("amsgrad")), ["'amsgrad'"]),
    (adam(**scheduled("fused")), ["'fused'"]),
    (sgd(**scheduled("num_epochs")), ["'num_epochs'"]),
    ({"name": "rmsprop_gc", **scheduled("centered")}, ["'centered'"]),
    (sgd(param_schedulers=None), ["param_schedulers", "None"]),
    (sgd(param_schedulers=[]), ["param_schedulers", "[]"]),
    (sgd(param_schedulers={"lr": 0.1}), ["param_schedulers.lr", "0.1", "'name'"]),
    (sgd(param_schedulers={"lr": {"value": 0.1}}), ["param_schedulers.lr", "'name'"]),
    (sgd(**scheduled("lr", "liner")), ["'liner'", "param_schedulers.lr", "did you mean 'linear'?"]),
    (sgd(**scheduled("lr", strat_value=1)), ["'strat_value'", "did you mean 'start_value'?"]),
    (sgd(**scheduled("lr", update_intervall="step")), ["did you mean 'update_interval'?"]),
    (
        sgd(param_schedulers={"lr": composite(length=[1.0])}),
        ["'length'", "param_schedulers.lr", "did you mean 'lengths'?"],
    ),
    (
        sgd(param_schedulers={"lr": composite(schedulers=[{"name": "steep"}])}),
        ["'steep'", "param_schedulers.lr.schedulers[0]", "did you mean 'step'?"],
    ),
    (
        sgd(param_schedulers={"lr": NESTED}),
        ["'value'", "param_schedulers.lr.schedulers[0].schedulers[0]", "did you mean 'values'?"],
    ),
    # gc around another
    ({"name": "gc"}, ["'gc'", "base_optimizer", "None"]),
    (gc(base_optimizer="sgd"), ["base_optimizer", "'sgd'"]),
    (gc(base_optimizer={"lr": 0.1}), ["base_optimizer", "'name'", "'lr'"]),
    (gc(base_optimizer={"name": "sdg"}), ["base_optimizer", "'sdg'", "did you mean 'sgd'?"]),
    (gc(lr=0.1), ["'lr'", "'gc'", "base_optimizer"]),
    (gc(use_cg=True), ["did you mean 'use_gc'?"]),
    (gc(base_optimzer={}), ["did you mean 'base_optimizer'?"]),
    (gc(base_optimizer={"name": "sgd", **scheduled("lr")}), ["param_schedulers", "base_optimizer"]),
    *((gc(base_optimizer={"name": name}), ["'gc'", repr(name), "use_gc"]) for name in PLAIN),
    (gc(base_optimizer=gc()), ["'gc'", "already centralizes"]),
    (gc(**scheduled("lr", "liner")), ["'liner'", "did you mean 'linear'?"]),
    (gc(**scheduled("lr", strat_value=1)), ["did you mean 'start_value'?"]),
    (gc(param_schedulers=[]), ["param_schedulers", "[]"]),
]


def refusal_id(case):
    config, fragments = case
    return f"{config['name']}-{fragments[0]}-{fragments[-1]}"


@pytest.mark.parametrize(("config", "fragments"), REFUSED, ids=map(refusal_id, REFUSED))
def test_refused_configs(config, fragments):
    config = copy.deepcopy(config)
    before = copy.deepcopy(config)
    with pytest.raises(ValueError, match=re.escape(fragments[0])) as caught:
        build_optimizer(config)
    assert config == before
    for fragment in fragments:
        assert fragment in str(caught.value)
    name = config.pop("name")
    if name != "gc" and not any(key.startswith("param_scheduler") for key in config):
        with pytest.raises(ValueError, match=re.escape(fragments[0])):
            OPTIMIZER_REGISTRY[name](**config)


@every_row
def test_an_option_that_cannot_be_scheduled_is_refused_for_groups_too(row):
    params = problem(0)[0]
    optimizer = build_optimizer(config(row))
    for groups in (
        [{"params": params, "momentun": 0.9}],
        [{"params": params[:2]}, {"params": params[2:], "momentun": LinearParamScheduler(0, 1)}],
    ):
        with pytest.raises(ValueError, match="unknown key 'momentun'"):
            optimizer.set_param_groups(groups)
    with pytest.raises(ValueError, match="unknown key 'momentun'"):
        optimizer.set_param_groups(params, momentun=0.9)
    optimizer.set_param_groups(params)


@pytest.mark.parametrize("unknown", ["beta", "betas", "nesterov", "use_larc"])
@pytest.mark.parametrize("name", STOCK)
def test_gc_refuses_to_schedule_what_its_base_does_not_have(name, unknown):
    bad = {**config(f"gc-{name}"), **scheduled(unknown)}
    with pytest.raises(ValueError, match=f"unknown key '{unknown}' in param_schedulers"):
        build_optimizer(bad)


SCHEDULES = {
    "constant": {"value": 0.1},
    "cosine": {"start_value": 0.1, "end_value": 0.0},
    "linear": {"start_value": 0.1, "end_value": 0.0},
    "multistep": {"values": [0.1, 0.01], "milestones": [1], "update_interval": "step"},
    "polynomial": {"base_value": 0.1, "power": 1},
    "step": {"values": [0.1, 0.01]},
    "step_with_fixed_gamma": {"base_value": 0.1, "gamma": 0.1, "num_decays": 1},
    "composite": {k: v for k, v in composite(update_interval="epoch").items() if k != "name"},
}


@every_row
def test_every_scheduler_passes_and_the_config_stays_as_it_is(row):
    for scheduler, options in SCHEDULES.items():
        schedulers = {"lr": {"name": scheduler, **options}}
        given = {**config(row), "num_epochs": 2, "param_schedulers": schedulers}
        before = copy.deepcopy(given)
        params, grads = problem(2)
        advance(build(given, params), grads)
        assert given == before


@every_row
def test_a_short_config_stays_as_it_is(row):
    # The stock from_config methods write what is missing.
    name = CONFIGS[row]["name"]
    given = {"name": name, "num_epochs": 2}
    if name == "gc":
        given["base_optimizer"] = {"name": row.removeprefix("gc-")}
    before = copy.deepcopy(given)
    optimizer = build_optimizer(given)
    assert build_optimizer_schedulers(given) == {}
    optimizer.set_param_groups(problem(0)[0])
    optimizer.step(where=0)
    assert given == before


@pytest.mark.parametrize("name", STOCK)
def test_gc_refuses_misspelt_options_of_a_stock_base(name):
    with pytest.raises(ValueError, match=r"weight_decays.*did you mean 'weight_decay'"):
        build_optimizer({"name": "gc", "base_optimizer": {"name": name, "weight_decays": 0.1}})


@pytest.mark.parametrize(
    ("row", "option", "scheduler", "fragments"),
    [
        ("sgd_gc", "lr", {"name": "linear", "start_value": -1, "end_value": 0}, ["-1", ">= 0"]),
        ("sgd_gc", "lr", {"name": "linear", "start_value": 1}, ["end_value"]),
        ("adam_gc", "momentum", {"name": "constant", "value": 1.5}, ["1.5", "[0, 1)"]),
        ("sgd_gc", "lr", {"name": "composite", "schedulers": 3, "lengths": [1]}, ["3", "a list"]),
        ("sgd_gc", "use_gc", {"name": "constant", "value": "yes"}, ["'yes'", "0 is false"]),
        # The value is out of range only within a period.
        (
            "sgd_gc",
            "momentum",
            {
                "name": "cyclic",
                "periods": 4,
                "scheduler": {
                    "name": "one_cycle",
                    "start_value": 0.5,
                    "peak_value": 1.5,
                    "end_value": 0.5,
                },
            },
            ["[0, 1)"],
        ),
    ],
)
def test_a_schedule_that_leaves_the_range_of_its_option_is_refused(
    row, option, scheduler, fragments
):
    bad = {"name": row, "num_epochs": 2, "param_schedulers": {option: scheduler}}
    with pytest.raises(ValueError, match=f"param_schedulers.{option}") as caught:
        build_optimizer(bad)
    assert all(fragment in str(caught.value) for fragment in fragments)
