"""The optimizer's share of a training step, and GC's."""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from classy_vision.generic.distributed_util import set_cpu_device, set_cuda_device_index
from classy_vision.tasks import ClassificationTask

from classy_gc.configuration.build import build_task
from classy_gc.table import aligned


def measure_training(
    config: dict[str, Any], args: argparse.Namespace, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Times whole training steps and the optimizer's share, with GC off and on in turns.

    Args:
        config: of a classification task that trains, with an optimizer that has GC.
        args: with ``config_file``, and with ``warmup`` and ``steps``, the numbers of rounds.
        progress: called with a line on the current work.

    Returns:
        The entry of ``bench.json``.

    Raises:
        ValueError: the config is of another task, tests only, or its optimizer has no GC.
    """
    # An epoch has at least one step, so that many epochs suffice for any dataset.
    rounds = args.warmup + 4 * args.steps
    config = {**config, "hooks": [], "num_epochs": rounds}
    task = _prepared(config)
    groups = task.optimizer.optimizer.param_groups
    groups_on = [bool(group["use_gc"]) for group in groups]
    if not any(groups_on):
        groups_on = [True] * len(groups)
    use_gc, started, spent = False, 0.0, []

    # The hooks run after the schedules, which may set use_gc themselves.
    def before(*_: Any) -> None:
        nonlocal started
        for group, on in zip(groups, groups_on, strict=True):
            group["use_gc"] = use_gc and on
        started = _now(task)

    def after(*_: Any) -> None:
        spent.append(_now(task) - started)

    task.optimizer.optimizer.register_step_pre_hook(before)
    task.optimizer.optimizer.register_step_post_hook(after)

    steps: dict[bool, list[float]] = {False: [], True: []}
    rest = []
    task.on_phase_start()
    for i in range(rounds):
        # Two of a kind: the first after a switch prepares what all others use.
        use_gc, first = i % 4 > 1, i % 2 == 0
        progress(f"training: step {i + 1}/{rounds}")
        spent.clear()
        step_ms = 0.0
        while not spent:  # several if gradients are accumulated
            step_ms += _train_step(task)
        if i >= args.warmup and not first:
            steps[use_gc].append(spent[0])
            rest.append(step_ms - spent[0])
    others, off, on = map(statistics.median, (rest, steps[False], steps[True]))
    return {
        "config_file": str(args.config_file),
        "optimizer": config["optimizer"]["name"],
        "other_ms": others,
        "optimizer_ms": {"off": off, "on": on},
        "optimizer_share": {"off": off / (others + off), "on": on / (others + on)},
        "gc_share": (on - off) / (others + on),
    }


def _prepared(config: dict[str, Any]) -> ClassificationTask:
    """The prepared task of a config whose optimizer has GC."""
    if config.get("test_only"):
        raise ValueError("bench needs a config that trains, and test_only is true")
    dataset = {phase: x for phase, x in config["dataset"].items() if phase != "test"}
    task = build_task({**config, "dataset": dataset})
    if not isinstance(task, ClassificationTask):
        raise ValueError(f"bench needs a classification task, not {config['name']!r}")
    if task.use_gpu:
        set_cuda_device_index(0)
    else:
        set_cpu_device()
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
    while True:
        start = _now(task)
        try:
            task.train_step()
        except StopIteration:
            task.on_phase_end()
            task.on_phase_start()
            continue
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
