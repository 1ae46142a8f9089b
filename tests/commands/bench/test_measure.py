import argparse

import pytest
import torch

from classy_gc.commands.bench.algorithms import ALGORITHMS, build_variants
from classy_gc.commands.bench.measure import Traffic, fewest_passes, measure_steps


# The hand count, in tensors of the size of the weight.
@pytest.mark.parametrize(
    ("name", "passes"),
    {
        # g, p, m in; p, m out. GC with decay: Σg and Σp in; g in and out.
        "sgd": {"torch fused": 5, "GC off": 5, "GC on": 5 + 2 + 2},
        # p, g, m, v in; p, m, v out. Before: as above. After: Σp, Σp′ in; p′ in and out.
        "adam": {"torch fused": 7, "GC off": 7, "GC before": 7 + 2 + 2, "GC after": 7 + 2 + 2},
        # decoupled decay: no Σp before
        "adamw": {
            "torch fused": 7,
            # decay 2; m: lerp 3; v: mul 2, addcmul 3; √v: sqrt 2, div 2, add 2; p: addcdiv 4
            "torch foreach": 2 + 3 + (2 + 3) + (2 + 2 + 2) + 4,
            "GC off": 7,
            "GC before": 7 + 1 + 2,
            "GC after": 7 + 2 + 2,
        },
    }.items(),
)
def test_passes_over_memory(name, passes, monkeypatch):
    monkeypatch.setenv("CLASSY_GC_KERNELS", "0")  # whose traffic nobody counts
    weight = torch.nn.Parameter(torch.randn(64, 1024))  # row sums: a thousandth of it
    variants = build_variants(name, [weight], ())
    for variant, expected in passes.items():
        for _ in range(6):
            weight.grad = torch.randn_like(weight)
            variants[variant].step()
        weight.grad = torch.randn_like(weight)
        with Traffic() as traffic:
            variants[variant].step()
        assert traffic.bytes / weight.nbytes == pytest.approx(expected, abs=0.02), variant
    assert fewest_passes(ALGORITHMS[name].moments) == passes["GC off"]


@pytest.mark.parametrize(
    ("operation", "passes"),
    [
        (lambda x, y: x + y, 3),
        (lambda x, y: x.addcmul_(y, y), 3),
        (lambda x, y: x.copy_(y), 2),
        (lambda x, y: x.zero_(), 1),
        (lambda x, y: x.view(4, -1).t(), 0),
        (lambda x, y: torch.empty_like(x), 0),
        (lambda x, y: x.clone(), 2),
        (lambda x, y: torch._foreach_mul([x, y], 2), 4),
        (lambda x, y: torch._foreach_add_([x], [y]), 3),
    ],
)
def test_traffic_of_an_operator(operation, passes):
    x, y = torch.ones(64), torch.ones(64)
    with Traffic() as traffic:
        operation(x, y)
    assert traffic.bytes == passes * x.nbytes


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_timed_is_ordinary_arithmetic(name):
    """Subnormal numbers and NaN have a speed of their own."""
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((4, 8), (4,))]
    gradients = [torch.randn_like(p) for p in parameters]
    variants = build_variants(name, parameters, ())
    args = argparse.Namespace(steps=150, warmup=6)
    assert len(measure_steps(name, variants, gradients, args, str)) == len(variants)
    moments = [x for o in variants.values() for s in o.state.values() for x in s.values()]
    assert len(moments) >= len(variants) * len(parameters) * ALGORITHMS[name].moments
    for x in [*parameters, *(p.grad for p in parameters), *moments]:
        x = torch.as_tensor(x)
        assert x.isfinite().all()
        assert x.abs().min() > torch.finfo(torch.float32).tiny
