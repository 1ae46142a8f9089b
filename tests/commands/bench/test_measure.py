import argparse

import pytest
import torch

from classy_gc.commands.bench.algorithms import ALGORITHMS, build_variants
from classy_gc.commands.bench.measure import measure_steps


@pytest.mark.parametrize("name", [*ALGORITHMS, "torch.optim.Adagrad"])
def test_what_is_timed_is_ordinary_arithmetic(name):
    """Subnormal numbers and NaN have a speed of their own."""
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((4, 8), (4,))]
    gradients = [torch.randn_like(p) for p in parameters]
    variants = build_variants(name, parameters)
    args = argparse.Namespace(steps=150, warmup=6)
    assert len(measure_steps(name, variants, gradients, args)) == len(variants)
    moments = [x for o in variants.values() for s in o.state.values() for x in s.values()]
    assert len(moments) >= len(variants) * len(parameters)
    for x in [*parameters, *(p.grad for p in parameters), *moments]:
        x = torch.as_tensor(x)
        assert x.isfinite().all()
        assert x.abs().min() > torch.finfo(torch.float32).tiny
