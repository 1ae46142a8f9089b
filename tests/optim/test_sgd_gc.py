"""LARC, against its formula: apex's LARC with the weight decay folded into the gradient."""

import itertools

import pytest
import torch
from classy_vision.optim import build_optimizer
from torch.nn import Parameter

from classy_gc import core
from classy_gc.optim.stock import check_stock_optimizer

from .cases import (
    advance,
    assert_close,
    assert_same,
    build,
    centralized,
    copies,
    problem,
    row_means,
)


def larc(p, grads, *, lr, momentum, weight_decay, nesterov, trust, clip, eps, use_gc):
    """``p −= lr·d`` with SGD's momentum and ``d = C(λ(g + wd·p))``, straight from the formula."""
    p = p.detach().clone()
    buffer = None
    for g in grads:
        p_norm, g_norm = p.norm().item(), g.norm().item()
        d = g
        if p_norm and g_norm:
            rate = trust * p_norm / (g_norm + weight_decay * p_norm + eps)
            if clip:
                rate = min(rate / lr, 1)
            d = rate * (g + weight_decay * p)
        if use_gc and p.dim() > 1 and p.numel() > p.shape[0]:
            d = centralized(d)
        if momentum:
            buffer = d if buffer is None else momentum * buffer + d
            d = d + momentum * buffer if nesterov else buffer
        p = p - lr * d
    return p


SGD = [
    {"momentum": 0, "weight_decay": 0, "nesterov": False},
    {"momentum": 0.9, "weight_decay": 0.125, "nesterov": False},
    {"momentum": 0.9, "weight_decay": 0.125, "nesterov": True},
]
# With rates below and above the learning rate, so that clip has something to do.
LARC = [
    {"trust_coefficient": trust, "clip": clip, "eps": eps}
    for trust, clip, eps in itertools.product([0.02, 0.5], [True, False], [1e-8, 0.5])
]


def config(sgd, larc_config, **options):
    return {
        "name": "sgd_gc",
        "lr": 0.1,
        "use_larc": True,
        "larc_config": larc_config,
        **sgd,
        **options,
    }


def reference(params, grads, sgd, larc_config, use_gc, lr=0.1):
    trust = {"trust": larc_config["trust_coefficient"]}
    rest = {k: v for k, v in larc_config.items() if k != "trust_coefficient"}
    return [
        larc(p, gs, lr=lr, use_gc=use_gc, **sgd, **trust, **rest)
        for p, gs in zip(params, zip(*grads, strict=True), strict=True)
    ]


@pytest.mark.parametrize("use_gc", [False, True])
@pytest.mark.parametrize("larc_config", LARC, ids=str)
@pytest.mark.parametrize("sgd", SGD, ids=str)
def test_larc_matches_its_formula(sgd, larc_config, use_gc):
    for fused in (False, True):
        params, grads = problem(5, dtype=torch.float64)
        means = row_means(params)
        wanted = reference(params, grads, sgd, larc_config, use_gc)
        given = config(sgd, larc_config, use_gc=use_gc, fused=fused)
        advance(build(given, params), grads, epochs=1)
        assert_close(params, wanted, 1e-12)
        if use_gc:
            assert_close(row_means(params), means, 1e-12)


@pytest.mark.parametrize("use_gc", [False, True])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("zero", ["weight", "gradient", "both"])
def test_where_a_norm_is_zero_larc_is_sgd_without_decay(zero, clip, use_gc):
    params, grads = problem(3, dtype=torch.float64)
    with torch.no_grad():
        if zero != "gradient":
            params[0].zero_()
        if zero != "weight":
            grads[0][0].zero_()
    larc_config = {"trust_coefficient": 0.02, "clip": clip, "eps": 0}
    wanted = reference(params, grads, SGD[2], larc_config, use_gc)
    advance(build(config(SGD[2], larc_config, use_gc=use_gc), params), grads, epochs=1)
    assert_close(params, wanted, 1e-12)
    assert all(p.isfinite().all() for p in params)


