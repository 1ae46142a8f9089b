"""What every registered optimizer does as a ClassyOptimizer: options, groups, schedules, state."""

import inspect

import pytest
import torch
from classy_vision.optim import OPTIMIZER_REGISTRY, build_optimizer
from torch import nn
from torch.nn import Parameter

import classy_gc
from classy_gc import core

from .cases import (
    CONFIGS,
    PLAIN,
    STOCK,
    WITH_FUSED,
    advance,
    assert_close,
    assert_same,
    build,
    config,
    copies,
    keeps_row_means,
    options_of,
    problem,
    row_means,
    train,
)

every_row = pytest.mark.parametrize("row", CONFIGS)
with_and_without_gc = pytest.mark.parametrize("use_gc", [False, True])
RMSPROPS = [row for row in PLAIN if "rmsprop" in row]


def not_centered(row):
    return {"centered": False} if row in RMSPROPS else {}


def test_the_table_holds_every_registered_name():
    ours = {n for n, c in OPTIMIZER_REGISTRY.items() if c.__module__.startswith("classy_gc.")}
    # torch_gc has the options of the class that it names, see test_torch_gc.py; zero has none.
    assert {c["name"] for c in CONFIGS.values()} == ours - {"torch_gc", "zero"}
    assert ours == {OPTIMIZER_REGISTRY[n].__module__.rpartition(".")[2] for n in ours}
    for name in ours:
        assert OPTIMIZER_REGISTRY[name] in vars(classy_gc.optim).values()


# Building.


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param(lambda ps: ps, id="list"),
        pytest.param(lambda ps: iter(ps), id="generator"),
        pytest.param(lambda ps: {"params": ps}, id="group"),
        pytest.param(lambda ps: [{"params": ps[:2]}, {"params": ps[2:], "lr": 0.5}], id="groups"),
        pytest.param(lambda ps: iter([{"params": ps[:2]}, {"params": ps[2:]}]), id="iterator"),
        pytest.param(lambda ps: [(f"p{i}", p) for i, p in enumerate(ps)], id="named"),
        pytest.param(lambda ps: zip("abcde", ps, strict=True), id="generator of named"),
        pytest.param(lambda ps: {"params": zip("abcde", ps, strict=True)}, id="named group"),
    ],
)
@pytest.mark.parametrize("row", ["sgd_gc", "adamw_gc", "gc-rmsprop"])
def test_build(row, groups):
    params, grads = problem(1)
    before = copies(params)
    optimizer = build_optimizer(config(row, use_gc=True))
    assert type(optimizer) is OPTIMIZER_REGISTRY[CONFIGS[row]["name"]]
    optimizer.set_param_groups(groups(params))
    assert isinstance(optimizer.optimizer, core.CentralizedOptimizer)
    assert [p for g in optimizer.param_groups for p in g["params"]] == params
    advance(optimizer, grads)
    assert not any(torch.equal(x, y) for x, y in zip(params, before, strict=True))


@every_row
def test_names_are_kept_as_in_torch(row):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    theirs = torch.optim.SGD(list(model.named_parameters()), lr=0.1)
    optimizer = build_optimizer(config(row))
    optimizer.set_param_groups(list(model.named_parameters()))
    state = optimizer.get_classy_state()
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    for groups in (optimizer.param_groups, state["optim"]["param_groups"], theirs.param_groups):
        assert groups[0]["param_names"] == names
    optimizer.set_classy_state(state)
    optimizer.step(where=0)
    assert optimizer.param_groups[0]["param_names"] == names
    other = build_optimizer(config(row))
    other.set_param_groups(model.parameters())
    other.set_classy_state(state)
    optimizer.set_classy_state(other.get_classy_state())


@every_row
def test_no_parameters_are_refused(row):
    with pytest.raises(ValueError, match="empty"):
        build_optimizer(config(row)).set_param_groups([])


@with_and_without_gc
@every_row
def test_step_takes_a_closure(row, use_gc):
    params, grads = problem(2)
    optimizer = build(config(row, use_gc=use_gc), params)
    for t, step_grads in enumerate(grads):

        def closure(step_grads=step_grads):
            optimizer.zero_grad()
            loss = sum((p * g).sum() for p, g in zip(params, step_grads, strict=True))
            loss.backward()
            return loss

        optimizer.step(closure=closure, where=t / 2)
    assert_close(params, train(config(row, use_gc=use_gc), grads)[0])


# Options.


