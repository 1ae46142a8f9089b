"""``classy-gc inspect``: what GC does, or would do, to each gradient of a config."""

import argparse
import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from classy_vision.tasks import ClassificationTask

from classy_gc.commands.seeded_task import build_seeded_task
from classy_gc.commands.train import checkpoints, processes
from classy_gc.configuration import errors, load
from classy_gc.configuration.trial import label_steps
from classy_gc.core.centralization import ineligible_reason
from classy_gc.core.measures import gradient_norms, ratios
from classy_gc.hooks.gc_monitor import named_parameters
from classy_gc.param_groups import parameter_occurrences
from classy_gc.param_groups.kinds import no_layer_weight_reason
from classy_gc.plots import COLORS, GREY, new_figure, plain, save, tidy
from classy_gc.table import aligned


class Row(NamedTuple):
    """The row of one parameter."""

    name: str
    shape: str
    group: int | str  # "-" for a frozen parameter
    gc: str  # "yes", "would" with use_gc, or "no: " and why not; with a mark of what is no layer's
    norms: torch.Tensor | None  # row_mean_norms of its gradients; None if they have no rows


def _removed(rows: Sequence[Row]) -> float | None:
    """The share of the gradients' energy that GC removes; None without gradient or rows."""
    return ratios({row.name: row.norms for row in rows if row.norms is not None}, power=2)[1]


def _prepared_task(args: argparse.Namespace) -> ClassificationTask:
    config = args.config = load.load_config(args.config_file, args.set)
    if config.get("test_only", False):
        raise ValueError(f"{args.config_file}: test_only is true, so there are no gradients")
    # No hook may write anything, and the test data may be missing.
    config |= {"dataset": {"train": config["dataset"]["train"]}, "hooks": []}
    task = build_seeded_task(args, config)
    checkpoints.set_checkpoints(args, config, task, processes.Ranks(distributed=False), "")
    if not isinstance(task, ClassificationTask):
        raise ValueError(f"{args.config_file}: {config['name']!r} is not a classification task")
    with checkpoints.loading(task, args.config_file), errors.section():
        task.prepare()
    # From the first phase, even if a checkpoint comes from the last.
    task.phase_idx = task.train_phase_idx = -1
    task.num_updates = 0
    task.advance_phase()
    return task


def _backward(task: ClassificationTask, loss: torch.Tensor) -> None:
    """Replaces ``task.run_optimizer``, without a step."""
    task.check_inf_nan(loss)
    task.optimizer.zero_grad()
    scaler = task.amp_grad_scaler
    (loss if scaler is None else scaler.scale(loss)).backward()


def inspect_task(task: ClassificationTask, batches: int) -> tuple[list[Row], int]:
    """Computes the gradients of a few batches, each alone, and takes no optimizer step.

    BatchNorm's statistics, which the model keeps of the batches, change in memory.

    Args:
        task: prepared, in a training phase. It cannot train afterwards.
        batches: how many, > 0; fewer if the phase has no more.

    Returns:
        One row per parameter in the order of the model, and the number of batches. The options of
        the parameter groups are those at the start of training.
    """
    parameters = dict(named_parameters(task))
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    with_rows = {name: p for name, p in trained.items() if ineligible_reason(p) is None}
    norms = {name: torch.zeros(2) for name in with_rows}
    label_steps(task)
    task.run_optimizer = functools.partial(_backward, task)
    done = 0
    with contextlib.suppress(StopIteration):  # the phase may be over before
        while done < batches:
            task.train_step()
            done += 1
            for name, pair in gradient_norms(with_rows).items():
                norms[name] = torch.hypot(norms[name].to(pair), pair)
    model, loss = task.base_model, task.base_loss
    named = [*parameter_occurrences(model), *parameter_occurrences(loss, "loss")]
    marks = {p.full_name: no_layer_weight_reason(p) for p in named}
    groups: dict[int, tuple[int, dict[str, Any]]] = {}
    for i, group in enumerate(task.optimizer.param_groups):
        groups |= dict.fromkeys(map(id, group["params"]), (i, group))
    rows = []
    for name, p in parameters.items():
        i, group = groups.get(id(p), ("-", {}))
        reason = ineligible_reason(p, gc_conv_only=group.get("gc_conv_only", False))
        if not p.requires_grad:
            i, reason = "-", "it is frozen"
        elif p.grad is not None and p.grad.layout != torch.strided and reason is None:
            reason = "its gradient is sparse, which use_gc refuses"
        gc = f"no: {reason}" if reason else "yes" if group.get("use_gc") else "would"
        if marks[name] and not reason:
            gc = f"{gc} ({marks[name]})"
        rows.append(Row(name, "×".join(map(str, p.shape)) or "1", i, gc, norms.get(name)))
    return rows, done


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def table(rows: Sequence[Row]) -> str:
    """A table with one line per parameter, and the totals.

    Args:
        rows: from :func:`inspect_task`.
    """
    lines = [("parameter", "shape", "group", "removed", "GC")]
    lines += [(row.name, row.shape, row.group, _percent(_removed([row])), row.gc) for row in rows]
    for gc in ("yes", "would"):
        those = [row for row in rows if row.gc.startswith(gc)]
        if those:
            count = f"{len(those)} of {len(rows)}"
            lines.append((f"total of {count} tensors", "", "", _percent(_removed(those)), gc))
    return aligned(lines)


def picture(rows: Sequence[Row], title: str) -> Any:
    """Draws one bar per parameter with rows, in the order of the model.

    Args:
        rows: from :func:`inspect_task`.
        title: of the picture.

    Returns:
        A ``matplotlib`` Figure.
    """
    bars = [row for row in rows if row.norms is not None]
    figure = new_figure(9, 1.5 + 0.2 * max(len(bars), 3))
    figure.suptitle(plain(title), fontsize="medium")
    axes = figure.subplots()
    shares = [_removed([row]) for row in bars]
    colors = [COLORS[0] if row.gc.startswith("yes") else GREY for row in bars]
    drawn = axes.barh(range(len(bars)), [share or 0 for share in shares], color=colors)
    axes.bar_label(drawn, map(_percent, shares), padding=3, fontsize=7)
    axes.set_yticks(range(len(bars)), [row.name for row in bars], fontsize=7)
    axes.set_ylim(len(bars) - 0.4, -0.6)  # the first on top
    axes.margins(x=0.12)
    axes.set_xlabel("share of the gradient's energy that GC removes, or would (grey: it is off)")
    tidy(axes, grid="x")
    return figure


def run(args: argparse.Namespace) -> int:
    """Prints one line per parameter, and draws the picture; trains and saves nothing.

    Args:
        args: the flags.

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    task = _prepared_task(args)
    with errors.section():
        rows, batches = inspect_task(task, args.batches)
    count = "1 batch" if batches == 1 else f"{batches} batches"
    of_batches = f"mean over {count} of {task.get_global_batchsize()}"
    print(table(rows))
    print(f"removed: share of the gradient's energy, {of_batches}")
    save(picture(rows, f"{Path(args.config_file).stem}, {of_batches}"), args.output)
    print(f"picture: {args.output}")
    return 0
