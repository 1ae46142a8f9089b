"""The cost of single steps, in time and in memory."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from classy_gc import core
from classy_gc.table import aligned


def _peak_memory(step: Callable[[], Any], device: torch.device) -> int:
    """The peak number of bytes that a step allocates."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    current = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            current += event.nbytes()
            peak = max(peak, current)
    return peak


def _stopwatch(device: torch.device) -> Callable[[Callable[[], Any]], float]:
    """Returns a function that measures the milliseconds of a step."""
    if device.type == "cpu":

        def wall(step: Callable[[], Any]) -> float:
            start = time.perf_counter()
            step()
            return 1e3 * (time.perf_counter() - start)

        return wall

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # Larger than any L2 cache: a forward and backward pass would also evict everything from the
    # last step.
    scratch = torch.empty(256 * 2**20, dtype=torch.uint8, device=device)

    def events(step: Callable[[], Any]) -> float:
        scratch.zero_()
        torch.cuda.synchronize()
        begin.record()
        step()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    return events


def _path(optimizer: torch.optim.Optimizer) -> str:
    if not isinstance(optimizer, core.CentralizedOptimizer):
        return ""
    return ", ".join(dict.fromkeys(optimizer.step_paths()))


def measure_steps(
    name: str,
    variants: Mapping[str, torch.optim.Optimizer],
    gradients: list[Tensor],
    args: argparse.Namespace,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Times one step of each variant, and measures what it allocates.

    Args:
        name: of the algorithm.
        variants: from :func:`build_variants`.
        gradients: of each weight, the same in every step.
        args: with ``warmup`` and ``steps``, the numbers of rounds.
        progress: called with a line on the current work.

    Returns:
        One row per variant, as in ``bench.json``.
    """
    baseline, first = next(iter(variants.items()))
    parameters = [p for group in first.param_groups for p in group["params"]]
    device = parameters[0].device
    stopwatch = _stopwatch(device)
    grads = [torch.empty_like(p) for p in parameters]

    def refill() -> None:
        torch._foreach_copy_(grads, gradients)
        for p, grad in zip(parameters, grads, strict=True):
            p.grad = grad

    for i in range(args.warmup):
        progress(f"{name}: warm-up {i + 1}/{args.warmup}")
        for optimizer in variants.values():
            refill()
            optimizer.step()

    memory = {}
    for label, optimizer in variants.items():
        progress(f"{name}: memory of {label}")
        refill()
        memory[label] = _peak_memory(optimizer.step, device)

    times: dict[str, list[float]] = {label: [] for label in variants}
    order, shuffle = list(variants), random.Random(0).shuffle
    for i in range(args.steps):
        progress(f"{name}: round {i + 1}/{args.steps}")
        shuffle(order)
        for label in order:
            refill()
            times[label].append(stopwatch(variants[label].step))

    medians = {label: statistics.median(ms) for label, ms in times.items()}
    return [
        {
            "optimizer": name,
            "variant": label,
            "baseline": baseline,
            "ms": medians[label],
            "ms_min": min(times[label]),
            "ratio": medians[label] / medians[baseline],
            "extra_mb": memory[label] / 1e6,
            "path": _path(variants[label]),
        }
        for label in variants
    ]


def steps_table(results: list[dict[str, Any]]) -> str:
    """A table with one line per variant, and what the columns mean.

    Args:
        results: from :func:`measure_steps`, of all algorithms.
    """
    header = ["", "", "       ms", "    least", " ratio", " extra MB", "path"]
    lines, name = [header], None
    for row in results:
        first, name = row["optimizer"] != name, row["optimizer"]
        numbers = f"{row['ms']:9.3f}", f"{row['ms_min']:9.3f}", f"{row['ratio']:6.2f}"
        memory = f"{row['extra_mb']:9.2f}"
        lines.append([name if first else "", row["variant"], *numbers, memory, row["path"]])
    return (
        f"{aligned(lines)}\n"
        "ms: median, far above the least where the machine is busy; ratio: of the medians, to\n"
        "the first row of the optimizer; extra MB: what torch allocates in a step beyond weights,\n"
        "gradients and moments"
    )
