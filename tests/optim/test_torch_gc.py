"""``torch_gc`` with every class of torch.optim that takes a step from one gradient."""

import inspect

import pytest
import torch
from classy_vision.optim import build_optimizer
from classy_vision.tasks import build_task
from classy_vision.trainer import LocalTrainer
from fvcore.common.param_scheduler import LinearParamScheduler

from classy_gc import core
from classy_gc.optim import TorchGC
from classy_gc.param_groups import build_param_group_builder, build_param_groups
from tests.commands.training import digits

from .cases import advance, assert_close, assert_same, build, problem

UNFIT = ("LBFGS", "Muon", "SparseAdam")
NAMES = [
    name
    for name, cls in inspect.getmembers(torch.optim, inspect.isclass)
    if issubclass(cls, torch.optim.Optimizer) and name not in ("Optimizer", *UNFIT)
]
OWN = ["Adam", "AdamW", "RAdam", "RMSprop", "SGD"]
# Arguments that move an option of each class away from its default.
OPTIONS = {
    "ASGD": {"lambd": 0.01, "t0": 2},
    "Adadelta": {"rho": 0.8, "weight_decay": 0.1},
    "Adafactor": {"eps": [1e-20, 0.01], "d": 2},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5},
    "Adam": {"lr": 0.1, "betas": [0.8, 0.9], "decoupled_weight_decay": True, "weight_decay": 0.1},
    "AdamW": {"lr": 0.1, "amsgrad": True},
    "Adamax": {"lr": 0.1, "betas": [0.8, 0.9], "weight_decay": 0.1},
    "NAdam": {"lr": 0.1, "momentum_decay": 0.1, "decoupled_weight_decay": True},
    "RAdam": {"lr": 0.1, "weight_decay": 0.1},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Rprop": {"etas": [0.4, 1.3], "step_sizes": [1e-4, 1]},
    "SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "maximize": True},
}
every_class = pytest.mark.parametrize("name", NAMES)


def config(name, **options):
    return {"name": "torch_gc", "optimizer": name, **options}


def of(name, steps=6):
    return problem(steps)


def trained(name, **options):
    params, grads = of(name)
    optimizer = build(config(name, **options), params)
    advance(optimizer, grads)
    return params, optimizer


def test_the_table_covers_every_class():
    assert set(OPTIONS) <= set(NAMES)
    assert len(NAMES) >= 12


@every_class
def test_without_gc_it_is_the_class_bit_for_bit(name):
    options = OPTIONS.get(name, {})
    signature = inspect.signature(getattr(torch.optim, name)).parameters
    plain = {"fused": False} if "fused" in signature or name in ("RAdam", "RMSprop") else {}
    params, optimizer = trained(name, **options, **plain)
    theirs, grads = of(name)
    torch_optimizer = getattr(torch.optim, name)(theirs, **options)
    for step_grads in grads:
        for p, g in zip(theirs, step_grads, strict=True):
            p.grad = g.clone()
        torch_optimizer.step()
    if name == "RAdam":  # its formula rounds differently
        assert_close(params, theirs, 1e-6)
    else:
        assert_same(params, theirs)
    group = optimizer.param_groups[0]
    assert {k: group[k] for k in options} == {
        k: tuple(v) if isinstance(v, list) else v for k, v in options.items()
    }


@every_class
def test_defaults_are_those_of_torch(name):
    _, optimizer = trained(name)
    wanted = getattr(torch.optim, name)(of(name)[0]).defaults
    group = optimizer.param_groups[0]
    assert {k: group[k] for k in wanted if k != "fused"} == {
        k: v for k, v in wanted.items() if k != "fused"
    }
    # The kernels of torch's class, if it has any and no option names them.
    assert group.get("fused") == (True if "fused" in group else None)


@pytest.mark.parametrize("name", OWN)
def test_our_own_class_where_there_is_one(name):
    assert type(trained(name)[1].optimizer) is getattr(core, name)


@pytest.mark.parametrize("of_before", [False, True])
@every_class
def test_resumes_bit_identical(name, of_before):
    """Also one of the time when each class had a wrapper that did not store the kind of decay."""
    options = {**OPTIONS.get(name, {}), "use_gc": True}
    uninterrupted, _ = trained(name, **options)
    params, grads = of(name)
    first = build(config(name, **options), params)
    advance(first, grads[:3], total=6)
    state = first.get_classy_state()
    known = inspect.signature(getattr(torch.optim, name)).parameters
    if of_before and "decoupled_weight_decay" not in known:
        for group in state["optim"]["param_groups"]:
            group.pop("decoupled_weight_decay", None)
    second = build(config(name, **options), params)
    second.set_classy_state(state)
    advance(second, grads[3:], start=3, total=6)
    assert_same(params, uninterrupted)