@every_row
def test_options_reach_the_groups(row):
    gc = {"use_gc": True, "gc_conv_only": True}
    if row != "sgd_gc":
        gc["gc_loc"] = row != "adamw_gc"  # the opposite of the default
    optimizer = build(config(row, **gc), problem(0)[0])
    view = optimizer.options_view
    for name, value in {**options_of(row), **gc}.items():
        assert getattr(view, name) == (tuple(value) if name == "betas" else value), name


@pytest.mark.parametrize("name", STOCK)
def test_defaults_are_those_of_the_stock_optimizer(name):
    stock, ours = OPTIMIZER_REGISTRY[name], OPTIMIZER_REGISTRY[f"{name}_gc"]
    from_config = {"name": name}
    stock.from_config(from_config)  # it writes its defaults into the config
    constructor = {k: p.default for k, p in inspect.signature(stock).parameters.items()}
    assert from_config.keys() - {"name"} <= constructor.keys()
    added = {"use_gc": False, "gc_conv_only": False, "gc_loc": name == "adamw"}
    if name == "rmsprop_tf":
        added |= {"initial_square_avg": 0.0, "lr_in_momentum": False}
    assert inspect.signature(ours).parameters.keys() <= {*constructor, *added, "fused", "foreach"}

    params = [Parameter(torch.ones(2, 3))]
    built = (
        (stock.from_config({"name": name}), ours.from_config({"name": f"{name}_gc"})),
        (stock(), ours()),
        # Every key of the stock optimizer, written out, is accepted.
        (stock.from_config(dict(from_config)), ours.from_config({**from_config, "name": "x"})),
    )
    for theirs, mine in built:
        theirs.set_param_groups(params)
        mine.set_param_groups(params)
        group = dict(mine.optimizer.param_groups[0])
        for key, value in added.items():
            if key != "gc_loc" or name != "sgd":
                assert group.pop(key) == value
        fused = {"fused": True} if "fused" in group else {}
        for key, value in {**theirs.optimizer.param_groups[0], **fused}.items():
            assert group[key] == value, key


@pytest.mark.parametrize("name", STOCK)
def test_positional_arguments_are_those_of_the_stock_optimizer(name):
    stock, ours = OPTIMIZER_REGISTRY[name], OPTIMIZER_REGISTRY[f"{name}_gc"]
    given = {"larc_config": None, "use_larc": False, **STOCK[name]}
    order = [key for key in inspect.signature(stock).parameters if key in given]
    assert list(inspect.signature(ours).parameters)[: len(order)] == order
    for n in range(len(order) + 1):
        theirs, mine = stock(*map(given.get, order[:n])), ours(*map(given.get, order[:n]))
        for optimizer in (theirs, mine):
            optimizer.set_param_groups([Parameter(torch.ones(2, 3))])
        wanted, got = theirs.param_groups[0], mine.param_groups[0]
        for key in order:
            if key in wanted:
                value = tuple(wanted[key]) if key == "betas" else wanted[key]
                assert got[key] == value, key
    with pytest.raises(TypeError, match=order[-1]):
        ours(*map(given.get, order), **{order[-1]: given[order[-1]]})
    with pytest.raises(TypeError, match="positional"):
        ours(*[0.1] * 30)


def test_positional_arguments_of_sgd_may_begin_with_lr():
    for optimizer in (classy_gc.optim.SGDGC(0.1, 0.9), classy_gc.optim.SGDGC({}, 0.1, 0.9)):
        optimizer.set_param_groups([Parameter(torch.ones(2, 3))])
        assert (optimizer.options_view.lr, optimizer.options_view.momentum) == (0.1, 0.9)


@pytest.mark.parametrize("cls", [classy_gc.optim.RAdamGC, classy_gc.optim.PlainRAdamGC])
def test_positional_arguments_of_radam_are_torchs(cls):
    optimizer = cls(0.5, (0.5, 0.6), 0.25, 0.125)
    optimizer.set_param_groups([Parameter(torch.ones(2, 3))])
    wanted = torch.optim.RAdam([torch.zeros(1)], 0.5, (0.5, 0.6), 0.25, 0.125).defaults
    for key in ("lr", "betas", "eps", "weight_decay"):
        assert optimizer.param_groups[0][key] == wanted[key]


def test_larc_config_has_the_stock_defaults():
    stock = {"name": "sgd"}
    OPTIMIZER_REGISTRY["sgd"].from_config(stock)
    optimizer = build({"name": "sgd_gc", "use_larc": True}, problem(0)[0])
    assert type(optimizer.optimizer) is core.LARC
    for key, value in stock["larc_config"].items():
        assert optimizer.optimizer.param_groups[0][key] == value


