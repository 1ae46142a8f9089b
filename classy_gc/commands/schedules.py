"""``classy-gc schedules``: the ParamSchedulers of configs as a picture and a table."""

import argparse
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from classy_vision.optim import build_optimizer, build_optimizer_schedulers
from classy_vision.optim.param_scheduler import UpdateInterval

from classy_gc.configuration import build, errors, load
from classy_gc.plots import new_figure, plain, save, tidy
from classy_gc.table import aligned
from classy_gc.tasks.schedules import with_shares

_COLUMNS = 3
_POINTS = 1000


def schedules(config: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Every scheduled option of the optimizer over the training.

    Parameter groups are ignored. If a length is in steps, the task is built to count them.

    Args:
        config: of a task; not changed.

    Returns:
        The epochs, and the values of each option at these; shape ``[1000]`` each.

    Raises:
        ValueError: the optimizer refuses an option, or has no schedules.

    Example:
        >>> lr = {"name": "linear", "start_value": 1.0, "end_value": 0.0}
        >>> optimizer = {"name": "sgd_gc", "param_schedulers": {"lr": lr}}
        >>> epochs, options = schedules({"num_epochs": 4, "optimizer": optimizer})
        >>> float(epochs[500]), float(options["lr"][500])
        (2.0, 0.5)
    """
    num_epochs = config.get("num_epochs")
    optimizer = dict(config.get("optimizer", {}))
    if num_epochs is None or not optimizer.get("param_schedulers"):
        raise ValueError("drawing needs num_epochs, and param_schedulers in optimizer")
    optimizer.pop("param_groups", None)  # the task reads these
    train = config.get("dataset", {}).get("train", {})
    phases = num_epochs * (train.get("phases_per_epoch") or 1)
    if with_shares(optimizer, num_epochs) == optimizer:
        optimizer["num_epochs"] = num_epochs
        build_optimizer(copy.deepcopy(optimizer))
        schedulers = build_optimizer_schedulers(copy.deepcopy(optimizer))
    else:
        # No checkpoint, GPU or hook is needed to count them.
        without = {"name": "classification_task", "test_only": False, "hooks": []}
        without |= {"use_gpu": False, "amp_args": None, "optimizer": optimizer}
        task = build.build_task({**config, **without})
        task.prepare()
        schedulers = task.optimizer_schedulers
    share = np.arange(_POINTS) / _POINTS  # of the training
    at = {UpdateInterval.STEP: share, UpdateInterval.EPOCH: np.floor(share * phases) / phases}
    return share * num_epochs, {
        option: np.array([scheduler(float(x)) for x in at[scheduler.update_interval]])
        for option, scheduler in schedulers.items()
    }


def _table(title: str, epochs: np.ndarray, options: Mapping[str, np.ndarray]) -> str:
    """The values at each tenth of the training, at its end, and at the peak of an option."""
    at = {*range(0, _POINTS, _POINTS // 10), _POINTS - 1}
    at |= {int(values.argmax()) for values in options.values()}
    rows = [(f"{epochs[i]:.4g}", *(f"{v[i]:.4g}" for v in options.values())) for i in sorted(at)]
    return f"{title}\n{aligned([('epoch', *options), *rows], numbers=True)}"


def _figure(curves: Sequence[tuple[str, tuple[np.ndarray, dict[str, np.ndarray]]]]) -> Any:
    columns = min(len(curves), _COLUMNS)
    rows = -(-len(curves) // columns)
    figure = new_figure(4 * columns, 3 * rows)
    cells = figure.subfigures(rows, columns, squeeze=False, hspace=0.04, wspace=0.04).flat
    for cell, (title, (epochs, options)) in zip(cells, curves, strict=False):
        cell.suptitle(plain(title), fontsize="medium")
        all_axes = cell.subplots(len(options), sharex=True, squeeze=False)[:, 0]
        for axes, (option, values) in zip(all_axes, options.items(), strict=True):
            axes.plot(epochs, values, color="#1f77b4", linewidth=1.8)
            axes.set_ylabel(option)
            if option == "lr":
                axes.set_ylim(bottom=0)
            axes.set_xlim(0, epochs[1] * _POINTS)
            tidy(axes, epochs=axes is all_axes[-1])
        cell.align_ylabels(all_axes)
    return figure


def run(args: argparse.Namespace) -> int:
    """Draws the schedules of configs as one picture, prints their values, and trains nothing.

    Args:
        args: the flags.

    Returns:
        0. Bad input exits with code 2 and one line on stderr, and nothing is written.
    """
    curves = []
    for path in args.config_file:
        config = args.config = load.load_config(path, args.set)
        with errors.section("optimizer"):
            curves.append((Path(path).stem, schedules(config)))
    save(_figure(curves), args.output)
    for title, (epochs, options) in curves:
        print(_table(title, epochs, options), end="\n\n")
    print(args.output)
    return 0
