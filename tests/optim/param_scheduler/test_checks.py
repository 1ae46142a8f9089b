"""ParamSchedulers of the algorithm's options, and of gradient centralization itself."""

import copy

import pytest
import torch
from classy_vision.optim import build_optimizer, build_optimizer_schedulers
from classy_vision.optim.param_scheduler import UpdateInterval
from fvcore.common import param_scheduler as fvcore

from classy_gc import core
from tests.pairwise import pairwise

from ..cases import (
    CONFIGS,
    advance,
    assert_close,
    assert_same,
    build,
    config,
    keeps_row_means,
    options_of,
    problem,
    row_means,
    train,
)

every_row = pytest.mark.parametrize("row", CONFIGS)

EPOCHS = 90
# What Classy Vision's own optimizer tests run: epochs so far, and the values then.
SEEN_AT = [0, 0.025, 0.05, 0.1, 0.5, 1, 15, 29, 30, 31, 59, 60, 61, 88, 89]
STEP = {"name": "step", "values": [0.1, 0.01, 0.001]}
WARM_UP = {
    "name": "composite",
    "schedulers": [{"name": "linear", "start_value": 0.01, "end_value": 0.1}, STEP],
    "update_interval": "epoch",
    "interval_scaling": ["rescaled", "fixed"],
    "lengths": [0.1 / EPOCHS, 1 - 0.1 / EPOCHS],
}
LINEAR = {"name": "linear", "start_value": 0.1, "end_value": 1.0}
AFTER_STEP = [0.1] * 8 + [0.01] * 3 + [0.001] * 4
SCHEDULES = {
    "constant": ({"name": "constant", "value": 0.1}, [0.1] * 15),
    "step": (STEP, AFTER_STEP),
    "warm-up": (WARM_UP, [0.01, 0.0325, 0.055, *[0.1] * 5, *AFTER_STEP[8:]]),
    "linear": (LINEAR, [0.1 + 0.9 * e / EPOCHS for e in SEEN_AT]),
}


@pytest.mark.parametrize(
    ("row", "schedule", "option", "interval"),
    pairwise(
        list(CONFIGS),
        list(SCHEDULES),
        ["lr", "weight_decay", "use_gc", "gc_conv_only"],
        ["epoch", "step"],
    ),
)
def test_options_follow_their_schedules(row, schedule, option, interval):
    schedule, values = SCHEDULES[schedule]
    schedulers = {option: {**schedule, "update_interval": interval}}
    optimizer = build({**config(row), "param_schedulers": schedulers}, problem(0)[0], EPOCHS)
    group = optimizer.optimizer.param_groups[0]
    assert group[option] == pytest.approx(values[0])
    others = {k: v for k, v in group.items() if k != option}
    before = group[option]
    for epoch, value in zip(SEEN_AT, values, strict=True):
        where = epoch / EPOCHS
        if interval == "epoch":
            optimizer.step(where=where)
            assert group[option] == before
            optimizer.on_epoch(where)
        else:
            optimizer.on_epoch(where)
            assert group[option] == before
            optimizer.step(where=where)
        before = group[option]
        assert before == pytest.approx(value)
        assert getattr(optimizer.options_view, option) == before
    optimizer.on_epoch(1)  # after the last epoch
    assert group[option] == before
    assert {k: v for k, v in group.items() if k != option} == others


@pytest.mark.parametrize("row", [row for row in CONFIGS if "momentum" in options_of(row)])
def test_momentum_is_scheduled(row):
    momenta = {"momentum": {"name": "linear", "start_value": 0.5, "end_value": 0.9}}
    params, grads = problem(4)
    optimizer = build({**config(row), "param_schedulers": momenta}, params)
    advance(optimizer, grads)
    assert optimizer.options_view.momentum == pytest.approx(0.5 + 0.4 * 3 / 4)


BETAS = [row for row in CONFIGS if "betas" in options_of(row) and not row.startswith("gc-")]
CORE = {
    "adam_gc": core.Adam,
    "adamw_gc": core.AdamW,
    "radam_gc": core.RAdam,
    "plain_radam_gc": core.PlainRAdam,
}


