"""The optimizer's share of a training step, and GC's."""

import argparse
import statistics
import time
from typing import Any

import torch
from classy_vision.tasks import ClassificationTask

from classy_gc.commands.progress import show_progress
from classy_gc.configuration.build import build_task
from classy_gc.table import aligned


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
