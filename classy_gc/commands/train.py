"""``classy-gc train``: Classy Vision's default training.

The same as ``classy_train.py``, flag for flag, and besides: ``--seed``; ``--output_folder``;
``log.jsonl`` and ``curves.png`` in it; a summary at the end; and one line instead of a
traceback where the config or a flag is at fault. Under ``torchrun`` start the module::

    torchrun --nproc_per_node 2 -m classy_gc.commands.train --config_file … \
        --distributed_backend ddp
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib.util
import inspect
import logging
import os
import random
import sys
import textwrap
import time
import zipfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.generic.opts import add_generic_args, check_generic_args
from classy_vision.generic.util import CHECKPOINT_FILE
from classy_vision.hooks import (
    CheckpointHook,
    ClassyHook,
    LossLrMeterLoggingHook,
    ModelComplexityHook,
    ProfilerHook,
    ProgressBarHook,
    TensorboardPlotHook,
    VisdomHook,
)
from classy_vision.tasks import ClassyTask, FineTuningTask, build_task
from classy_vision.trainer import DistributedTrainer, LocalTrainer
from torchvision import set_image_backend, set_video_backend

from classy_gc.commands import Parser, check_least
from classy_gc.commands.config import load_config, refusal
from classy_gc.custom_imports import import_from_current_folder
from classy_gc.files import nearest
from classy_gc.hooks import (
    JSONLogHook,
    PhaseSeedHook,
    RollingCheckpointHook,
    TrainingCurvesHook,
)
from classy_gc.hooks.rolling_checkpoint import BEST_FILE
from classy_gc.options import check_known

_TRAINERS = {"none": LocalTrainer, "ddp": DistributedTrainer}

# More epochs than anybody trains, so that no two seeds share the order of an epoch.
_SHUFFLE_STRIDE = 1_000_000

_TENSORBOARD = "tensorboard_plot"


class _Output(ClassyHook):
    """Makes the folders once everything else is ready, so that a refused run leaves no trace."""

    on_phase_start = ClassyHook._noop
    on_step = ClassyHook._noop
    on_phase_end = ClassyHook._noop
    on_end = ClassyHook._noop

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self.folder = Path(args.output_folder or f"output_{datetime.now().isoformat()}").absolute()
        self.checkpoints = Path(args.checkpoint_folder or self.folder / "checkpoints").absolute()
        self.logs: list[Path] = []
        self.tensorboard: TensorboardPlotHook | None = None
        self.summary_writer: dict[str, Any] = {"log_dir": self.folder / "tensorboard"}
        self.started = False

    def on_start(self, task: ClassyTask) -> None:
        tested = getattr(task, "test_only", False)
        if not tested and task.checkpoint_dict:
            _check_optimizer(task.optimizer.optimizer)
        if is_primary():
            folders = [*[self.checkpoints] * (not tested), self.folder, *self.logs]
            for folder in folders:
                _check_folder(folder)
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            if self.tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                self.tensorboard.tb_writer = SummaryWriter(**self.summary_writer)
        self.started = True


def _check_folder(folder: Path) -> None:
    there = nearest(folder)
    if not there.is_dir():
        raise NotADirectoryError(f"folder {folder} cannot be made: {there} is a file")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"folder {folder} is not writable")


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Refuses groups that torch took out of a checkpoint and that no step could read."""
    # torch adds it to the defaults of any class as it loads a state, and reads it there alone.
    wanted = [name for name in optimizer.defaults if name != "differentiable"]
    for group in optimizer.param_groups:
        missing = [name for name in wanted if name not in group]
        if missing:
            raise ValueError(
                "--checkpoint_load_path: the checkpoint is of another optimizer: it has no "
                f"{', '.join(missing)}"
            )


class _ProgressBar(ProgressBarHook):
    """Classy Vision's, which gives its bar's end to progressbar2 as the start, and never fills."""

    @classmethod
    def name(cls) -> str:
        return ProgressBarHook.name()

    def on_phase_start(self, task: ClassyTask) -> None:
        import progressbar

        if is_primary():
            self.bar_size, self.batches = task.num_batches_per_phase, 0
            prefix = f"{task.phase_type:<5} {task.train_phase_idx + 1} "
            self.progress_bar = progressbar.ProgressBar(max_value=self.bar_size, prefix=prefix)
            self.progress_bar.start()

    def on_step(self, task: ClassyTask) -> None:
        if self.progress_bar is not None:
            self.batches += 1
            self.progress_bar.update(min(self.batches, self.bar_size))


