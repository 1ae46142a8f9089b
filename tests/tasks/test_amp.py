"""Mixed precision as in Classy Vision's tasks, which pass the ClassyOptimizer to GradScaler.

``amp_args`` itself needs CUDA; the calls here are those of ``ClassificationTask``.
"""

import pytest
import torch
from classy_vision.optim import build_optimizer
from torch.nn import Flatten, Linear, ReLU, Sequential

import classy_gc  # noqa: F401  registers the optimizers

STEPS = 6
OPTIONS = {
    "sgd": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1},
    "adam": {"lr": 0.01, "weight_decay": 0.1},
    "adamw": {"lr": 0.01, "weight_decay": 0.1},
    "radam": {"lr": 0.01, "weight_decay": 0.1},
    "rmsprop": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
    "rmsprop_tf": {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1},
}
# Classy Vision's rmsprop_tf overwrites its second moment; a radam it does not have.
STOCK = [name for name in OPTIONS if name not in ("radam", "rmsprop_tf")]


def gc(name, **options):
    return {"name": f"{name}_gc", **OPTIONS[name], **options}


def train(config, scaled=True, overflow_at=None):
    """The model, the losses, and the weights before and after each step."""
    torch.manual_seed(0)
    model = Sequential(Flatten(), Linear(12, 8), ReLU(), Linear(8, 3))
    optimizer = build_optimizer(config)
    optimizer.set_param_groups(list(model.parameters()))
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    inputs, targets = torch.randn(16, 12) + 0.5, torch.randint(3, (16,))
    losses, weights = [], [[p.detach().clone() for p in model.parameters()]]
    for i in range(STEPS):
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        losses.append(loss.item())
        optimizer.zero_grad()
        scaler.scale(loss * (torch.inf if i == overflow_at else 1)).backward()
        scaler.step(optimizer, where=i / STEPS)
        scaler.update()
        weights.append([p.detach().clone() for p in model.parameters()])
    return losses, weights, scaler.get_scale()


def same(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", STOCK)
def test_without_gc_it_is_stock_bit_for_bit(name):
    same(train(gc(name, fused=False)), train({"name": name, **OPTIONS[name]}))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_gc_does_not_see_the_scale(name, fused):
    config = gc(name, use_gc=True, fused=fused)
    losses, weights, scale = train(config)
    assert scale == 2.0**16  # a power of two: scaling is exact
    assert losses[-1] < losses[0]
    same((losses, weights), train(config, scaled=False)[:2])
    without = train({**config, "use_gc": False})[1]
    assert (weights[-1][0] - without[-1][0]).abs().max() > 1e-3


@pytest.mark.parametrize("use_gc", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_an_inf_gradient_skips_the_step(name, use_gc):
    _, weights, scale = train(gc(name, use_gc=use_gc), overflow_at=2)
    assert scale == 2.0**15
    same(weights[3], weights[2])
    assert (weights[4][0] - weights[3][0]).abs().max() > 0
    assert all(x.isfinite().all() for x in weights[-1])