def test_the_norm_is_that_of_the_raw_gradient():
    # C shortens this gradient a hundredfold, which must not lengthen the step.
    p = Parameter(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    larc_config = {"clip": False, "trust_coefficient": 1.0, "eps": 0}
    optimizer = build({**config({}, larc_config), "use_gc": True}, [p])
    p.grad = torch.tensor([[99.0, 101.0]], dtype=torch.float64)
    rate = 5 / p.grad.norm().item()
    optimizer.step(where=0)
    assert_close(
        [p], [torch.tensor([[3 + 0.1 * rate, 4 - 0.1 * rate]], dtype=torch.float64)], 1e-12
    )


def test_larc_follows_the_schedule_of_the_learning_rate():
    params, grads = problem(4, dtype=torch.float64)
    wanted = [p.detach() for p in params]
    for t, step_grads in enumerate(grads):
        lr = 0.1 * (1 - t / 4)
        wanted = reference(wanted, [step_grads], SGD[0], LARC[4], True, lr)
    schedule = {"lr": {"name": "linear", "start_value": 0.1, "end_value": 0.0}}
    options = config(SGD[0], LARC[4], use_gc=True, param_schedulers=schedule)
    advance(build(options, params), grads)
    assert_close(params, wanted, 1e-12)


@pytest.mark.parametrize(
    "partial",
    [{}, {"clip": False}, {"eps": 0.5}, {"trust_coefficient": 1}, {"eps": 0, "clip": True}],
)
def test_a_partial_larc_config_keeps_the_other_defaults(partial):
    defaults = {"clip": True, "eps": 1e-8, "trust_coefficient": 0.02}
    group = build(config({}, partial), problem(0)[0]).optimizer.param_groups[0]
    for key, value in {**defaults, **partial}.items():
        assert group[key] == value


def test_weight_decay_is_still_in_the_groups_after_a_step():
    params, grads = problem(2)
    optimizer = build(config(SGD[1], {}, fused=False), params)
    advance(optimizer, grads)
    assert optimizer.options_view.weight_decay == 0.125
    optimizer.optimizer.state[params[0]]["momentum_buffer"] = torch.zeros(7)
    with pytest.raises(RuntimeError, match="size"):
        advance(optimizer, grads)
    assert optimizer.options_view.weight_decay == 0.125


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("use_gc", [False, True])
def test_larc_sees_unscaled_gradients(use_gc, fused, unscale):
    params, grads = problem(5, dtype=torch.float64)
    wanted = reference(params, grads, SGD[2], LARC[0], use_gc)
    optimizer = core.LARC(params, lr=0.1, use_gc=use_gc, fused=fused, **SGD[2], **LARC[0])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    for step_grads in grads:
        optimizer.zero_grad()
        loss = sum((p * g).sum() for p, g in zip(params, step_grads, strict=True))
        scaler.scale(loss).backward()
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert_close(params, wanted, 1e-12)


@pytest.mark.parametrize("fused", [False, True])
def test_larc_skips_infinite_gradients(fused):
    params, grads = problem(1)
    before = copies(params)
    optimizer = core.LARC(params, lr=0.1, use_gc=True, fused=fused, **SGD[2], **LARC[0])
    scaler = torch.amp.GradScaler("cpu")
    grads[0][0][0, 0, 0, 0] = float("inf")
    loss = sum((p * g).sum() for p, g in zip(params, grads[0], strict=True))
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    assert_same(params, before)


def test_larc_is_as_precise_as_its_weights():
    params, grads = problem(5, dtype=torch.float64)
    sgd = SGD[2] | {"weight_decay": 0.1}
    wanted = reference(params, grads, sgd, LARC[0], True)
    advance(build(config(sgd, LARC[0], use_gc=True), params), grads, epochs=1)
    assert_close(params, wanted, 1e-12)


def test_a_larc_config_without_use_larc_is_refused():
    for name in ("sgd_gc", "sgd"):
        given = {"name": name, "lr": 0.5, "larc_config": {"clip": False}}
        with pytest.raises(ValueError, match=f"'{name}': larc_config needs use_larc beside it"):
            check_stock_optimizer(given) if name == "sgd" else build_optimizer(given)
