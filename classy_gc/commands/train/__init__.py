"""``classy-gc train``: Classy Vision's default training.

It has the flags of ``classy_train.py``, and adds ``--seed``; ``--output_folder``, with
``log.jsonl`` and ``curves.png`` in it; a summary at the end; and one line instead of a traceback if
the config or a flag is at fault. Under ``torchrun``, start the module::

    torchrun --nproc_per_node 2 -m classy_gc.commands.train --config_file … \
        --distributed_backend ddp
"""

import argparse
import functools
import importlib.util
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from classy_vision.generic.distributed_util import get_world_size, is_primary
from classy_vision.generic.opts import check_generic_args
from classy_vision.generic.util import CHECKPOINT_FILE
from classy_vision.hooks import CheckpointHook
from classy_vision.tasks import ClassificationTask, ClassyTask
from classy_vision.trainer import DistributedTrainer, LocalTrainer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import get_video_backend, set_image_backend, set_video_backend

from classy_gc.commands.seeded_task import build_seeded_task
from classy_gc.commands.train import checkpoints, hooks, processes
from classy_gc.configuration import errors, load
from classy_gc.configuration.trial import try_batches
from classy_gc.files import no_room
from classy_gc.hooks import TrainingCurvesHook
from classy_gc.hooks.phase_record import flat_meters, scheduled_options, trained_epochs
from classy_gc.options import check_installed
from classy_gc.tasks.schedules import catch_up

_TRAINERS = {"none": LocalTrainer, "ddp": DistributedTrainer}

# So many floating-point operations in the trial take one core some ten milliseconds.
_SMALL = 400_000_000

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class _LogFilter(logging.Filter):
    """Passes only those lines of Classy Vision's log that a person wants to read."""

    shown = ("loss_lr_meter_logging_hook", "model_complexity_hook")
    # Others say these; the last is the task's text, which is the whole config.
    hidden = ("Unable to write checkpoint", "Checkpoint path", "Checkpoint file", "Starting")

    def filter(self, record: logging.LogRecord) -> bool:
        if "classy_vision" not in record.pathname:
            return True
        wanted = record.levelno >= logging.WARNING or record.module in self.shown
        return wanted and not record.getMessage().startswith(self.hidden)


def _check_args(args: argparse.Namespace) -> None:
    size = os.environ.get("WORLD_SIZE", "1")
    if args.distributed_backend == "none" and int(size) > 1:
        text = f"each of {size} processes would train alone"
        raise ValueError(f"{text}: use --distributed_backend ddp")
    # Classy Vision would create the checkpoint folder at once, before the rest is checked.
    folder, args.checkpoint_folder = args.checkpoint_folder, ""
    check_generic_args(args)
    args.checkpoint_folder = folder


