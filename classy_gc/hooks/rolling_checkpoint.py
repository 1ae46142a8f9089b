"""``rolling_checkpoint``: checkpoints that survive a kill, the newest ones and the best."""

import logging
import math
from pathlib import Path
from typing import Any, ClassVar

import torch
from classy_vision.generic.distributed_util import is_primary
from classy_vision.generic.util import CHECKPOINT_FILE, get_checkpoint_dict
from classy_vision.hooks import CheckpointHook, register_hook
from fvcore.common.file_io import PathManager

from classy_gc.files import atomic_write, check_scheme, has_scheme, temporary
from classy_gc.hooks.checked_hook import CheckedHook
from classy_gc.hooks.phase_record import flat_meters, mean_loss, meter_values
from classy_gc.options import BOOL, COUNT, Rule, check_known, or_null


# Classy Vision runs hooks with this base class last, once the others are done with the state.
@register_hook("rolling_checkpoint")
class RollingCheckpointHook(CheckedHook, CheckpointHook):
    """``rolling_checkpoint``: saves at the end of train phases.

    ``checkpoint.torch`` is the newest state; ``model_phase-{phase}_end.torch``, a name of Classy
    Vision's, that of each saved train phase; ``best.torch`` that with the best test. All have the
    format of Classy Vision's own ``checkpoint`` hook, and resume, test and fine-tune alike. A kill
    at any moment leaves a complete file under each name, the old one or the new one. If a hook
    tests other weights than those that are trained, as ``ema_model_weights`` does, ``best.torch``
    has the tested weights, and all others have the trained ones. Files of an older run in the same
    folder are replaced when their phase is saved; a warning says so if others may stay.

    Args:
        folder (str or Path, optional): for the files; created if necessary (default: None, which is
            ``checkpoints`` in the output folder of ``classy-gc train``, or in the current one). A
            path with a scheme goes through fvcore's ``PathManager``, as in Classy Vision's own
            hook; whether a kill can leave half a file there is up to the scheme's handler.
        interval (int): train phases from one save to the next, >= 1; a phase is an epoch unless the
            dataset has ``phases_per_epoch`` (default: 1). The last state is always saved.
        max_keep (int, optional): how many of the newest ``model_phase-…`` files to keep, >= 1
            (default: None, all)
        save_optimizer (bool): save the optimizer's state. Without it the files are smaller and do
            for testing and fine-tuning, but training cannot resume (default: True)
        save_best (str, optional): what makes a state the best: ``loss``, where lower is better,
            or a meter such as ``accuracy/top_1``, where higher is better; in test phases, or in
            train phases without a test dataset (default: None, no ``best.torch``). The best value
            is part of the checkpoints; one saved with another ``save_best`` does not count.

    Raises:
        ValueError: an unknown key or a value that is not allowed; at the start of training, a
            ``save_best`` that the task does not measure, or a folder with an unknown scheme.

    Source: https://mmsegmentation.readthedocs.io, *Customize Runtime Settings*, for the options.

    Example:
        >>> from classy_vision.hooks import build_hook
        >>> build_hook({"name": "rolling_checkpoint", "max_keep": 3, "save_best": "loss"}).max_keep
        3
    """

    OPTIONS: ClassVar = {
        "folder": (None, or_null(Rule("a path", lambda v: isinstance(v, (str, Path))))),
        "interval": (1, COUNT),
        "max_keep": (None, or_null(COUNT)),
        "save_optimizer": (True, BOOL),
        "save_best": (None, or_null(Rule("a name", lambda v: isinstance(v, str)))),
    }

    def __init__(self, **options: Any) -> None:
        CheckedHook.__init__(self, **options)
        folder = str(self.folder or "checkpoints")
        CheckpointHook.__init__(self, folder, checkpoint_period=self.interval)
        #: the phases whose files are kept, and the best value by its name
        self.state.saved, self.state.best = [], {}
        #: the last phase that this run has saved
        self.saved_phase: int | None = None

    def set_classy_state(self, state_dict: dict[str, Any]) -> None:
        """Restores the state, also that of earlier versions.

        Args:
            state_dict: of earlier versions, it has no ``saved`` (their files stay, whatever
                ``max_keep``), and the name of ``best`` in ``best_of``.
        """
        super().set_classy_state(state_dict)
        state = vars(self.state)
        if "best_of" in state:
            state["best"] = {state.pop("best_of"): state["best"]}

    def check(self, task: Any) -> None:
        """Refuses a ``save_best`` that is not measured, and a folder whose scheme has no handler.

        Args:
            task: with its meters.

        Raises:
            ValueError: with the names of what is measured, or with the folder.
        """
        check_scheme(self.checkpoint_folder, "hook 'rolling_checkpoint': folder")
        if self.save_best is not None:
            known = ["loss", *flat_meters(meter_values(task))]
            check_known([self.save_best], known, "save_best of hook 'rolling_checkpoint'", "name")

    def on_start(self, task: Any) -> None:
        """Creates the folder, warns of an older run's files, and removes half-written ones."""
        self.check(task)
        if getattr(task, "test_only", False):
            return
        if task.checkpoint_dict and hasattr(task.optimizer, "consolidate_state_dict"):
            # ZeRO does so only at the end of a train phase, and a test may come first.
            task.optimizer.consolidate_state_dict()
        if is_primary():
            PathManager.mkdirs(self.checkpoint_folder)
            if not has_scheme(self.checkpoint_folder):
                for file in Path(self.checkpoint_folder).glob(temporary(Path("*.torch")).name):
                    file.unlink()
            if not task.checkpoint_dict and PathManager.ls(self.checkpoint_folder):
                text = "has files of an older run; those that this run does not replace will stay"
                logging.warning(f"{self.checkpoint_folder} {text}")

    def on_phase_end(self, task: Any) -> None:
        """Saves a train phase that is due, and the best state."""
        if not is_primary() or getattr(task, "test_only", False):
            return
        if task.train == task._train_only and self.is_best(task):
            self._write(task, "best.torch")
        number = task.train_phase_idx + 1
        is_last = number == task.get_total_training_phases()
        if task.train and (number % self.checkpoint_period == 0 or is_last):
            self._save(task)

    def _save(self, task: Any) -> None:
        saved = self.state.saved
        saved.append(task.phase_idx)
        self._write(task, CHECKPOINT_FILE)
        self.saved_phase = task.phase_idx
        self._write(task, self.get_checkpoint_name(task.phase_idx))
        while self.max_keep and len(saved) > self.max_keep:
            path = f"{self.checkpoint_folder}/{self.get_checkpoint_name(saved.pop(0))}"
            if PathManager.exists(path):
                PathManager.rm(path)

    def _write(self, task: Any, name: str) -> None:
        checkpoint = get_checkpoint_dict(task, self.input_args)
        if not self.save_optimizer:
            checkpoint["classy_state_dict"]["optimizer"] = {}
        path = f"{self.checkpoint_folder}/{name}"
        # On a local disk, the file appears once it is complete.
        opened = PathManager.open(path, "wb") if has_scheme(path) else atomic_write(Path(path))
        with opened as file:
            torch.save(checkpoint, file)

    def is_best(self, task: Any) -> bool:
        """Whether the phase that has ended is better than all before it; if so, remembers it.

        NaN and an infinite loss never are.

        Args:
            task: as ``on_phase_end`` gets it.
        """
        if self.save_best is None or not task.losses:
            return False
        lower = self.save_best == "loss"
        value = {"loss": mean_loss(task), **flat_meters(meter_values(task))}[self.save_best]
        best = self.state.best.get(self.save_best, math.inf if lower else -math.inf)
        is_better = value < best if lower else value > best
        if is_better:
            self.state.best = {self.save_best: value}
        return is_better
