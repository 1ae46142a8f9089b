import pytest
from classy_vision.optim import build_optimizer
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn

from classy_gc.param_groups import (
    PARAM_GROUP_BUILDER_REGISTRY,
    ParamGroupBuilder,
    Paramwise,
    build_param_group_builder,
    build_param_groups,
    register_param_group_builder,
)


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    for name in list(PARAM_GROUP_BUILDER_REGISTRY):  # so that additions are undone
        monkeypatch.setitem(PARAM_GROUP_BUILDER_REGISTRY, name, PARAM_GROUP_BUILDER_REGISTRY[name])
    before = dict(PARAM_GROUP_BUILDER_REGISTRY)
    yield
    for name in set(PARAM_GROUP_BUILDER_REGISTRY) - set(before):
        del PARAM_GROUP_BUILDER_REGISTRY[name]


def mine(options):
    @register_param_group_builder("mine")
    class Mine(ParamGroupBuilder):
        def options(self, model, parameters, optimizer):
            return [options] * len(parameters)

    return build_param_group_builder({"name": "mine"})


def test_a_builder_of_ones_own():
    optimizer = build_optimizer({"name": "sgd_gc", "lr": 0.5})
    (group,) = build_param_groups(mine({"lr_mult": 2}), nn.Linear(2, 2), optimizer)
    assert group["lr"](0) == 1.0


@pytest.mark.parametrize("name", ["sgd", "sgd_gc"])
def test_fvcore_schedulers_are_updated_at_every_step(name):
    optimizer = build_optimizer({"name": name})
    builder = mine({"lr": LinearParamScheduler(1.0, 0.0)})
    (group,) = build_param_groups(builder, nn.Linear(2, 2), optimizer)
    del group["param_names"]
    optimizer.set_param_groups([group])
    optimizer.step(where=0.25)
    assert optimizer.options_view.lr == 0.75


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr_mutl": 2}, "unknown key 'lr_mutl' in options of 'weight' from param_groups 'mine'"),
        ({"lr": -1}, "options of 'weight' from param_groups 'mine': lr must be a number >= 0"),
        ({"params": []}, "unknown key 'params'"),
    ],
)
def test_what_it_returns_is_checked(options, message):
    with pytest.raises(ValueError, match=message):
        build_param_groups(mine(options), nn.Linear(2, 2), build_optimizer({"name": "sgd_gc"}))


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match=r"'paramwise' is <class 'classy_gc.*Paramwise'>"):
        register_param_group_builder("paramwise")(Paramwise)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ("paramwise", ValueError, "param_groups must be an object with a 'name', not 'paramwise'"),
        ({"bias_lr_mult": 1}, ValueError, "an object with a 'name'"),
        (
            {"name": "paramwize"},
            ValueError,
            "'paramwize' in param_groups, did you mean 'paramwise'",
        ),
        ({"name": "paramwise", "module": "mine"}, ValueError, "unknown key 'module' in"),
    ],
)
def test_refused_configs(config, error, message):
    with pytest.raises(error, match=message):
        build_param_group_builder(config)