@pytest.mark.parametrize("name", ["step", "linear"])
@pytest.mark.parametrize("row", BETAS)
def test_a_schedule_of_momentum_drives_the_first_beta(row, name):
    schedule = {
        "step": {"name": "step", "values": [0.5, 0.95]},
        "linear": {"name": "linear", "start_value": 0.5, "end_value": 0.95},
    }[name]
    params, grads = problem(8)
    momentum = build_optimizer_schedulers(
        {"num_epochs": 2, "param_schedulers": {"momentum": schedule}}
    )["momentum"]
    options = options_of(row)
    by_hand = CORE[row](problem(0)[0], **options, use_gc=True, fused=False)
    hand_params = by_hand.param_groups[0]["params"]

    config_ = config(row, use_gc=True, fused=False, param_schedulers={"momentum": schedule})
    optimizer = build(config_, params)
    for t, step_grads in enumerate(grads):
        # In epochs of four steps.
        beta1 = momentum(t / 8 if name == "linear" else t // 4 * 4 / 8)
        by_hand.param_groups[0]["betas"] = (beta1, options["betas"][1])
        for p, g in zip(hand_params, step_grads, strict=True):
            p.grad = g.clone()
        by_hand.step()
        advance(optimizer, [step_grads], start=t, total=8)
        assert_same(params, hand_params)
    assert optimizer.options_view.momentum == beta1 == optimizer.options_view.betas[0] > 0.6


@pytest.mark.parametrize("row", [row for row in CONFIGS if "betas" in options_of(row)])
def test_each_group_keeps_its_second_beta_under_a_schedule_of_momentum(row):
    schedule = {"momentum": {"name": "linear", "start_value": 0.5, "end_value": 0.9}}
    given = config(row, num_epochs=2, param_schedulers=schedule)
    params, grads = problem(8)
    optimizer = build_optimizer(copy.deepcopy(given))
    momentum = build_optimizer_schedulers(given)["momentum"]
    optimizer.set_param_groups(
        [{"params": params[:2], "betas": (0.7, 0.95)}, {"params": params[2:]}], momentum=momentum
    )
    second = options_of(row)["betas"][1]
    for t, step_grads in enumerate(grads):
        advance(optimizer, [step_grads], start=t, total=8)
        wanted = pytest.approx(0.5 + 0.4 * t / 8)
        assert [g["momentum"] for g in optimizer.param_groups] == [wanted, wanted]
        if (t + 1) % 4:  # the constants of groups are written anew at the end of an epoch
            assert [g["betas"] for g in optimizer.param_groups] == [
                (wanted, 0.95),
                (wanted, second),
            ]

    other = build_optimizer(copy.deepcopy(given))
    own = problem(0)[0]
    other.set_param_groups([{"params": own[:2]}, {"params": own[2:]}], momentum=momentum)
    other.set_classy_state(optimizer.get_classy_state())
    advance(other, grads[:1], start=5, total=8)
    assert [g["betas"][1] for g in other.param_groups] == [0.95, second]


@pytest.mark.parametrize("row", ["gc-adam", "gc-adamw"])
def test_momentum_drives_the_first_beta_of_what_gc_is_around(row):
    schedule = {"momentum": {"name": "linear", "start_value": 0.5, "end_value": 0.9}}
    own = row.removeprefix("gc-") + "_gc"
    _, grads = problem(8)
    changes = {"use_gc": True, "gc_loc": False, "param_schedulers": schedule}
    around, optimizer = train(config(row, **changes), grads)
    assert optimizer.options_view.betas[0] == pytest.approx(0.5 + 0.4 * 7 / 8)
    assert_same(around, train(config(own, **changes), grads)[0])
    constant = {"momentum": {"name": "constant", "value": 0.5}}
    still = train(config(row, **{**changes, "param_schedulers": constant}), grads)[0]
    assert not torch.allclose(still[0], around[0], atol=1e-4)


# GC for a part of the training.


@every_row
def test_gc_for_the_first_half_of_training(row):
    params, grads = problem(16)
    start = row_means(params)
    schedule = {"use_gc": {"name": "step", "values": [1, 0]}}
    optimizer = build(keeps_row_means(row, param_schedulers=schedule), params)
    advance(optimizer, grads[:8], total=16)
    assert_close(row_means(params), start)
    assert_close(params, train(keeps_row_means(row), grads[:8])[0], 0)
    advance(optimizer, grads[8:], start=8, total=16)
    for now, then in zip(row_means(params), start, strict=True):
        assert (now - then).abs().min() > 1e-3


@every_row
def test_gc_conv_only_for_the_first_half_of_training(row):
    params, grads = problem(16)
    start = row_means(params)
    schedule = {"gc_conv_only": {"name": "step", "values": [1, 0]}}
    # SGD's GC comes before its momentum, which would keep the means.
    changes = {"momentum": 0, "nesterov": False} if row == "sgd_gc" else {}
    optimizer = build(keeps_row_means(row, param_schedulers=schedule, **changes), params)
    advance(optimizer, grads[:8], total=16)
    middle = row_means(params)
    advance(optimizer, grads[8:], start=8, total=16)
    assert_close([middle[0], *row_means(params)], [start[0], start[0], *middle[1:]])
    for now, then in zip(middle[1:], start[1:], strict=True):
        assert (now - then).abs().min() > 1e-3


@pytest.mark.parametrize("row", [row for row in CONFIGS if row != "sgd_gc"])
def test_gc_loc_is_scheduled(row):
    _, grads = problem(16)
    schedule = {"gc_loc": {"name": "step", "values": [0, 1]}}
    scheduled = train(config(row, use_gc=True, param_schedulers=schedule), grads)[0]
    params = problem(0)[0]
    by_hand = build(config(row, use_gc=True, gc_loc=False), params)
    advance(by_hand, grads[:8], total=16)
    by_hand.optimizer.param_groups[0]["gc_loc"] = True
    advance(by_hand, grads[8:], start=8, total=16)
    assert_same(scheduled, params)
    for gc_loc in (False, True):
        always = train(config(row, use_gc=True, gc_loc=gc_loc), grads)[0]
        assert not torch.allclose(always[0], params[0], atol=1e-4)


# fvcore's schedulers, from Python.

FVCORE = [
    fvcore.LinearParamScheduler(0.1, 0.5),
    fvcore.CosineParamScheduler(0.1, 0.5),
    fvcore.ConstantParamScheduler(0.3),
    fvcore.StepParamScheduler(4, [0.1, 0.5]),
    fvcore.CompositeParamScheduler(
        [fvcore.LinearParamScheduler(0.0, 0.1), fvcore.ConstantParamScheduler(0.1)],
        [0.5, 0.5],
        ["rescaled", "fixed"],
    ),
]


@pytest.mark.parametrize(
    ("row", "scheduler", "how"), pairwise(list(CONFIGS), FVCORE, ["keyword", "group", "groups"])
)
def test_fvcore_schedulers_are_updated_at_every_step(row, scheduler, how):
    params = problem(0)[0]
    groups = {
        "keyword": params,
        "group": {"params": params, "lr": scheduler},
        "groups": [{"params": params[:2], "lr": scheduler}, {"params": params[2:], "lr": 0.7}],
    }[how]
    keywords = {"lr": scheduler} if how == "keyword" else {}
    before = dict(vars(scheduler)), copy.copy(groups)
    optimizer = build_optimizer(config(row))
    optimizer.set_param_groups(groups, **keywords)
    for t in range(4):
        optimizer.step(where=t / 4)
        assert optimizer.optimizer.param_groups[0]["lr"] == scheduler(t / 4)
    if how == "groups":
        assert groups[0].keys() == {"params", "lr"}
        assert groups[0]["lr"] is scheduler
        assert groups[1]["lr"] == 0.7 == optimizer.optimizer.param_groups[1]["lr"]
    assert not hasattr(scheduler, "update_interval")
    assert (dict(vars(scheduler)), groups) == before


@every_row
def test_schedulers_of_classy_vision_keep_their_interval(row):
    scheduler = build_optimizer_schedulers({"num_epochs": 4, "param_schedulers": {"lr": STEP}})[
        "lr"
    ]
    params = problem(0)[0]
    optimizer = build_optimizer(config(row))
    optimizer.set_param_groups(params, lr=scheduler)
    optimizer.step(where=0.9)
    assert optimizer.options_view.lr == 0.1
    optimizer.on_epoch(0.9)
    assert optimizer.options_view.lr == 0.001
    assert scheduler.update_interval is UpdateInterval.EPOCH


@every_row
def test_constants_of_groups_stay_constants(row):
    params, grads = problem(4)
    group = {"params": params, "lr": 0.05, "use_gc": True}
    optimizer = build_optimizer(config(row))
    optimizer.set_param_groups([group])
    assert group == {"params": params, "lr": 0.05, "use_gc": True}
    advance(optimizer, grads)
    assert optimizer.options_view.lr == 0.05
    assert optimizer.options_view.use_gc