@pytest.mark.parametrize(
    ("name", "cls"), [("radam_gc", core.RAdam), ("plain_radam_gc", core.PlainRAdam)]
)
def test_radams_have_the_core_defaults(name, cls):
    params = problem(0)[0]
    for optimizer in (build({"name": name}, params), OPTIMIZER_REGISTRY[name]()):
        optimizer.set_param_groups(params)
        assert type(optimizer.optimizer) is cls
        wanted = {**cls(params).defaults, "fused": True, "params": params}
        assert optimizer.optimizer.param_groups == [wanted]


# Fused kernels.

FUSED = [
    ({}, True),
    ({"fused": None, "foreach": None}, True),
    ({"fused": True}, True),
    ({"foreach": False}, True),
    ({"fused": False}, False),
    ({"foreach": True}, False),
]
NOT_FUSED = {
    "complex": lambda: torch.randn(4, 3, dtype=torch.complex64),
    "strided": lambda: torch.randn(4, 6)[:, ::2],
}


@pytest.mark.parametrize(("switches", "fused"), FUSED, ids=str)
@pytest.mark.parametrize("row", WITH_FUSED)
def test_fused_kernels_are_the_default(row, switches, fused):
    optimizer = build(config(row, use_gc=True, **not_centered(row), **switches), problem(0)[0])
    assert bool(optimizer.optimizer.param_groups[0]["fused"]) is fused
    assert bool(optimizer.optimizer.param_groups[0]["foreach"]) is (switches.get("foreach") is True)


@pytest.mark.parametrize("where", ["alone", "in one group", "in another group"])
@pytest.mark.parametrize("kind", NOT_FUSED)
@pytest.mark.parametrize("row", WITH_FUSED)
def test_fused_kernels_are_not_picked_where_they_cannot_work(row, kind, where):
    odd, usual = Parameter(NOT_FUSED[kind]()), Parameter(torch.randn(4, 3))
    groups = {
        "alone": [{"params": [odd]}],
        "in one group": [{"params": [usual, odd]}],
        "in another group": [{"params": [usual]}, {"params": [odd]}],
    }[where]
    optimizer = build_optimizer({**keeps_row_means(row), **not_centered(row)})
    optimizer.set_param_groups(groups)
    assert not any(g["fused"] for g in optimizer.optimizer.param_groups)
    before = odd.detach().clone()
    for t in range(8):
        odd.grad = torch.randn_like(odd)
        usual.grad = torch.randn_like(usual)
        optimizer.step(where=t / 8)
    assert not torch.equal(odd, before)
    assert_close([odd.mean(1)], [before.mean(1)])


# Parameter groups.


@every_row
def test_gc_of_a_group(row):
    params, grads = problem(8)
    means = row_means(params)
    optimizer = build_optimizer(keeps_row_means(row))
    optimizer.set_param_groups([{"params": params[:1], "use_gc": 0}, {"params": params[1:]}])
    assert [bool(g["use_gc"]) for g in optimizer.optimizer.param_groups] == [False, True]
    advance(optimizer, grads)
    assert (row_means(params)[0] - means[0]).abs().min() > 1e-3
    assert_close(row_means(params)[1:], means[1:])


@pytest.mark.parametrize("gc_conv_only", [False, True])
@every_row
def test_gc_conv_only(row, gc_conv_only):
    params, grads = problem(8)
    means = row_means(params)
    advance(build(keeps_row_means(row, gc_conv_only=gc_conv_only), params), grads)
    moved = [
        not torch.allclose(x, y, atol=1e-4) for x, y in zip(row_means(params), means, strict=True)
    ]
    assert moved == [False, gc_conv_only, gc_conv_only]


# State.


@every_row
def test_wrong_state_is_refused(row):
    params, grads = problem(2)
    other = build_optimizer(config(row))
    other.set_param_groups([{"params": params[:2]}, {"params": params[2:]}])
    wrong = [({}, KeyError), (other.get_classy_state(), ValueError)]
    shorter = build(config(row), params[:2])
    wrong.append((shorter.get_classy_state(), ValueError))
    for state, error in wrong:
        own = copies(params)
        optimizer = build(config(row, use_gc=True), own)
        with pytest.raises(error):
            optimizer.set_classy_state(state)
        advance(optimizer, grads)  # and it works like a new one
        assert_same(own, train(config(row, use_gc=True), grads)[0])