class _LogFilter(logging.Filter):
    """Lets through what a person wants to read of Classy Vision's log."""

    shown = ("loss_lr_meter_logging_hook", "model_complexity_hook")

    #: why a checkpoint could not be loaded; Classy Vision logs it, and raises something else
    load_error: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.getMessage().startswith("Could not load"):
            self.load_error = record.exc_info[1]
            return False
        if record.levelno >= logging.WARNING or "classy_vision" not in record.pathname:
            return True
        # The task's text is the whole config.
        return record.module in self.shown and not record.getMessage().startswith("Starting")


def _parser() -> Parser:
    parser = Parser(
        prog="classy-gc train",
        description="Classy Vision's default training.",
    )
    add_generic_args(parser)
    parser.add_argument(
        "--seed",
        default=0,
        type=int,
        help="""of the weights, the order of the data, augmentation and dropout: the same seed
             on the same machine gives the same weights, bit for bit (default 0)""",
    )
    parser.add_argument(
        "--output_folder",
        default="",
        help="""of log.jsonl, curves.png, tensorboard/ and checkpoints/, unless
             --checkpoint_folder names another (default: output_TIME in the current folder)""",
    )
    # classy_train.py's 5 and 1, once it is known that nobody gave them; no text tears a bar.
    parser.set_defaults(log_freq=None, checkpoint_period=None)
    return parser


def _check_args(args: argparse.Namespace) -> None:
    check_known([args.distributed_backend], _TRAINERS, "--distributed_backend", "value")
    check_least(args, log_freq=1, checkpoint_period=1, seed=0)
    missing = [name for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if name not in os.environ]
    if args.distributed_backend == "ddp" and missing:
        raise ValueError(
            f"--distributed_backend ddp needs what torchrun puts into the environment, and "
            f"{', '.join(missing)} is not there; start it with: torchrun --nproc_per_node N "
            "-m classy_gc.commands.train … --distributed_backend ddp"
        )
    if args.distributed_backend == "none" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"{os.environ['WORLD_SIZE']} processes were started (WORLD_SIZE), and with "
            "--distributed_backend none each would train on its own; use ddp"
        )
    if args.show_progress and not importlib.util.find_spec("progressbar"):
        raise ValueError("--show_progress needs progressbar2: pip install 'classy-gc[examples]'")
    # It would make the checkpoint folder at once, and here nothing is sure yet.
    folder, args.checkpoint_folder = args.checkpoint_folder, ""
    check_generic_args(args)
    args.checkpoint_folder = folder


def _check_checkpoint(path: str, key: str) -> None:
    file = Path(path, CHECKPOINT_FILE) if Path(path).is_dir() else Path(path)
    if not file.is_file():  # Classy Vision would train from scratch
        raise ValueError(f"{key}: there is no checkpoint {file}")
    try:  # of a zip file only the small part that says what is where
        checkpoint = torch.load(file, map_location="cpu", mmap=zipfile.is_zipfile(file))
    except Exception as error:  # whatever bytes may make of unpickling
        reason, *_ = (str(error) or type(error).__name__).split(". ")  # then torch gives advice
        raise ValueError(f"{key}: {file} cannot be read: {reason}") from error
    if not isinstance(checkpoint, dict) or "classy_state_dict" not in checkpoint:
        raise ValueError(f"{key}: {file} is no checkpoint of Classy Vision: no classy_state_dict")


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=True)


