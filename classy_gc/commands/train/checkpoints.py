"""The checkpoints that ``classy-gc`` starts from, and whether they fit the task."""

import argparse
import logging
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any, BinaryIO

import torch
from classy_vision.generic.util import CHECKPOINT_FILE
from classy_vision.optim import ClassyOptimizer
from classy_vision.optim.zero import ZeRO
from classy_vision.tasks import ClassificationTask, ClassyTask, FineTuningTask
from fvcore.common.file_io import PathManager

from classy_gc.commands.train.hooks import absolute
from classy_gc.commands.train.processes import Ranks
from classy_gc.files import check_scheme
from classy_gc.optim.resume import resumed_state
from classy_gc.optim.stock import is_stock

# The first bytes of torch.save's files before it wrote zip archives; these have no checksums.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# A bit of a record's attributes that torch reads.
_DIRECTORY = 0x10

# The state that Classy Vision resumes from; base_model is enough to test and to fine-tune.
_STATE = {
    "base_model": dict,
    "train": bool,
    "phase_idx": int,
    "train_phase_idx": int,
    "num_updates": Real,
    "losses": list,
    "meters": list,
    "optimizer": dict,
    "hooks": dict,
}


def set_checkpoints(
    args: argparse.Namespace, config: dict[str, Any], task: ClassyTask, ranks: Ranks, folder: str
) -> None:
    """Checks the checkpoints that a task should start from, and sets them.

    Args:
        args: with ``checkpoint_load_path`` and ``pretrained_checkpoint_path``.
        config: of the task.
        task: before it is prepared.
        ranks: of the task; the primary one alone reads checkpoints.
        folder: where it will save its own checkpoints, or nothing. ``checkpoint_load_path`` may
            name it while it is still empty, for jobs that always start with the same command.

    Raises:
        ValueError: a checkpoint is missing or is not one, or the task is not a fine-tuning task.
    """
    tested, tuned = getattr(task, "test_only", False), isinstance(task, FineTuningTask)
    flag = args.pretrained_checkpoint_path
    if flag and not tuned:
        raise ValueError(f"--pretrained_checkpoint_path is for fine_tuning, not {config['name']!r}")
    path = args.checkpoint_load_path
    if path and not tested and ranks.of_primary(lambda: _is_own_and_missing(path, folder)):
        logging.info(f"there is no checkpoint in {folder} yet: training starts at the beginning")
        path = ""
    if path:
        ranks.of_primary(
            lambda: check_checkpoint(path, "--checkpoint_load_path", resume=not tested)
        )
        task.set_checkpoint(path)
        if not tested and "optimizer" in config and isinstance(task, ClassificationTask):
            _tell_options(task.optimizer, config["optimizer"]["name"])
    pretrained = flag or config.get("pretrained_checkpoint")
    if pretrained:
        key = "--pretrained_checkpoint_path" if flag else "pretrained_checkpoint"
        ranks.of_primary(lambda: check_checkpoint(pretrained, key))
        if tuned:
            task.set_pretrained_checkpoint(pretrained)
    elif tested and not path:
        logging.warning("test_only without --checkpoint_load_path tests the initial weights")


def check_checkpoint(path: str, key: str, resume: bool = False) -> None:
    """Refuses a file that is not a complete checkpoint of Classy Vision.

    The whole file is read: otherwise training might use a damaged part.

    Args:
        path: of the file, or of a folder with ``checkpoint.torch``; it may have a scheme.
        key: the flag or key that names it, for messages.
        resume: whether training should resume from it, which takes more than the weights (default:
            False)

    Raises:
        ValueError: with the key, the file, and its fault.
    """
    check_scheme(path, key)
    try:
        file = f"{path.rstrip('/')}/{CHECKPOINT_FILE}" if PathManager.isdir(path) else path
        problem = _problem(file, resume) if PathManager.isfile(file) else None
    except Exception as error:  # unpickling any bytes, or a path handler, may raise anything
        reason = str(error).rpartition("WeightsUnpickler error: ")[2]
        text = f"{path} cannot be read: {type(error).__name__}: {reason}"
        raise ValueError(f"{key}: {text}") from error
    if problem is None:  # Classy Vision would train from scratch
        raise ValueError(f"{key}: there is no checkpoint {file}")
    if problem:
        raise ValueError(f"{key}: {file} is not a checkpoint of Classy Vision: {problem}")


