"""``rmsprop_tf_gc`` keeps its second moment, of which the stock ``rmsprop_tf`` takes the root at
every step. With TensorFlow's options it is timm's ``RMSpropTF``.
"""

import pytest
import torch

from .cases import advance, assert_close, build, copies, problem

OPTIONS = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1, "alpha": 0.9, "eps": 1e-3}


def pair(steps, **options):
    """The stock optimizer and ours after the same steps, and their weights."""
    result = []
    for name in ("rmsprop_tf", "rmsprop_tf_gc"):
        params, grads = problem(steps)
        optimizer = build({"name": name, **OPTIONS, **options}, params)
        advance(optimizer, grads, epochs=1)
        result += [optimizer.optimizer, params]
    return result


@pytest.mark.parametrize("options", [{}, {"momentum": 0.0}, {"centered": True}], ids=str)
def test_one_step_is_that_of_the_stock_optimizer(options):
    _, theirs, _, ours = pair(1, **options)
    assert_close(ours, theirs, 1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_second_moment_survives_two_steps(momentum):
    stock, theirs, optimizer, ours = pair(2, momentum=momentum)
    params, grads = problem(2)
    alpha, eps, wd, lr = (OPTIONS[k] for k in ("alpha", "eps", "weight_decay", "lr"))
    for p, mine, other, gs in zip(params, ours, theirs, zip(*grads, strict=True), strict=True):
        w, v, broken, buffer = p.detach(), 0, 0, 0
        for g in gs:
            d = g + wd * w
            v = alpha * v + (1 - alpha) * d**2
            buffer = momentum * buffer + d / (v + eps).sqrt()
            w = w - lr * buffer
        # TensorFlow's second moment, and weights that follow from it.
        assert_close([optimizer.state[mine]["square_avg"], mine], [v, w], 1e-5)
        # The stock state holds a square root, and its weights differ.
        w = p.detach()
        buffer = 0
        for g in gs:
            d = g + wd * w
            broken = (alpha * broken + (1 - alpha) * d**2 + eps).sqrt()
            buffer = momentum * buffer + d / broken
            w = w - lr * buffer
        assert_close([stock.state[other]["square_avg"], other], [broken, w], 1e-5)
        assert not torch.allclose(stock.state[other]["square_avg"], v, rtol=0.01)
        assert not torch.allclose(other, mine, rtol=1e-4)


@pytest.mark.parametrize("use_gc", [False, True])
def test_centered_agrees_with_the_stock_optimizer_for_good(use_gc):
    # There the stock optimizer takes the root of a copy.
    trained = []
    for config in (
        {"name": "gc", "base_optimizer": {"name": "rmsprop_tf", **OPTIONS, "centered": True}},
        {"name": "rmsprop_tf_gc", **OPTIONS, "centered": True},
    ):
        params, grads = problem(6)
        advance(build({**config, "use_gc": use_gc}, params), grads)
        trained.append(params)
    assert_close(*trained, 1e-5)


# TensorFlow's.

TENSORFLOW = {"initial_square_avg": 1.0, "lr_in_momentum": True}
DOWN = {"lr": {"name": "linear", "start_value": 0.05, "end_value": 0.0}}


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_with_its_options_it_is_timms_step_by_step(momentum, centered, fused):
    timm = pytest.importorskip("timm.optim")
    options = OPTIONS | {"momentum": momentum, "centered": centered}
    given = {"name": "rmsprop_tf_gc", **options, **TENSORFLOW, "param_schedulers": DOWN}
    params, grads = problem(8, dtype=torch.float64)
    optimizer = build({**given, "fused": fused}, params)
    theirs = copies(params)
    reference = timm.RMSpropTF(theirs, **options)
    for t, step_grads in enumerate(grads):
        advance(optimizer, [step_grads], start=t, total=8)
        reference.param_groups[0]["lr"] = 0.05 * (1 - t / 8)
        for p, g in zip(theirs, step_grads, strict=True):
            p.grad = g.clone()
        reference.step()
        assert_close(params, theirs, 1e-10)