def build_seeded_task(args: argparse.Namespace, config: dict[str, Any]) -> ClassyTask:
    """Seeds the process and builds the task, its checkpoints and the order of its data.

    Args:
        args: with ``seed``, ``checkpoint_load_path`` and ``pretrained_checkpoint_path``.
        config: of the task, which stays as it is.

    Raises:
        ValueError: a checkpoint is not there, or a fine-tuning one for another task.
    """
    _seed(args.seed)
    config = copy.deepcopy(config)
    # Classy Vision would make the folder of this one at once, and on every rank.
    config["hooks"] = [h for h in config.get("hooks") or [] if h["name"] != _TENSORBOARD]
    task = build_task(config)
    if args.pretrained_checkpoint_path and not isinstance(task, FineTuningTask):
        raise ValueError(
            f"--pretrained_checkpoint_path needs a fine_tuning task, not {config['name']!r}"
        )
    for key in ("checkpoint_load_path", "pretrained_checkpoint_path"):
        if getattr(args, key):
            _check_checkpoint(getattr(args, key), f"--{key}")
    if args.checkpoint_load_path:
        task.set_checkpoint(args.checkpoint_load_path)
    if args.pretrained_checkpoint_path:
        task.set_pretrained_checkpoint(args.pretrained_checkpoint_path)
    elif config.get("pretrained_checkpoint"):
        _check_checkpoint(config["pretrained_checkpoint"], "pretrained_checkpoint")
    if getattr(task, "test_only", False):
        # Classy Vision would test num_epochs times, and compare the batch size of the test
        # with the one that training simulates.
        task.set_num_epochs(1).set_simulated_global_batchsize(None)
        if not (args.checkpoint_load_path or getattr(task, "pretrained_checkpoint_path", None)):
            logging.warning(
                "test_only without --checkpoint_load_path: this tests the weights that the model "
                "starts with"
            )
    if hasattr(task, "build_dataloader_from_dataset"):
        task.build_dataloader_from_dataset = functools.partial(
            task.build_dataloader_from_dataset, shuffle_seed=_SHUFFLE_STRIDE * args.seed
        )
    return task


def _tensorboard(
    args: argparse.Namespace, config: dict[str, Any], output: _Output
) -> list[ClassyHook]:
    """Classy Vision's hook, as the config has it; its writer waits for the start of training."""
    own = next((h for h in config.get("hooks") or [] if h["name"] == _TENSORBOARD), None)
    hook = own or {}
    check_known(hook, ["name", "log_period", "summary_writer"], f"hook {_TENSORBOARD!r}")
    if args.skip_tensorboard:
        return []
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        missing = "tensorboard: pip install 'classy-gc[tensorboard]'"
        if own:
            raise ValueError(f"hook {_TENSORBOARD!r} needs {missing}") from error
        logging.info(f"no tensorboard logs without {missing}")
        return []
    known = inspect.signature(SummaryWriter).parameters
    check_known(hook.get("summary_writer", {}), known, f"summary_writer of hook {_TENSORBOARD!r}")
    output.summary_writer |= hook.get("summary_writer", {})
    folder = str(output.summary_writer["log_dir"] or "")
    if folder and "://" not in folder:
        output.logs.append(Path(folder).absolute())
    output.tensorboard = TensorboardPlotHook(None, hook.get("log_period", 10))
    return [output.tensorboard]


def _set_hooks(
    args: argparse.Namespace, config: dict[str, Any], task: ClassyTask, output: _Output
) -> dict[str, ClassyHook]:
    """classy_train.py's hooks and ours; of a kind that the config has, the config's is taken.

    Returns them by name.
    """
    # The log is ready before anybody writes to it.
    hooks: list[ClassyHook] = [output, JSONLogHook(output.folder)]
    if args.show_progress:
        hooks.append(_ProgressBar())
    log_freq = args.log_freq or (None if args.show_progress else 5)
    hooks += [LossLrMeterLoggingHook(log_freq), ModelComplexityHook()]
    hooks += _tensorboard(args, config, output)
    own_checkpoints = [h for h in task.hooks if isinstance(h, CheckpointHook)]
    if len(own_checkpoints) > 1:
        names = " and ".join(hook.name() for hook in own_checkpoints)
        raise ValueError(f"hooks: one of them can save checkpoints, not {names}")
    checkpoint = next(iter(own_checkpoints), None)
    if checkpoint is None:
        args_dict = {**vars(args), "config": config, "checkpoint_folder": str(output.checkpoints)}
        checkpoint = RollingCheckpointHook(
            interval=args.checkpoint_period or 1, input_args=args_dict
        )
        hooks.append(checkpoint)
    if args.checkpoint_folder or getattr(checkpoint, "has_default_folder", False):
        checkpoint.checkpoint_folder = str(output.checkpoints)
    output.checkpoints = Path(checkpoint.checkpoint_folder).absolute()
    if isinstance(checkpoint, RollingCheckpointHook):
        checkpoint.check(task)
    if args.profiler:
        hooks.append(ProfilerHook())
    if args.visdom_server:
        hooks.append(VisdomHook(args.visdom_server, args.visdom_port))
    hooks.append(TrainingCurvesHook(output.folder, title=Path(args.config_file).stem))
    hooks.append(PhaseSeedHook(args.seed))
    own = {hook.name(): hook for hook in task.hooks}
    for flag, base in (("checkpoint_period", CheckpointHook), ("log_freq", LossLrMeterLoggingHook)):
        for hook in own.values():
            if isinstance(hook, base) and getattr(args, flag):
                logging.warning(f"--{flag} is not used: the config has {hook.name()}")
    first, rest = hooks[:2], hooks[2:]
    merged = {hook.name(): own.pop(hook.name(), hook) for hook in first}
    merged |= own
    merged |= {hook.name(): hook for hook in rest if hook.name() not in own}
    task.set_hooks(list(merged.values()))
    for hook in (JSONLogHook, TrainingCurvesHook):
        output.logs.append(merged[hook.name()].path.absolute().parent)
    return merged


