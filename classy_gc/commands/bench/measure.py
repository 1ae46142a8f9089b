"""What ``classy-gc bench`` measures: single steps, in time and memory, and whole training steps."""

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from classy_vision.tasks import ClassificationTask
from torch.profiler import ProfilerActivity, profile

from classy_gc import core
from classy_gc.commands.progress import show_progress
from classy_gc.configuration.build import build_task
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
        text = " →" * (ratio > limit) + f" {ratio:.2f}  ({row['ms']:.3g} ms)"
        axes.text(min(max(ratio, 1), limit), y, text, va="center", fontsize=7.5)
    axes.axvline(1, color="black", linewidth=1)
    names = [f"{row['optimizer']}: {row['variant']}" for row in results]
    axes.set_yticks(range(len(results)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlim(0, 1.2 * max(limit, 1.25))
    axes.set_xlabel("time of a step, relative to the first row of each optimizer")
    return figure


def measure_training(args: argparse.Namespace) -> dict[str, Any]:
    """Times whole training steps and the optimizer's share, with GC off and on in turns.

    Args:
        args: with ``config``, of a classification task that trains, with an optimizer that has GC,
            its ``config_file``, and ``warmup`` and ``steps``, the numbers of rounds.

    Returns:
        The entry of ``bench.json``.

    Raises:
        ValueError: the config is of another task, tests only, or its optimizer has no GC.
    """
    # An epoch has at least one step, so that many epochs suffice for any dataset.
    rounds = args.warmup + 4 * args.steps
    task = _prepared({**args.config, "hooks": [], "num_epochs": rounds})
    optimizer = task.optimizer.optimizer
    has_gc = [bool(group["use_gc"]) for group in optimizer.param_groups]
    gc, marks = "off", []

    # The hooks run after the schedules, which may set use_gc themselves.
    def before(*_: Any) -> None:
        for group, on in zip(optimizer.param_groups, has_gc, strict=True):
            group["use_gc"] = gc == "on" and (on or not any(has_gc))
        marks.append(_now(task))

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(lambda *_: marks.append(_now(task)))

    times: dict[str, list[float]] = {"off": [], "on": [], "rest": []}
    task.on_phase_start()
    for i in range(rounds):
        show_progress(f"training: step {i + 1}/{rounds}")
        # Two of a kind: the first after a switch prepares what all others use.
        gc, first = "on" if i % 4 > 1 else "off", i % 2 == 0
        marks.clear()
        step_ms = 0.0
        while not marks:  # several if gradients are accumulated
            step_ms += _train_step(task)
        if i >= args.warmup and not first:
            times[gc].append(marks[1] - marks[0])
            times["rest"].append(step_ms - times[gc][-1])
    ms = {name: statistics.median(values) for name, values in times.items()}
    rest = ms.pop("rest")
    return {
        "config_file": str(args.config_file),
        "optimizer": args.config["optimizer"]["name"],
        "other_ms": rest,
        "optimizer_ms": ms,
        "optimizer_share": {gc: own / (rest + own) for gc, own in ms.items()},
        "gc_share": (ms["on"] - ms["off"]) / (rest + ms["on"]),
    }


def _prepared(config: dict[str, Any]) -> ClassificationTask:
    """The prepared task of a config whose optimizer has GC."""
    if config.get("test_only"):
        raise ValueError("bench needs a config that trains, and test_only is true")
    task = build_task({**config, "dataset": {"train": config["dataset"]["train"]}})
    if not isinstance(task, ClassificationTask):
        raise ValueError(f"bench needs a classification task, not {config['name']!r}")
    task.prepare()
    if not all("use_gc" in group for group in task.optimizer.optimizer.param_groups):
        raise ValueError(f"bench needs an optimizer with GC, not {config['optimizer']['name']!r}")
    return task


def _now(task: ClassificationTask) -> float:
    """The time in milliseconds, once the device has finished its work."""
    if task.use_gpu:
        torch.cuda.synchronize()
    return 1e3 * time.perf_counter()


def _train_step(task: ClassificationTask) -> float:
    """Milliseconds of one step; it starts the next epoch if this one has ended."""
    start = _now(task)
    try:
        task.train_step()
    except StopIteration:
        task.on_phase_end()
        task.on_phase_start()
        return _train_step(task)
    return _now(task) - start


def training_table(training: dict[str, Any]) -> str:
    """The step with GC off and on, and what GC costs.

    Args:
        training: from :func:`measure_training`.

    Example:
        >>> ms, share = {"off": 1.0, "on": 2.0}, {"off": 0.1, "on": 0.1818}
        >>> training = {"other_ms": 9.0, "optimizer_ms": ms, "optimizer_share": share}
        >>> print(training_table({**training, "gc_share": 0.0909}))
                optimizer ms     step ms  share of step
        GC off         1.000      10.000         10.00%
        GC on          2.000      11.000         18.18%
        GC costs 9.09% of a training step
    """
    lines = [["", "optimizer ms", "   step ms", "share of step"]]
    for gc, ms in training["optimizer_ms"].items():
        step, share = training["other_ms"] + ms, training["optimizer_share"][gc]
        lines.append([f"GC {gc}", f"{ms:.3f}", f"{step:.3f}", f"{share:.2%}"])
    cost = f"GC costs {training['gc_share']:.2%} of a training step"
    return f"{aligned(lines, numbers=True)}\n{cost}"