@pytest.mark.parametrize(
    ("name", "option"),
    [("NAdam", "momentum_decay"), ("Adagrad", "lr_decay"), ("ASGD", "lambd"), ("Adadelta", "rho")],
)
def test_any_number_of_the_groups_is_scheduled(name, option):
    schedule = {option: {"name": "linear", "start_value": 0.5, "end_value": 0.1}}
    params, optimizer = trained(name, use_gc=True, param_schedulers=schedule)
    assert optimizer.param_groups[0][option] == pytest.approx(0.5 - 0.4 * 5 / 6)
    constant, _ = trained(name, use_gc=True, **{option: 0.5})
    assert any(not torch.equal(p, c) for p, c in zip(params, constant, strict=True))


def scheduled(name, option, value):
    scheduler = {"name": "linear", "start_value": 0.1, "end_value": value}
    return config(name, num_epochs=2, param_schedulers={option: scheduler})


REFUSED = [
    ({"name": "torch_gc"}, ["missing key 'optimizer'", "NAdam"]),
    (config("NAdm"), ["'NAdm'", "did you mean 'NAdam'?", "Adagrad"]),
    (config("nadam"), ["'nadam'", "did you mean 'NAdam'?"]),
    (config(["NAdam"]), ["['NAdam']"]),
    (config("Optimizer"), ["'Optimizer'"]),
    (config("LBFGS"), ["(LBFGS)", "closure"]),
    (config("SparseAdam"), ["(SparseAdam)", "dense gradients"]),
    (config("Muon"), ["(Muon)", "2D parameters"]),
    (config("NAdam", momentum_dcay=1), ["'momentum_dcay'", "did you mean 'momentum_decay'?"]),
    (config("NAdam", amsgrad=True), ["'amsgrad'", "NAdam", "momentum_decay"]),
    (config("SGD", gc_loc=True), ["'gc_loc'", "SGD"]),
    (config("SGD", differentiable=True), ["'differentiable'"]),
    (config("NAdam", lr="1"), ["lr must be a number >= 0, not '1'"]),
    (config("NAdam", lr=None), ["lr must be a number >= 0, not None"]),
    (config("NAdam", betas=[0.9]), ["betas", "[0.9]"]),
    (config("Rprop", etas=0.5), ["etas must be a list of 2 numbers, not 0.5"]),
    (config("Adafactor", eps=[None, None]), ["eps", "the first may be null", "[None, None]"]),
    (config("NAdam", use_gc="yes"), ["use_gc must be true or false, or a number", "not 'yes'"]),
    (config("NAdam", lr=-1), ["lr must be a number >= 0, not -1"]),
    # in torch's words
    (config("NAdam", momentum_decay=-1), ["momentum_decay must be a number >= 0, not -1"]),
    (config("Rprop", etas=[2, 3]), ["Invalid eta values: 2, 3"]),
    (config("SGD", nesterov=True), ["Nesterov momentum requires a momentum"]),
    (config("Adam", fused=True, foreach=True), ["`fused` and `foreach` cannot be `True`"]),
    (scheduled("NAdam", "momentum_decay", -1), ["momentum_decay must be a number >= 0, not -0.0"]),
    (scheduled("NAdam", "lr", "x"), ["param_schedulers.lr"]),
    (
        config("NAdam", num_epochs=2, param_schedulers={"lr": {"name": "constant", "value": "x"}}),
        ["param_schedulers.lr must be a number >= 0, not 'x'"],
    ),
    (scheduled("Adagrad", "initial_accumulator_value", 3), ["initial_accumulator_value"]),
    (scheduled("Rprop", "lr", 1), ["unknown key 'lr' in param_schedulers"]),
    (config("NAdam", param_groups={"name": "paramwise"}), ["paramwise_classification_task"]),
]


@pytest.mark.parametrize(("refused", "fragments"), REFUSED, ids=lambda value: str(value)[:70])
def test_refused_when_the_config_is_read(refused, fragments):
    with pytest.raises(ValueError, match="'torch_gc'") as caught:
        build_optimizer(refused)
    for fragment in fragments:
        assert fragment in str(caught.value)


@every_class
def test_a_schedule_of_momentum_where_the_class_has_one_or_betas(name):
    options = inspect.signature(getattr(torch.optim, name)).parameters
    schedule = {"momentum": {"name": "linear", "start_value": 0.5, "end_value": 0.9}}
    if not {"momentum", "betas"} & set(options):
        with pytest.raises(ValueError, match=rf"'momentum' in param_schedulers of .*\({name}\)"):
            trained(name, param_schedulers=schedule)
        with pytest.raises(ValueError, match=rf"'momentum' in optimizer 'torch_gc' \({name}\)"):
            build(config(name), of(name)[0], momentum=0.5)
        return
    _, optimizer = trained(name, param_schedulers=schedule)
    wanted = pytest.approx(0.5 + 0.4 * 5 / 6)
    assert optimizer.options_view.momentum == wanted
    if "betas" in options:
        assert optimizer.options_view.betas == (wanted, 0.999)


