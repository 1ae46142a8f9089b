"""``zero`` around a GC optimizer in one process: resuming, and refusals."""

import copy
import logging

import pytest
import torch.distributed as dist
from classy_vision.optim import build_optimizer
from fvcore.common import param_scheduler as fvcore

from .cases import STOCK, advance, assert_same, build, config, copies, problem

ROWS = ["sgd_gc", "adam_gc", "adamw_gc", "radam_gc", "rmsprop_gc", "gc-sgd", "gc-adam"]


@pytest.fixture(autouse=True)
def process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def zero(base, **options):
    return {"name": "zero", "base_optimizer": base, **options}


def saved(optimizer):
    optimizer.consolidate_state_dict()
    return copy.deepcopy(optimizer.get_classy_state())


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ({"use_gc": False}, {"use_gc": True}),
        ({"use_gc": True}, {"use_gc": False}),
        ({"use_gc": True, "gc_loc": True}, {"use_gc": True, "gc_loc": False}),
        ({"use_gc": True, "gc_conv_only": True}, {"use_gc": True, "gc_conv_only": False}),
        ({"use_gc": True, "fused": True}, {"use_gc": True, "fused": False}),
    ],
    ids=str,
)
@pytest.mark.parametrize("row", ROWS)
def test_the_config_wins_and_one_warning_says_so(row, was, now, caplog):
    was, now = (
        {k: v for k, v in options.items() if not (k == "fused" and "gc-" in row)}
        for options in (was, now)
    )
    if row == "sgd_gc" and "gc_loc" in was:
        pytest.skip("sgd_gc has no gc_loc")
    if row == "rmsprop_gc":
        was, now = {"centered": False, **was}, {"centered": False, **now}
    params, grads = problem(6)
    first = build(zero(config(row, **was)), params)
    advance(first, grads[:3], total=6)
    state, middle = saved(first), copies(params)
    second = build(zero(config(row, **now)), middle)
    second.set_classy_state(copy.deepcopy(state))  # fairscale takes the tensors as they are
    for optimizer in (second.optimizer, second.base_optimizer.optimizer):
        assert {k: bool(optimizer.param_groups[0][k]) for k in now} == now
    differ = [f"{k} is {v} (was {was[k]})" for k, v in now.items() if v != was[k] and k != "fused"]
    assert warnings_of(caplog) == [
        f"optimizer {config(row)['name']!r}: the config wins over the checkpoint: {text}"
        for text in differ
    ]
    # As without zero.
    third = build(config(row, **now), copies(params))
    third.set_classy_state(state)
    own = third.param_groups[0]["params"]
    advance(second, grads[3:], start=3, total=6)
    advance(third, grads[3:], start=3, total=6)
    assert_same(middle, own)


def test_what_is_not_about_gc_comes_from_the_checkpoint(caplog):
    params, grads = problem(2)
    first = build(zero(config("adam_gc")), params)
    advance(first, grads)
    second = build(zero(config("adam_gc", lr=9.0)), copies(params))
    second.set_classy_state(saved(first))
    assert second.options_view.lr == 0.01
    (warning,) = warnings_of(caplog)
    assert "the checkpoint wins over the config: lr stays 0.01 (config: 9.0)" in warning


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_from_a_stock_checkpoint_with_a_schedule_of_gc(name):
    params, grads = problem(8)
    stock = build(zero({"name": name, **copy.deepcopy(STOCK[name])}), params)
    advance(stock, grads[:6], total=8)
    schedule = {"use_gc": {"name": "step", "values": [0, 1]}}
    second = build(zero(config(f"{name}_gc"), param_schedulers=schedule), copies(params))
    assert second.options_view.use_gc == 0
    second.set_classy_state(saved(stock))
    advance(second, grads[6:7], start=6, total=8)
    assert second.options_view.use_gc == second.base_optimizer.options_view.use_gc == 1


@pytest.mark.parametrize(("was", "now"), [("adamw", "adam_gc"), ("radam_gc", "adam_gc")])
def test_another_kind_is_refused(was, now):
    params, grads = problem(2)
    options = copy.deepcopy(STOCK[was]) if was in STOCK else {"lr": 0.01}
    first = build(zero({"name": was, **options}), params)
    advance(first, grads)
    second = build(zero(config(now)), copies(params))
    with pytest.raises(
        ValueError, match=r"'adam_gc' cannot resume: .* of another: .*, and Adam has amsgrad"
    ):
        second.set_classy_state(saved(first))


@pytest.mark.parametrize("row", ROWS)
def test_fvcore_schedulers_are_updated_at_every_step(row):
    scheduler = fvcore.CosineParamScheduler(0.1, 0.5)
    optimizer = build_optimizer(zero(config(row)))
    params = problem(0)[0]
    optimizer.set_param_groups([{"params": params[:2], "lr": scheduler}, {"params": params[2:]}])
    for t in range(4):
        optimizer.step(where=t / 4)
        assert optimizer.param_groups[0]["lr"] == scheduler(t / 4)
        assert optimizer.base_optimizer.optimizer.param_groups[0]["lr"] == scheduler(t / 4)


@pytest.mark.parametrize("outside", [True, False])
def test_an_own_loop_follows_the_schedules_of_the_config(outside):
    linear = {"name": "linear", "start_value": 0.1, "end_value": 0.0}
    schedules = {"param_schedulers": {"lr": linear}}
    given = zero(config("adam_gc", **({} if outside else schedules)))
    optimizer = build_optimizer({**given, **(schedules if outside else {}), "num_epochs": 2})
    params = problem(0)[0]
    optimizer.set_param_groups([{"params": params[:1], "lr": 0.3}, {"params": params[1:]}])
    optimizer.step(where=0.5)
    rates = [group["lr"] for group in optimizer.base_optimizer.optimizer.param_groups]
    assert rates == [0.3, pytest.approx(0.05)]


def test_a_schedule_of_the_config_that_nobody_would_read_is_refused():
    linear = {"name": "linear", "start_value": 0.1, "end_value": 0.0}
    with pytest.raises(ValueError, match="unknown key 'rl' in param_schedulers of optimizer"):
        build_optimizer(zero(config("adam_gc"), param_schedulers={"rl": linear}))


@pytest.mark.parametrize("name", ["pytorch_optimizer.Lion", "timm.optim.AdamP"])
def test_a_class_of_another_package(name, caplog):
    pytest.importorskip(name.partition(".")[0])
    given = {"name": "torch_gc", "optimizer": name, "lr": 0.01, "use_gc": True}
    params, grads = problem(6)
    plain, middle = copies(params), copies(params)
    advance(build(given, plain), grads)
    first = build(zero(given), params)
    advance(first, grads[:3], total=6)
    state, middle = saved(first), copies(params)
    advance(first, grads[3:], start=3, total=6)
    assert_same(params, plain)
    second = build(zero({**given, "use_gc": False, "lr": 0.01}), middle)
    second.set_classy_state(state)
    assert "use_gc is False (was True)" in warnings_of(caplog)[0]
    second = build(zero(given), middle)
    second.set_classy_state(state)
    advance(second, grads[3:], start=3, total=6)
    assert_same(middle, params)
    other = build(zero(config("sgd_gc")), copies(params))
    with pytest.raises(ValueError, match="'sgd_gc' cannot resume"):
        other.set_classy_state(state)


def test_an_option_that_nobody_has_is_refused_for_groups():
    optimizer = build_optimizer(zero(config("sgd_gc")))
    with pytest.raises(ValueError, match="unknown key 'momentun'"):
        optimizer.set_param_groups(problem(0)[0], momentun=0.9)
