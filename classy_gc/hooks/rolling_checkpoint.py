"""``rolling_checkpoint``: checkpoints that survive a kill, as many as are wanted, and the best."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.generic.util import CHECKPOINT_FILE, get_checkpoint_dict
from classy_vision.hooks import CheckpointHook, register_hook

from classy_gc.files import replaced, sync_folder, temporary
from classy_gc.hooks.phase_record import flat_meters, mean_loss, meter_values
from classy_gc.options import BOOL, COUNT, Rule, check_options, or_null

BEST_FILE = "best.torch"

_PHASES = COUNT._replace(allowed="an integer >= 1")
_OPTIONS = {
    "folder": (None, Rule("a path", lambda v: v is None or isinstance(v, (str, Path)))),
    "interval": (1, _PHASES),
    "max_keep": (None, or_null(_PHASES)),
    "save_optimizer": (True, BOOL),
    "save_best": (None, or_null(Rule("a name", lambda v: isinstance(v, str)))),
}


# Classy Vision runs hooks of this base last, once the others are done with the state.
@register_hook("rolling_checkpoint")
class RollingCheckpointHook(CheckpointHook):
    """``rolling_checkpoint``: saves at the end of train phases, and when training ends.

    ``checkpoint.torch`` is the newest state; ``model_phase-{phase}_end.torch``, as Classy
    Vision names it, that of each saved train phase; ``best.torch`` the best tested. All are what
    Classy Vision's own ``checkpoint`` hook writes, and resume, test and fine-tune alike. A kill
    at any moment leaves under each name a whole file, the old one or the new one.

    Args:
        folder (str or Path, optional): for the files; made if need be (default: None, which is
            ``checkpoints`` in the output folder of ``classy-gc train``, or in the current one)
        interval (int): save after every so many train phases, which are epochs unless the
            dataset has ``phases_per_epoch``, >= 1 (default: 1). The last state is saved anyway.
        max_keep (int, optional): how many of the newest ``model_phase-…`` files to keep, >= 1
            (default: None, all)
        save_optimizer (bool): save the optimizer's state. Without it the files are smaller,
            and good for tests and fine-tuning, but training cannot resume (default: True)
        save_best (str, optional): what makes a state the best: ``loss``, where lower is better,
            or a meter, as ``accuracy/top_1``, where higher is better; of test phases, or of
            train phases where there is no test dataset (default: None, no ``best.torch``). The
            best value is part of the checkpoints; one of another ``save_best`` does not count.
        input_args (dict, optional): what else to save, see Classy Vision; no key of a config
            (default: None)

    Raises:
        ValueError: an unknown key or a value that is not allowed; at the start of training, a
            ``save_best`` that the task does not measure.

    Source: https://mmsegmentation.readthedocs.io, *Customize Runtime Settings*, for the options.

    Example:
        >>> from classy_vision.hooks import build_hook
        >>> build_hook({"name": "rolling_checkpoint", "max_keep": 3, "save_best": "loss"})
        <classy_gc.hooks.rolling_checkpoint.RollingCheckpointHook object at ...>
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        interval: int = 1,
        max_keep: int | None = None,
        save_optimizer: bool = True,
        save_best: str | None = None,
        input_args: dict[str, Any] | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in _OPTIONS}
        check_options(given, _OPTIONS, "hook 'rolling_checkpoint'")
        super().__init__(str(folder or "checkpoints"), input_args, checkpoint_period=interval)
        self.has_default_folder = folder is None
        self.max_keep = max_keep
        self.save_optimizer = save_optimizer
        self.save_best = save_best
        self.state.best, self.state.best_of = None, save_best

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> RollingCheckpointHook:
        """Instantiates the hook from a configuration: its arguments, by name."""
        return cls(**check_options(config, _OPTIONS, "hook 'rolling_checkpoint'"))

    def check(self, task: Any) -> None:
        """Refuses a ``save_best`` that nobody measures.

        Args:
            task: with its meters.

        Raises:
            ValueError: naming what is measured.
        """
        known = ["loss", *flat_meters(meter_values(task))]
        if self.save_best is not None and self.save_best not in known:
            raise ValueError(
                f"hook 'rolling_checkpoint': save_best must be one of {', '.join(known)}, "
                f"not {self.save_best!r}"
            )

    def on_start(self, task: Any) -> None:
        """Makes the folder, and removes what a kill left half-written."""
        self.check(task)
        if is_primary() and not getattr(task, "test_only", False):
            self._folder.mkdir(parents=True, exist_ok=True)
            for file in self._folder.glob(temporary(Path("*.torch")).name):
                file.unlink()

    def on_phase_end(self, task: Any) -> None:
        """Saves a train phase whose turn it is, and the best state."""
        if not is_primary() or getattr(task, "test_only", False):
            return
        if task.train == task._train_only and self._is_best(task):
            self._write(task, BEST_FILE)
        due = (task.train_phase_idx + 1) % self.checkpoint_period == 0
        if task.train and due and not task.done_training():
            self._save(task)

    def on_end(self, task: Any) -> None:
        """Saves the last state, whatever the interval."""
        if is_primary() and not getattr(task, "test_only", False):
            self._save(task)

    @property
    def _folder(self) -> Path:
        return Path(self.checkpoint_folder)

    def _of_phase(self, phase: int) -> Path:
        return self._folder / self.get_checkpoint_name(phase)

    def _save(self, task: Any) -> None:
        file = self._write(task, CHECKPOINT_FILE)
        # A test phase belongs to the train phase before it.
        phase = task.phase_idx - (not task.train)
        _link(file, self._of_phase(phase))
        if self.max_keep is not None:
            # Files of later phases are of a run that this one went back behind: not ours.
            kept = [p for p in range(phase + 1) if self._of_phase(p).exists()]
            for old in kept[: -self.max_keep]:
                self._of_phase(old).unlink()

    def _write(self, task: Any, name: str) -> Path:
        checkpoint = get_checkpoint_dict(task, self.input_args)
        if not self.save_optimizer:
            checkpoint["classy_state_dict"]["optimizer"] = {}
        file = self._folder / name
        logging.debug(f"Saving checkpoint to {file}")
        with replaced(file) as f:
            torch.save(checkpoint, f)
        return file

    def _is_best(self, task: Any) -> bool:
        if self.save_best is None or not task.losses:
            return False
        if self.save_best == "loss":
            value, sign = mean_loss(task), -1
        else:
            value, sign = flat_meters(meter_values(task))[self.save_best], 1
        if self.state.best_of != self.save_best:  # of a checkpoint, and no number to compare with
            self.state.best, self.state.best_of = None, self.save_best
        best = self.state.best
        if math.isnan(value) or (best is not None and sign * value <= sign * best):
            return False
        self.state.best = value
        return True


def _link(source: Path, target: Path) -> None:
    """A second name for a file, in place of what had that name."""
    link = temporary(target)
    try:
        link.unlink(missing_ok=True)
        link.hardlink_to(source)
        link.replace(target)
        sync_folder(target.parent)
    except OSError:  # a file system without hard links
        with replaced(target) as copy, source.open("rb") as file:
            shutil.copyfileobj(file, copy)