def test_lr_of_rprop_for_a_group():
    params, grads = of("Rprop")
    optimizer = build_optimizer(config("Rprop", lr=0.01))
    optimizer.set_param_groups([{"params": params[:2], "lr": 0.5}, {"params": params[2:]}])
    theirs = of("Rprop")[0]
    wanted = torch.optim.Rprop([{"params": theirs[:2], "lr": 0.5}, {"params": theirs[2:]}], lr=0.01)
    advance(optimizer, grads)
    for step_grads in grads:
        for p, g in zip(theirs, step_grads, strict=True):
            p.grad = g.clone()
        wanted.step()
    assert_same(params, theirs)
    linear = LinearParamScheduler(0.5, 0.1)
    for groups in ([{"params": params, "lr": linear}], {"params": params, "lr": linear}):
        with pytest.raises(ValueError, match="lr cannot be scheduled; these can: use_gc"):
            optimizer.set_param_groups(groups)


def test_lr_of_rprop_by_name():
    model = torch.nn.ModuleDict({"slow": torch.nn.Linear(2, 2), "fast": torch.nn.Linear(2, 2)})
    optimizer = build_optimizer(config("Rprop", lr=0.5))
    keys = {"slow": {"lr_mult": 0.1}, "fast": {"lr": 0.7}}
    builder = build_param_group_builder({"name": "paramwise", "custom_keys": keys})
    groups = build_param_groups(builder, model, optimizer)
    for group in groups:
        del group["param_names"]
    optimizer.set_param_groups(groups)
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.7]
    schedule = {"lr": {"name": "linear", "start_value": 1, "end_value": 0}}
    builder = build_param_group_builder({"name": "paramwise", "custom_keys": {"slow": schedule}})
    with pytest.raises(ValueError, match=r"lr must be a number >= 0, not \{'name'"):
        build_param_groups(builder, model, optimizer)


def test_rprop_which_has_no_decay_trains_beside_batchnorm():
    given = digits(1, 64, optimizer=config("Rprop", use_gc=True))
    del given["dataset"]["test"]
    task = build_task(given)
    LocalTrainer().train(task)
    assert all("weight_decay" not in group for group in task.optimizer.param_groups)
    with pytest.raises(ValueError, match="unknown key 'weight_decay'"):
        task.optimizer.set_param_groups([{"params": [], "weight_decay": 0.1}])


def build_groups(optimizer):
    optimizer.set_param_groups(of("NAdam")[0])
    return optimizer.param_groups[0]


def test_from_python_as_from_json():
    optimizer = TorchGC("NAdam", lr=0.1, use_gc=True)
    assert isinstance(optimizer, TorchGC)
    assert type(optimizer) is type(build_optimizer(config("NAdam")))
    params, grads = of("NAdam")
    optimizer.set_param_groups(params)
    advance(optimizer, grads)
    assert_same(params, trained("NAdam", lr=0.1, use_gc=True)[0])
    group = build_groups(TorchGC("NAdam", 0.1, (0.5, 0.6), use_gc=True))
    assert (group["lr"], group["betas"], group["use_gc"]) == (0.1, (0.5, 0.6), True)


@pytest.mark.parametrize("paramwise", [True, False])
def test_trains_from_a_config(paramwise):
    given = digits(1, 320, optimizer=config("Adamax", lr=0.01, use_gc=True))
    if paramwise:
        given["name"] = "paramwise_classification_task"
        given["optimizer"]["param_groups"] = {
            "name": "paramwise",
            "custom_keys": {"heads": {"lr_mult": 2, "betas": [0.5, 0.9]}},
        }
    torch.manual_seed(0)
    task = build_task(given)
    task.prepare()
    weights = [p for p in task.base_model.parameters() if p.ndim > 1]
    before = [w.detach().flatten(1).mean(1) for w in weights]
    LocalTrainer().train(task)
    assert task.losses
    assert sum(task.losses) / len(task.losses) < 2.3
    assert_close([w.detach().flatten(1).mean(1) for w in weights], before)
    groups = task.optimizer.param_groups
    assert {g["lr"] for g in groups} == ({0.01, 0.02} if paramwise else {0.01})
    assert {g["betas"] for g in groups} == {(0.9, 0.999), *[(0.5, 0.9)] * paramwise}
