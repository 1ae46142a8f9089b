"""The cost of single steps, in time and in memory."""

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from classy_gc import core
from classy_gc.commands.progress import show_progress
from classy_gc.plots import new_figure, tidy
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
    events = profiler.profiler.kineto_results.events()
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return max(itertools.accumulate(changes, initial=0))


def _milliseconds(step: Callable[[], Any], scratch: torch.Tensor | None) -> float:
    """Times a step; on a GPU, where ``scratch`` is, with nothing of the last step in its cache."""
    if scratch is None:
        start = time.perf_counter()
        step()
        return 1e3 * (time.perf_counter() - start)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    scratch.zero_()
    torch.cuda.synchronize()
    begin.record()
    step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def measure_steps(
    name: str, variants: Mapping[str, Any], gradients: list[torch.Tensor], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Times one step of each variant, and measures what it allocates.

    Args:
        name: of the algorithm.
        variants: the optimizers of one round robin, by label; all step the same weights.
        gradients: of each weight, the same in every step.
        args: with ``warmup`` and ``steps``, the numbers of rounds.

    Returns:
        One row per variant, as in ``bench.json``.
    """
    baseline, first = next(iter(variants.items()))
    parameters = [p for group in first.param_groups for p in group["params"]]
    device = parameters[0].device
    scratch = None
    if device.type == "cuda":
        scratch = torch.empty(2**28, dtype=torch.uint8, device=device)  # larger than any L2 cache
    grads = [torch.empty_like(p) for p in parameters]

    def refill() -> None:
        torch._foreach_copy_(grads, gradients)
        for p, grad in zip(parameters, grads, strict=True):
            p.grad = grad

    times: dict[str, list[float]] = {label: [] for label in variants}
    order, shuffle = list(variants), random.Random(0).shuffle
    for i in range(-args.warmup, args.steps):
        show_progress(f"{name}: {f'round {i + 1}/{args.steps}' if i >= 0 else 'warm-up'}")
        shuffle(order)
        for label in order:
            refill()
            times[label].append(_milliseconds(variants[label].step, scratch))

    rows = []
    medians = {label: statistics.median(ms[args.warmup :]) for label, ms in times.items()}
    for label, optimizer in variants.items():
        show_progress(f"{name}: memory of {label}")
        refill()
        ours = isinstance(optimizer, core.CentralizedOptimizer)
        row = {"optimizer": name, "variant": label, "baseline": baseline}
        row |= {"ms": medians[label], "ms_min": min(times[label][args.warmup :])}
        row["ratio"] = medians[label] / medians[baseline]
        row["extra_mb"] = _peak_memory(optimizer.step, device) / 1e6
        row["path"] = ", ".join(dict.fromkeys(optimizer.step_paths())) if ours else ""
        rows.append(row)
    return rows


def steps_table(results: list[dict[str, Any]]) -> str:
    """A table with one line per variant, and what the columns mean.

    Args:
        results: from :func:`measure_steps`, of all algorithms.
    """
    lines = [["", "", "       ms", "    least", " ratio", " extra MB", "path"]]
    for row in results:
        cells = [row["variant"], f"{row['ms']:9.3f}", f"{row['ms_min']:9.3f}"]
        cells += [f"{row['ratio']:6.2f}", f"{row['extra_mb']:9.2f}", row["path"]]
        lines.append([row["optimizer"] if row["variant"] == row["baseline"] else "", *cells])
    return (
        f"{aligned(lines)}\n"
        "ms: median, far above the least where the machine is busy; ratio: of the medians, to\n"
        "the first row of the optimizer; extra MB: what torch allocates in a step beyond weights,\n"
        "gradients and moments"
    )


def plot_steps(results: list[dict[str, Any]], title: str) -> Any:
    """A bar a variant: the time of a step, relative to the first of its algorithm.

    Args:
        results: of :func:`measure_steps`, of all algorithms.
        title: of the picture.

    Returns:
        A ``matplotlib`` Figure.
    """
    # Slow loops of many small kernels would squeeze what is worth comparing into a corner.
    limit = min(4.0, 1.25 * max(row["ratio"] for row in results))
    figure = new_figure(9, 1.6 + 0.26 * len(results))
    axes = figure.subplots()
    tidy(axes, grid=None)
    axes.set_title(title, fontsize=10, loc="left")
    colors = {"torch": "#9a9a9a", "GC off": "#9ecae1", "GC": "#2171b5"}
    for y, row in enumerate(results):
        variant, ratio = row["variant"], row["ratio"]
        color = next((c for kind, c in colors.items() if variant.startswith(kind)), "#74a57f")
        axes.barh(y, min(ratio, limit), color=color)
        arrow = " →" if ratio > limit else ""
        text = f"{arrow} {ratio:.2f}  ({row['ms']:.3g} ms)"
        axes.text(min(max(ratio, 1), limit), y, text, va="center", fontsize=7.5)
    axes.axvline(1, color="black", linewidth=1)
    names = [f"{row['optimizer']}: {row['variant']}" for row in results]
    axes.set_yticks(range(len(results)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlim(0, 1.2 * max(limit, 1.25))
    axes.set_xlabel("time of a step, relative to the first row of each optimizer")
    return figure
