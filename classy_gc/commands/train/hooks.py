"""The hooks of ``classy-gc train``: Classy Vision's defaults, and those that write files."""

from __future__ import annotations

import argparse
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from classy_vision.generic.util import CHECKPOINT_FILE
from classy_vision.hooks import (
    HOOK_REGISTRY,
    CheckpointHook,
    ClassyHook,
    LossLrMeterLoggingHook,
    ModelComplexityHook,
    ProfilerHook,
    TensorboardPlotHook,
    VisdomHook,
)
from classy_vision.tasks import ClassyTask
from fvcore.common.file_io import PathManager

from classy_gc.commands.seeded_task import TENSORBOARD
from classy_gc.commands.train.ranks import Ranks
from classy_gc.configuration.errors import section
from classy_gc.configuration.load import write_config
from classy_gc.files import check_folder, check_scheme, has_scheme, locked
from classy_gc.hooks import JSONLogHook, PhaseSeedHook, RollingCheckpointHook, TrainingCurvesHook
from classy_gc.hooks.checked_hook import CheckedHook
from classy_gc.hooks.progress_bar import FillingProgressBarHook
from classy_gc.options import check_known, registered_name


class Output(CheckedHook):
    """Creates the folders of a run after all hooks that may refuse it, so that none is left then.

    Args:
        args: with ``output_folder`` and ``checkpoint_folder``, local paths, the second perhaps with
            a scheme; empty if they were not given.
        ranks: of the training; the primary one writes.

    Raises:
        ValueError: a folder that cannot be written to, or that another run writes to; a scheme that
            is not allowed.
    """

    def __init__(self, args: argparse.Namespace, ranks: Ranks) -> None:
        super().__init__()
        folder = Path(args.output_folder or f"output_{datetime.now().isoformat()}")
        ranks.of_primary(lambda: check_folder(folder, "--output_folder"))
        self.folder = folder.absolute()
        self.checkpoints = absolute(args.checkpoint_folder or self.folder / "checkpoints")
        self.files: list[Path] = []
        #: Classy Vision's hook, and what creates its writer, which creates a folder at once
        self.tensorboard: tuple[TensorboardPlotHook, Callable[[], Any]] | None = None
        #: whether all hooks have started, and the epochs trained before
        self.started, self.epochs_before = False, 0.0
        #: keeps other runs out of the folders until it is closed
        self.locks = ExitStack()
        self._ranks = ranks
        if args.checkpoint_folder and not has_scheme(self.checkpoints):
            checkpoints = Path(self.checkpoints)
            ranks.of_primary(lambda: check_folder(checkpoints, "--checkpoint_folder"))

    def on_start(self, task: ClassyTask) -> None:
        """Creates the folders on the primary rank, once all of them are known to be possible."""
        self._ranks.of_primary(lambda: self._make_folders(getattr(task, "test_only", False)))

    def _make_folders(self, test_only: bool) -> None:
        files = [self.folder / "config.json", *self.files]
        if not test_only and has_scheme(self.checkpoints):
            PathManager.mkdirs(self.checkpoints)
        elif not test_only:
            files.append(Path(self.checkpoints, CHECKPOINT_FILE))
        for file in files:
            if file.is_dir():
                raise ValueError(f"{file} is a folder, but a file must be written there")
        folders = dict.fromkeys(file.parent for file in files)
        for folder in folders:
            check_folder(folder, "folder")
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            self.locks.enter_context(locked(folder))
        write_config(self._ranks.config, self.folder)
        if self.tensorboard:
            hook, create_writer = self.tensorboard
            hook.tb_writer = create_writer()
        logging.info(f"writes to {self.folder}")


def absolute(path: str | Path) -> str:
    """An absolute path; one with a scheme already is."""
    return str(path) if has_scheme(path) else str(Path(path).absolute())


