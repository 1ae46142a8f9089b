"""Runs the Triton kernel on CPU tensors, under its interpreter, beside the plain path.

The interpreter must be chosen before triton is imported, so this is a process of its own; it
prints one JSON object, the largest relative difference of every case.
"""

import itertools
import json

import torch

from classy_gc import core
from classy_gc.core import centralization
from classy_gc.core.centralization import KernelBatch, in_batches
from classy_gc.core.centralized_optimizer import skipped_by_fused_sgd

SHAPES = [(5, 7), (3, 4, 3, 3), (2, 5000), (4, 2, 2048), (6,), (8, 1), (1, 9)]
OPTIMIZERS = {
    "SGD": (core.SGD, {"momentum": 0.9, "weight_decay": 0.3}),
    "SGD-maximize": (core.SGD, {"momentum": 0.9, "weight_decay": 0.3, "maximize": True}),
    "Adam-before": (core.Adam, {"weight_decay": 0.3, "gc_loc": True, "eps": 1e-2}),
    "Adam-after": (core.Adam, {"weight_decay": 0.3, "gc_loc": False, "eps": 1e-2}),
    "AdamW": (core.AdamW, {"weight_decay": 0.3, "eps": 1e-2}),
}


def weights(dtype):
    torch.manual_seed(0)
    xs = [torch.randn(shape).to(dtype) for shape in SHAPES]
    xs[1] = xs[1].to(memory_format=torch.channels_last)
    return xs


def train(cls, options, dtype, triton, scaled):
    centralization.TRITON = triton
    params = [torch.nn.Parameter(x) for x in weights(dtype)]
    optimizer = cls(params, lr=0.01, fused=True, use_gc=True, **options)
    if triton:
        batches = in_batches(p for p in params if core.ineligible_reason(p) is None)
        assert [type(batch) for batch in batches] == [KernelBatch], "the kernel was not used"
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=scaled)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        optimizer.zero_grad()
        loss = sum((p * torch.randn(p.shape, generator=generator).to(dtype)).sum() for p in params)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return [p.detach().double() for p in params]


if __name__ == "__main__":
    result = {}
    dtypes = [torch.float32, torch.bfloat16, torch.float16]
    for name, dtype, scaled in itertools.product(OPTIMIZERS, dtypes, [False, True]):
        if OPTIMIZERS[name][0] is core.SGD and skipped_by_fused_sgd(torch.ones(1, dtype=dtype)):
            continue
        plain, kernel = (train(*OPTIMIZERS[name], dtype, t, scaled) for t in (False, True))
        result[f"{name} {dtype} {scaled}"] = max(
            float((a - b).abs().max() / b.abs().max()) for a, b in zip(kernel, plain, strict=True)
        )
    centralization.TRITON = True
    xs, ys = weights(torch.float32), weights(torch.float32)
    core.centralize_(xs)
    centralization.TRITON = False
    core.centralize_(ys)
    result["centralize_ torch.float32"] = max(
        float((x - y).abs().max()) for x, y in zip(xs, ys, strict=True)
    )
    print(json.dumps(result))
