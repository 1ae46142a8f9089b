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
from typing import Any

import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.generic.opts import check_generic_args
from classy_vision.generic.util import CHECKPOINT_FILE
from classy_vision.hooks import CheckpointHook
from classy_vision.tasks import ClassyTask
from classy_vision.trainer import DistributedTrainer, LocalTrainer
from torchvision import get_video_backend, set_image_backend, set_video_backend

from classy_gc.commands.seeded_task import build_seeded_task
from classy_gc.commands.train.checkpoints import loading, set_checkpoints
from classy_gc.commands.train.hooks import Output, set_hooks
from classy_gc.commands.train.interrupts import delay_interrupts
from classy_gc.commands.train.ranks import Ranks
from classy_gc.commands.train.start import start_training
from classy_gc.configuration.errors import section, user_error
from classy_gc.configuration.load import load_config
from classy_gc.files import no_room
from classy_gc.hooks import TrainingCurvesHook
from classy_gc.hooks.phase_record import flat_meters, scheduled_options, trained_epochs

_TRAINERS = {"none": LocalTrainer, "ddp": DistributedTrainer}


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
    processes = os.environ.get("WORLD_SIZE", "1")
    if args.distributed_backend == "none" and int(processes) > 1:
        raise ValueError(
            f"each of {processes} processes would train on its own: use --distributed_backend ddp"
        )
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


def _summary(task: ClassyTask, output: Output, seconds: float) -> str:
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


def _last_checkpoint(task: ClassyTask, output: Output) -> str | None:
    """The newest checkpoint that this run saved, else the one that it started from."""
    if not output.started:
        return None
    hook = next(hook for hook in task.hooks if isinstance(hook, CheckpointHook))
    saved = getattr(hook, "saved_phase", None) is not None
    if saved or hook.phase_counter >= hook.checkpoint_period:
        return f"{output.checkpoints}/{CHECKPOINT_FILE}"
    return task.checkpoint_path if task.checkpoint_dict else None


def _ending(error: BaseException, task: ClassyTask, output: Output) -> str | None:
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


def _how_to_go_on(task: ClassyTask, output: Output) -> str:
    checkpoint = _last_checkpoint(task, output)
    if checkpoint is None:
        return "interrupted before the first checkpoint"
    flags = ("--output_folder", str(output.folder), "--checkpoint_load_path", checkpoint)
    return f"interrupted; to continue, add to the command: {shlex.join(flags)}"


def _build(args: argparse.Namespace, ranks: Ranks, output: Output) -> ClassyTask:
    """A task that is ready to train."""
    config = ranks.config = ranks.agreed(lambda: load_config(args.config_file, args.set))
    # On another machine the file may be older, so all ranks take the primary's.
    config.update(ranks.of_primary(lambda: config))
    set_image_backend(args.image_backend)
    set_video_backend(args.video_backend)
    backend = get_video_backend()
    if args.video_backend != backend:  # newer versions of torchvision do not complain
        raise ValueError(f"--video_backend must be {backend}, not {args.video_backend!r}")
    can_show_progress = importlib.util.find_spec("progressbar") is not None
    if args.show_progress and not can_show_progress:
        raise ValueError("--show_progress needs progressbar2: pip install 'classy-gc[examples]'")
    args.show_progress |= sys.stderr.isatty() and can_show_progress
    task = ranks.agreed(lambda: build_seeded_task(args, config))
    ranks.agreed(lambda: set_hooks(args, config, task, output))
    set_checkpoints(args, config, task, output.checkpoints, ranks.of_primary)
    task.prepare = loading(task, args.config_file)(section()(task.prepare))
    task.on_start = functools.partial(start_training, task, ranks, output, task.on_start)
    if hasattr(task, "create_data_iterators"):
        task.create_data_iterators = delay_interrupts(task.create_data_iterators)
    return task


def run(args: argparse.Namespace) -> int:
    """Trains, and prints the final meters, the time, and the path of the checkpoint.

    Args:
        args: the flags.

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    _check_args(args)
    ranks = Ranks(args.distributed_backend == "ddp")
    _log_to_stderr(logging.ERROR if ranks.rank else logging.INFO, args.debug)
    # Each worker of a data loader imports Classy Vision again, see classy_gc/__init__.py.
    os.environ.setdefault(
        "PYTHONWARNINGS",
        "ignore:`torch.jit.script` is deprecated,ignore:The 'torchvision.transforms._",
    )
    output = Output(args, ranks)
    task: Any = None
    try:
        task = _build(args, ranks, output)
        began = time.perf_counter()
        _TRAINERS[args.distributed_backend]().train(task)
    except KeyboardInterrupt:
        if ranks.rank:
            raise SystemExit(130) from None
        raise KeyboardInterrupt(_how_to_go_on(task, output)) from None
    except Exception as error:
        started = output.started
        reason = _ending(error, task, output) if started else user_error(error, ranks.config)
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