def _tensorboard(
    args: argparse.Namespace, config: Mapping[str, Any], output: Output
) -> list[ClassyHook]:
    """Classy Vision's hook with the config's options, which gets its writer at the start."""
    hook = next((h for h in config.get("hooks") or [] if h["name"] == TENSORBOARD), {})
    check_known(hook, ["name", "log_period", "summary_writer"], f"hook {TENSORBOARD!r}")
    if args.skip_tensorboard:
        return []
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        missing = "tensorboard: pip install 'classy-gc[tensorboard]'"
        if hook:
            raise ValueError(f"hook {TENSORBOARD!r} needs {missing}") from error
        logging.info(f"no tensorboard logs without {missing}")
        return []
    options = {"log_dir": output.folder / "tensorboard", **hook.get("summary_writer", {})}
    known = inspect.signature(SummaryWriter).parameters
    check_known(options, known, f"summary_writer of hook {TENSORBOARD!r}")
    plot = TensorboardPlotHook(None, hook.get("log_period", 10))
    output.tensorboard = plot, functools.partial(SummaryWriter, **options)
    return [plot]


def _checkpoint_hook(
    args: argparse.Namespace, config: Mapping[str, Any], task: ClassyTask, output: Output
) -> CheckpointHook:
    """The config's hook that saves checkpoints, else ours, with the folder of the run."""
    own = [hook for hook in task.hooks if isinstance(hook, CheckpointHook)]
    if len(own) > 1:
        names = " and ".join(hook.name() for hook in own)
        raise ValueError(f"hooks: only one of them can save checkpoints, not {names}")
    saved = {**vars(args), "config": dict(config), "checkpoint_folder": output.checkpoints}
    ours = RollingCheckpointHook(interval=args.checkpoint_period or 1)
    ours.input_args = saved
    hook = own[0] if own else ours
    if args.checkpoint_folder or getattr(hook, "folder", "") is None:
        hook.checkpoint_folder = output.checkpoints
        check_scheme(output.checkpoints, "--checkpoint_folder")
    check_scheme(hook.checkpoint_folder, f"folder of {hook.name()}")
    output.checkpoints = absolute(hook.checkpoint_folder)
    if isinstance(hook, RollingCheckpointHook):
        hook.check(task)
    return hook


def set_hooks(
    args: argparse.Namespace, config: Mapping[str, Any], task: ClassyTask, output: Output
) -> dict[str, ClassyHook]:
    """Gives a task classy_train.py's hooks and ours, unless the config has the same hook.

    Args:
        args: the flags of ``classy-gc train``.
        config: of the task.
        task: with the hooks of the config.
        output: learns which folders the hooks need.

    Returns:
        The hooks by name.

    Raises:
        ValueError: two hooks for checkpoints, or a hook that cannot work as configured.
    """
    hooks: list[ClassyHook] = [FillingProgressBarHook()] if args.show_progress else []
    log_freq = args.log_freq or (None if args.show_progress else 5)
    hooks += [LossLrMeterLoggingHook(log_freq), ModelComplexityHook()]
    checkpoint = _checkpoint_hook(args, config, task, output)
    if checkpoint not in task.hooks:
        hooks.append(checkpoint)
    if args.profiler:
        hooks.append(ProfilerHook())
    if args.visdom_server:
        hooks.append(VisdomHook(args.visdom_server, args.visdom_port))
    hooks.append(TrainingCurvesHook(folder=output.folder, title=Path(args.config_file).stem))
    hooks.append(PhaseSeedHook(seed=args.seed))
    own = {hook.name(): hook for hook in task.hooks}
    for flag, base in (("checkpoint_period", CheckpointHook), ("log_freq", LossLrMeterLoggingHook)):
        for hook in own.values():
            if isinstance(hook, base) and getattr(args, flag):
                logging.warning(f"--{flag} is not used: the config has {hook.name()}")
    # Hooks that write come last, since those before may still refuse the run.
    log = own.pop(JSONLogHook.name(), None) or JSONLogHook(folder=output.folder)
    merged = own | {hook.name(): hook for hook in hooks if hook.name() not in own}
    for hook in merged.values():
        name = registered_name(type(hook), HOOK_REGISTRY)
        hook.on_start = section(f"hook {name!r}")(hook.on_start)
    writers = (output, log, *_tensorboard(args, config, output))
    merged |= {hook.name(): hook for hook in writers}
    task.set_hooks(list(merged.values()))
    for hook in (JSONLogHook, TrainingCurvesHook):
        output.files.append(merged[hook.name()].path.absolute())
    return merged
