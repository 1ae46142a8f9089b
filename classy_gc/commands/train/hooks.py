"""The hooks of ``classy-gc train``: Classy Vision's defaults, and those that write files."""

import argparse
import importlib.util
import inspect
import logging
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from classy_vision import hooks as stock
from classy_vision.generic.distributed_util import is_primary
from classy_vision.generic.util import CHECKPOINT_FILE
from classy_vision.tasks import ClassyTask
from fvcore.common.file_io import PathManager

from classy_gc.commands.seeded_task import TENSORBOARD
from classy_gc.commands.train.processes import Ranks
from classy_gc.configuration import errors, load
from classy_gc.files import check_folder, check_scheme, has_scheme, locked
from classy_gc.hooks import JSONLogHook, PhaseSeedHook, RollingCheckpointHook, TrainingCurvesHook
from classy_gc.hooks.checked_hook import CheckedHook
from classy_gc.hooks.progress_bar import FillingProgressBarHook
from classy_gc.options import check_installed, check_known, registered_name


class Output(CheckedHook):
    """Creates the folders of a run after all hooks that may refuse it, so that none is left then.

    Args:
        args: the flags of ``classy-gc train``. ``output_folder`` and ``checkpoint_folder`` are
            local paths, the second perhaps with a scheme, or empty.
        ranks: of the training, with its config; the primary one writes.
    """

    def __init__(self, args: argparse.Namespace, ranks: Ranks) -> None:
        super().__init__()
        folder = args.output_folder or f"output_{datetime.now().isoformat()}"
        self.folder = Path(folder).absolute()
        self.checkpoints = absolute(args.checkpoint_folder or self.folder / "checkpoints")
        self.files = [self.folder / "config.json"]
        #: whether all hooks have started, and the epochs trained before
        self.started, self.epochs_before = False, 0.0
        #: keeps other runs out of the folders until it is closed
        self.locks = ExitStack()
        self.args, self.ranks = args, ranks

    def on_start(self, task: ClassyTask) -> None:
        """Creates the folders on the primary rank, once all of them are known to be possible.

        Raises:
            ValueError: a folder that cannot be written to, or that another run writes to.
        """
        self.ranks.of_primary(lambda: self._make_folders(getattr(task, "test_only", False)))

    def _make_folders(self, test_only: bool) -> None:
        if not test_only and has_scheme(self.checkpoints):
            PathManager.mkdirs(self.checkpoints)
        elif not test_only:
            self.files.append(Path(self.checkpoints, CHECKPOINT_FILE))
        for file in self.files:
            if file.is_dir():
                raise ValueError(f"{file} is a folder, but a file must be written there")
        folders = dict.fromkeys(file.parent for file in self.files)
        for folder in folders:
            check_folder(folder, "folder")
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            self.locks.enter_context(locked(folder))
        load.write_config(self.ranks.config, self.folder)
        logging.info(f"writes to {self.folder}")


def absolute(path: str | Path) -> str:
    """An absolute path; one with a scheme already is."""
    return str(path) if has_scheme(path) else str(Path(path).absolute())


def _tensorboard(output: Output) -> list[stock.ClassyHook]:
    """Classy Vision's hook with the config's options; its writer creates a folder at once."""
    configs = output.ranks.config.get("hooks") or []
    given = next((hook for hook in configs if hook["name"] == TENSORBOARD), {})
    check_known(given, ["name", "log_period", "summary_writer"], f"hook {TENSORBOARD!r}")
    if output.args.skip_tensorboard or not (given or importlib.util.find_spec("tensorboard")):
        return []
    check_installed("tensorboard", f"hook {TENSORBOARD!r}", extra="tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    options = {"log_dir": output.folder / "tensorboard", **given.get("summary_writer", {})}
    known = inspect.signature(SummaryWriter).parameters
    check_known(options, known, f"summary_writer of hook {TENSORBOARD!r}")
    hook = stock.TensorboardPlotHook(None, given.get("log_period", 10))
    start = hook.on_start

    def on_start(task: ClassyTask) -> None:
        if is_primary():
            hook.tb_writer = SummaryWriter(**options)
        start(task)

    hook.on_start = on_start
    return [hook]


def _checkpoint_hook(task: ClassyTask, output: Output) -> stock.CheckpointHook:
    """The config's hook that saves checkpoints, else ours, with the folder of the run."""
    own = [hook for hook in task.hooks if isinstance(hook, stock.CheckpointHook)]
    if len(own) > 1:
        names = " and ".join(hook.name() for hook in own)
        raise ValueError(f"hooks: only one of them can save checkpoints, not {names}")
    hook = own[0] if own else RollingCheckpointHook(interval=output.args.checkpoint_period or 1)
    label = f"folder of {hook.name()}"
    if output.args.checkpoint_folder or getattr(hook, "folder", "") is None:
        hook.checkpoint_folder, label = output.checkpoints, "--checkpoint_folder"
    check_scheme(hook.checkpoint_folder, label)
    output.checkpoints = absolute(hook.checkpoint_folder)
    if isinstance(hook, RollingCheckpointHook):
        hook.check(task)
    return hook


def set_hooks(task: ClassyTask, output: Output) -> None:
    """Gives a task classy_train.py's hooks and ours, unless the config has the same hook.

    Args:
        task: with the hooks of the config.
        output: of the run; it learns which folders the hooks need.

    Raises:
        ValueError: two hooks for checkpoints, or a hook that cannot work as configured.
    """
    args, own = output.args, {hook.name(): hook for hook in task.hooks}
    given = {stock.CheckpointHook: "checkpoint_period", stock.LossLrMeterLoggingHook: "log_freq"}
    for name, hook in own.items():
        for base, flag in given.items():
            if isinstance(hook, base) and getattr(args, flag):
                logging.warning(f"--{flag} is not used: the config has {name}")
    hooks: list[stock.ClassyHook] = [FillingProgressBarHook()] if args.show_progress else []
    log_freq = args.log_freq or (None if args.show_progress else 5)
    hooks += [stock.LossLrMeterLoggingHook(log_freq), stock.ModelComplexityHook()]
    if args.profiler:
        hooks.append(stock.ProfilerHook())
    if args.visdom_server:
        hooks.append(stock.VisdomHook(args.visdom_server, args.visdom_port))
    saver = _checkpoint_hook(task, output)
    if saver.name() not in own:
        saver.input_args = {**vars(args), "config": dict(output.ranks.config)}
    curves = TrainingCurvesHook(folder=output.folder, title=Path(args.config_file).stem)
    hooks += [saver, curves, PhaseSeedHook(seed=args.seed)]
    log = own.pop(JSONLogHook.name(), None) or JSONLogHook(folder=output.folder)
    merged = own | {hook.name(): hook for hook in hooks if hook.name() not in own}
    for hook in merged.values():
        name = registered_name(type(hook), stock.HOOK_REGISTRY)
        hook.on_start = errors.section(f"hook {name!r}")(hook.on_start)
    for writer in (log, merged[TrainingCurvesHook.name()]):
        output.files.append(writer.path.absolute())
    # Hooks that write come last, since those before may still refuse the run.
    task.set_hooks([*merged.values(), output, log, *_tensorboard(output)])