def _problem(file: str, resume: bool) -> str:
    """What is wrong with the checkpoint in a file; empty if nothing is."""
    with PathManager.open(file, "rb") as opened:
        start = opened.read(30)
        if zipfile.is_zipfile(opened):
            damaged = _damaged_record(opened)
            if damaged:
                return f"it is damaged: its record {damaged} has a wrong checksum"
        elif start[:2] in (b"", b"PK"):
            return "it is empty or cut off"
        elif not start.startswith(_LEGACY):
            return f"it begins with {start!r}"
        opened.seek(0)
        checkpoint = torch.load(opened, map_location="cpu")
    state = checkpoint.get("classy_state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        return f"its classy_state_dict is {state!r:.50}"
    for name, kind in _STATE.items():
        if not isinstance(state.get(name), kind) and (resume or name == "base_model"):
            return f"its classy_state_dict.{name} is {state.get(name, 'missing')!r:.50}"
    return ""


def _damaged_record(opened: BinaryIO) -> str | None:
    """The name of a damaged record in a zip file, or None."""
    with zipfile.ZipFile(opened) as archive:
        for record in archive.infolist():
            if record.external_attr & _DIRECTORY:  # torch would return uninitialized memory
                return record.filename
        return archive.testzip()


def _is_own_and_missing(path: str, folder: str) -> bool:
    check_scheme(path, "--checkpoint_load_path")
    own = (folder, f"{folder}/{CHECKPOINT_FILE}")
    return absolute(path).rstrip("/") in own and not PathManager.exists(own[1])


def _tell_options(optimizer: ClassyOptimizer, name: str) -> None:
    """Makes a stock optimizer warn at resuming about what it ignores, as GC optimizers do."""
    if not is_stock(type(optimizer)) or isinstance(optimizer, ZeRO):
        return
    load = optimizer.set_classy_state

    def told(state: dict[str, Any]) -> None:
        resumed_state(state, optimizer, f"optimizer {name!r}")
        load(state)

    optimizer.set_classy_state = told


class _LoadError(logging.Filter):
    """Keeps the reason why a checkpoint could not be loaded, which Classy Vision only logs."""

    error: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.getMessage().startswith("Could not load"):
            self.error = record.exc_info[1]
            return False
        return True


@contextmanager
def loading(task: ClassyTask, config_file: str) -> Iterator[None]:
    """Raises one line if a checkpoint does not fit the task prepared in the ``with`` block.

    Args:
        task: with the paths of its checkpoints.
        config_file: of the task.

    Raises:
        ValueError: with the difference of the models, or with what the optimizer lacks.
    """
    caught, root = _LoadError(), logging.getLogger()
    root.addFilter(caught)
    try:
        yield
    except AssertionError as error:
        if caught.error is None:
            raise
        raise ValueError(_misfit(caught.error, task, config_file)) from error
    finally:
        root.removeFilter(caught)


def _misfit(error: BaseException, task: ClassyTask, config_file: str) -> str:
    path, checkpoint = task.checkpoint_path, task.checkpoint_dict
    if checkpoint is None:
        path, checkpoint = task.pretrained_checkpoint_path, task.pretrained_checkpoint_dict
    reason = str(error)
    if isinstance(error, KeyError):
        saved = checkpoint["classy_state_dict"]["base_model"]
        theirs, ours = _head_names(saved), _head_names(task.base_model.get_classy_state())
        reason = f"it has no {error}: it is of another optimizer, or was saved without its state"
        if theirs != ours:
            reason = f"the checkpoint has the heads {theirs}; the config's model has {ours}"
    return f"checkpoint {path} does not fit {config_file}: {reason}"


def _head_names(state: Mapping[str, Any]) -> list[str]:
    """The heads in the state of a model, each with the block that it is attached to."""
    of_blocks = state.get("model", {}).get("heads", {})
    return [f"{block}.{name}" for block, heads in of_blocks.items() for name in heads]
