"""The hooks of ``classy-gc train``: Classy Vision's defaults, and those that write its folder."""

from __future__ import annotations

import argparse
import inspect
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from classy_vision.generic.util import CHECKPOINT_FILE
from classy_vision.hooks import (
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
from classy_gc.configuration.load import write_config
from classy_gc.files import check_folder, check_local, check_scheme, has_scheme, locked
from classy_gc.hooks import (
    JSONLogHook,
    PhaseSeedHook,
    RollingCheckpointHook,
    TrainingCurvesHook,
)
from classy_gc.hooks.progress_bar import FillingProgressBarHook
from classy_gc.options import check_known


class Output(ClassyHook):
    """Makes the folders once all hooks but those that write there have started.

    So a run that is refused leaves no trace.

    Args:
        args: with ``output_folder`` and ``checkpoint_folder``, local paths, the second perhaps
            with a scheme; empty where nobody gave them.
        ranks: of the training; the primary one writes.

    Raises:
        ValueError: a folder that cannot be written, or that another run writes into; a scheme
            that is not allowed.
    """

    on_phase_start = ClassyHook._noop
    on_step = ClassyHook._noop
    on_phase_end = ClassyHook._noop
    on_end = ClassyHook._noop

    def __init__(self, args: argparse.Namespace, ranks: Ranks) -> None:
        super().__init__()
        check_local(args.output_folder, "--output_folder")
        self.folder = Path(args.output_folder or f"output_{datetime.now().isoformat()}").absolute()
        self.checkpoints = absolute(args.checkpoint_folder or self.folder / "checkpoints")
        self.files: list[Path] = []
        self.tensorboard: TensorboardPlotHook | None = None
        self.summary_writer: dict[str, Any] = {"log_dir": self.folder / "tensorboard"}
        #: whether all hooks have started, and how much was trained before
        self.started, self.epochs_before = False, 0.0
        self._ranks, self._locks = ranks, ExitStack()
        ranks.of_primary(lambda: check_folder(self.folder, "--output_folder"))
        if args.checkpoint_folder and not has_scheme(self.checkpoints):
            folder = Path(self.checkpoints)
            ranks.of_primary(lambda: check_folder(folder, "--checkpoint_folder"))

    def on_start(self, task: ClassyTask) -> None:
        """Makes the folders on the primary rank, once it is sure that all of them can be."""
        self._ranks.of_primary(lambda: self._make_folders(getattr(task, "test_only", False)))

    def _make_folders(self, test_only: bool) -> None:
        own = [self.folder, *(file.parent for file in self.files)]
        files = self.files
        if not test_only:
            if has_scheme(self.checkpoints):
                PathManager.mkdirs(self.checkpoints)
            else:
                own.append(Path(self.checkpoints))
                files = [*files, Path(self.checkpoints, CHECKPOINT_FILE)]
        for file in files:
            if file.is_dir():
                raise ValueError(f"{file} is a folder, and a file is to be written there")
        events = self.summary_writer["log_dir"] if self.tensorboard else ""
        others = [Path(events).absolute()] if events and not has_scheme(events) else []
        for folder in (*own, *others):
            check_folder(folder, "folder")
        for folder in dict.fromkeys((*own, *others)):
            folder.mkdir(parents=True, exist_ok=True)
            if folder in own:
                self._locks.enter_context(locked(folder))
        write_config(self._ranks.config, self.folder)
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.tensorboard.tb_writer = SummaryWriter(**self.summary_writer)
        logging.info(f"writes to {self.folder}")

    def close(self) -> None:
        """Lets other runs write into the folders."""
        self._locks.close()


def absolute(path: str | Path) -> str:
    """A path that means the same in every folder; one with a scheme does already."""
    return str(path) if has_scheme(path) else str(Path(path).absolute())


def _tensorboard(
    args: argparse.Namespace, config: Mapping[str, Any], output: Output
) -> list[ClassyHook]:
    """Classy Vision's hook, as the config has it; its writer waits for the start of training."""
    own = next((h for h in config.get("hooks") or [] if h["name"] == TENSORBOARD), None)
    hook = own or {}
    check_known(hook, ["name", "log_period", "summary_writer"], f"hook {TENSORBOARD!r}")
    if args.skip_tensorboard:
        return []
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        missing = "tensorboard: pip install 'classy-gc[tensorboard]'"
        if own:
            raise ValueError(f"hook {TENSORBOARD!r} needs {missing}") from error
        logging.info(f"no tensorboard logs without {missing}")
        return []
    known = inspect.signature(SummaryWriter).parameters
    check_known(hook.get("summary_writer", {}), known, f"summary_writer of hook {TENSORBOARD!r}")
    output.summary_writer |= hook.get("summary_writer", {})
    output.tensorboard = TensorboardPlotHook(None, hook.get("log_period", 10))
    return [output.tensorboard]


def set_hooks(
    args: argparse.Namespace, config: Mapping[str, Any], task: ClassyTask, output: Output
) -> dict[str, ClassyHook]:
    """Gives a task classy_train.py's hooks and ours; of a kind that the config has, that is taken.

    Args:
        args: the flags of ``classy-gc train``.
        config: of the task.
        task: with the hooks of the config.
        output: learns which folders they need.

    Returns:
        The hooks by name.

    Raises:
        ValueError: two hooks for checkpoints, or a hook that cannot do what it is told to.
    """
    hooks: list[ClassyHook] = [FillingProgressBarHook()] if args.show_progress else []
    log_freq = args.log_freq or (None if args.show_progress else 5)
    hooks += [LossLrMeterLoggingHook(log_freq), ModelComplexityHook()]
    own_checkpoints = [h for h in task.hooks if isinstance(h, CheckpointHook)]
    if len(own_checkpoints) > 1:
        names = " and ".join(hook.name() for hook in own_checkpoints)
        raise ValueError(f"hooks: one of them can save checkpoints, not {names}")
    checkpoint = next(iter(own_checkpoints), None)
    if checkpoint is None:
        args_dict = {**vars(args), "config": dict(config), "checkpoint_folder": output.checkpoints}
        checkpoint = RollingCheckpointHook(
            interval=args.checkpoint_period or 1, input_args=args_dict
        )
        hooks.append(checkpoint)
    if args.checkpoint_folder or getattr(checkpoint, "has_default_folder", False):
        checkpoint.checkpoint_folder = output.checkpoints
        check_scheme(output.checkpoints, "--checkpoint_folder")
    check_scheme(checkpoint.checkpoint_folder, f"folder of {checkpoint.name()}")
    output.checkpoints = absolute(checkpoint.checkpoint_folder)
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
    # What writes comes last: what starts before it may still be refused.
    log = own.pop(JSONLogHook.name(), None) or JSONLogHook(output.folder)
    merged = own | {hook.name(): hook for hook in hooks if hook.name() not in own}
    writers = (output, log, *_tensorboard(args, config, output))
    merged |= {hook.name(): hook for hook in writers}
    task.set_hooks(list(merged.values()))
    for hook in (JSONLogHook, TrainingCurvesHook):
        output.files.append(merged[hook.name()].path.absolute())
    return merged