def _summary(
    done: str, history: list[dict[str, Any]], seconds: float, files: dict[str, Path]
) -> str:
    lines = [f"{done} in {seconds:.1f} s"]
    for phase in ("train", "test"):
        last = next((entry for entry in reversed(history) if entry["phase"] == phase), None)
        if last:
            values = [f"loss {last['loss']:.4f}"] + [
                f"{meter} {name} {value:.4f}"
                for meter, names in last["meters"].items()
                for name, value in names.items()
            ]
            lines.append(f"  {phase:<5}  " + "  ".join(values))
    lines += [f"  {name:<10}  {path}" for name, path in files.items() if path.is_file()]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, and prints the final meters, the time, and where the checkpoint lies.

    Args:
        argv: the flags (default: None, those of the process).

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    primary = args.distributed_backend != "ddp" or os.environ.get("RANK", "0") == "0"
    log_filter = _LogFilter()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    if not args.debug:
        handler.addFilter(log_filter)
    logging.basicConfig(
        level=logging.INFO if primary else logging.ERROR, handlers=[handler], force=True
    )
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    # Each worker of a data loader imports Classy Vision anew, see classy_gc/__init__.py.
    os.environ.setdefault(
        "PYTHONWARNINGS",
        "ignore:`torch.jit.script` is deprecated,ignore:The 'torchvision.transforms._",
    )
    import_from_current_folder()

    output = _Output(args)
    try:
        _check_args(args)
        config = load_config(args.config_file)
        set_image_backend(args.image_backend)
        set_video_backend(args.video_backend)
        if sys.stderr.isatty() and importlib.util.find_spec("progressbar"):
            args.show_progress = True
        task = build_seeded_task(args, config)
        hooks = _set_hooks(args, config, task, output)
        start = time.perf_counter()
        _TRAINERS[args.distributed_backend]().train(task)
    except Exception as error:
        reason = refusal(error)
        if output.started or args.debug or reason is None:
            raise
        if log_filter.load_error:
            path = args.checkpoint_load_path or args.pretrained_checkpoint_path
            what = log_filter.load_error
            if isinstance(what, KeyError):
                what = f"it has no {what}, so it may be of another optimizer"
            reason = f"checkpoint {path} does not fit {args.config_file}: {what}"
            if repr(log_filter.load_error) == "KeyError('optim')":
                reason = (
                    f"checkpoint {path} was saved without the state of the optimizer, so training "
                    "cannot resume; it can be tested (test_only), or fine-tuned from "
                    "(--pretrained_checkpoint_path)"
                )
            reason = textwrap.shorten(reason, 800, placeholder=" …")
        if not primary:
            return 2
        parser.error(reason)
    if is_primary():
        tested = getattr(task, "test_only", False)
        curves = hooks[TrainingCurvesHook.name()]
        files = {"log": hooks[JSONLogHook.name()].path}
        if not tested:
            saved = {"checkpoint": output.checkpoints / CHECKPOINT_FILE}
            if getattr(hooks.get(RollingCheckpointHook.name()), "save_best", None):
                saved["best"] = output.checkpoints / BEST_FILE
            files = saved | {"curves": curves.path} | files
        seconds = time.perf_counter() - start
        print(_summary("Tested" if tested else "Trained", curves.state.history, seconds, files))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