def _log_to_stderr(level: int, debug: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    if not debug:
        handler.addFilter(_LogFilter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)


def _summary(task: ClassyTask, output: hooks.Output, seconds: float) -> str:
    """The final loss and meters of each phase, the time, and where the files are."""
    tested, epochs = getattr(task, "test_only", False), trained_epochs(task)
    lines = [f"{'Tested' if tested else 'Trained'} in {seconds:.1f} s"]
    if not tested and epochs == output.epochs_before:
        lines = [f"Nothing was left to train: {epochs:g} of {task.num_epochs:g} epochs were done"]
    curves = next(hook for hook in task.hooks if isinstance(hook, TrainingCurvesHook))
    last = {record["phase"]: record for record in curves.state.history}
    for phase, record in last.items():
        values = {"loss": record["loss"], **flat_meters(record["meters"])}
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        lines.append(f"  {phase:<5}  {shown}")
    checkpoint = _last_checkpoint(task, output)
    if checkpoint and not tested:
        lines.append(f"  checkpoint  {checkpoint}")
    lines.append(f"  folder      {output.folder}")
    return "\n".join(lines)


def _last_checkpoint(task: ClassyTask, output: hooks.Output) -> str | None:
    """The newest checkpoint that this run saved, else the one that it started from."""
    if not output.started:
        return None
    hook = next(hook for hook in task.hooks if isinstance(hook, CheckpointHook))
    saved = getattr(hook, "saved_phase", None) is not None
    if saved or hook.phase_counter >= hook.checkpoint_period:
        return f"{output.checkpoints}/{CHECKPOINT_FILE}"
    return task.checkpoint_path if task.checkpoint_dict else None


def _ending(error: BaseException, task: ClassyTask, output: hooks.Output) -> str | None:
    """The message for a training that had to end; None if the cause is a bug."""
    text = no_room(error)
    if isinstance(error, FloatingPointError):
        step = task.num_updates // task.get_global_batchsize() + 1
        epoch = task.train_phase_idx // (task.train_phases_per_epoch or 1) + 1
        lr = scheduled_options(task.optimizer).get("lr", float("nan"))
        text = f"{error}, at step {step} (epoch {epoch}), the last lr was {lr:g}"
    if text and is_primary():  # other ranks do not save
        checkpoint = _last_checkpoint(task, output)
        text += f"; the last checkpoint is {checkpoint}" if checkpoint else "; no checkpoint yet"
    return text or None


def _how_to_go_on(task: ClassyTask, output: hooks.Output) -> str:
    checkpoint = _last_checkpoint(task, output)
    if checkpoint is None:
        return "interrupted before the first checkpoint"
    flags = ("--output_folder", str(output.folder), "--checkpoint_load_path", checkpoint)
    return f"interrupted; to continue, add to the command: {shlex.join(flags)}"


def _start(task: ClassyTask, output: hooks.Output, start_hooks: Callable[[], None]) -> None:
    """Replaces a prepared task's ``on_start``: refuses what cannot be trained, then starts."""
    with FlopCounterMode(display=False) as counter:
        output.ranks.agreed(lambda: try_batches(task))
    small = 0 < counter.get_total_flops() < _SMALL and not getattr(task, "use_gpu", False)
    if small and "OMP_NUM_THREADS" not in os.environ:
        # On a busy machine, each of torch's parallel regions waits until all threads have run.
        torch.set_num_threads(1)
    if not getattr(task, "test_only", False):
        if task.checkpoint_dict and isinstance(task, ClassificationTask):
            catch_up(task)
        _warn_of_last_batch(task)
    output.epochs_before = trained_epochs(task)
    start_hooks()
    output.started = True


def _warn_of_last_batch(task: ClassyTask) -> None:
    """Logs a line if each epoch ends with less than an eighth of a batch.

    The mean and variance of so few samples are noise, as are the loss and the gradient. Classy
    Vision averages the loss of a phase over its batches, and this one counts as much as any other.

    Args:
        task: prepared; one without batch normalization is fine.
    """
    dataset = getattr(task, "datasets", {}).get("train")
    if not hasattr(dataset, "__len__") or getattr(dataset, "drop_last", False):
        return
    batch = dataset.get_batchsize_per_replica()
    last = -(-len(dataset) // get_world_size()) % batch
    normalized = any(isinstance(module, _BATCH_NORMS) for module in task.base_model.modules())
    if normalized and 0 < 8 * last < batch:
        logging.warning(
            f"each epoch ends with a batch of {last}, not {batch}: too few for batch normalization;"
            ' set "drop_last": true in dataset.train, or another batchsize_per_replica'
        )


def _build(output: hooks.Output) -> ClassyTask:
    """A task that is ready to train."""
    args, ranks = output.args, output.ranks
    config = ranks.config = ranks.agreed(lambda: load.load_config(args.config_file, args.set))
    # On another machine the file may be older, so all ranks take the primary's.
    config.update(ranks.of_primary(lambda: config))
    set_image_backend(args.image_backend)
    set_video_backend(args.video_backend)
    backend = get_video_backend()
    if args.video_backend != backend:  # newer versions of torchvision do not complain
        raise ValueError(f"--video_backend must be {backend}, not {args.video_backend!r}")
    if args.show_progress:
        check_installed("progressbar2", "--show_progress", module="progressbar")
    can_show_progress = importlib.util.find_spec("progressbar") is not None
    args.show_progress |= sys.stderr.isatty() and can_show_progress
    task = ranks.agreed(lambda: build_seeded_task(args, config))
    ranks.agreed(lambda: hooks.set_hooks(task, output))
    checkpoints.set_checkpoints(args, config, task, ranks, output.checkpoints)
    task.prepare = checkpoints.loading(task, args.config_file)(errors.section()(task.prepare))
    task.on_start = functools.partial(_start, task, output, task.on_start)
    if hasattr(task, "create_data_iterators"):
        task.create_data_iterators = processes.delay_interrupts(task.create_data_iterators)
    return task


def run(args: argparse.Namespace) -> int:
    """Trains, and prints the final meters, the time, and the path of the checkpoint.

    Args:
        args: the flags.

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    _check_args(args)
    ranks = processes.Ranks(args.distributed_backend == "ddp")
    _log_to_stderr(logging.ERROR if ranks.rank else logging.INFO, args.debug)
    # Each worker of a data loader imports Classy Vision again, see classy_gc/__init__.py.
    ignored = "ignore:`torch.jit.script` is deprecated,ignore:The 'torchvision.transforms._"
    os.environ.setdefault("PYTHONWARNINGS", ignored)
    output = hooks.Output(args, ranks)
    task: Any = None
    try:
        task = _build(output)
        began = time.perf_counter()
        _TRAINERS[args.distributed_backend]().train(task)
    except KeyboardInterrupt:
        if ranks.rank:
            raise SystemExit(130) from None
        raise KeyboardInterrupt(_how_to_go_on(task, output)) from None
    except Exception as error:
        started = output.started
        reason = _ending(error, task, output) if started else errors.user_error(error, ranks.config)
        if args.debug or reason is None:
            raise
        rank = f"rank {ranks.rank}: " if ranks.rank else ""
        if ranks.is_first_to_fail():
            print(f"classy-gc train: error: {rank}{' '.join(reason.split())}", file=sys.stderr)
        raise SystemExit(1 if started else 2) from error
    finally:
        output.locks.close()
    if is_primary():
        print(_summary(task, output, time.perf_counter() - began))
    if torch.distributed.is_initialized():
        # The replicas hold the group too. Its threads may still free tensors, for which they wait
        # for Python; if Python ends first, they abort the process.
        task.distributed_model = None
        torch.distributed.destroy_process_group()
    return 0
