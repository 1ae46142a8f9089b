"""Checkpoints that ``classy-gc`` is told to start from: found, whole, and of the same task."""

from __future__ import annotations

import argparse
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any, BinaryIO

import torch
from classy_vision.generic.util import CHECKPOINT_FILE
from classy_vision.optim import ClassyOptimizer
from classy_vision.optim.zero import ZeRO
from classy_vision.tasks import ClassificationTask, ClassyTask, FineTuningTask
from fvcore.common.file_io import PathManager
from torch import Tensor

from classy_gc.commands.train.hooks import absolute
from classy_gc.files import check_scheme, has_scheme
from classy_gc.optim.resume import resumed_state
from classy_gc.optim.stock import is_stock

# How files begin that are often taken for checkpoints, and what to do.
_BEGINNINGS = {
    b"version https://git-lfs": "it is a pointer of Git LFS; git lfs pull fetches the file",
    b"<": "it is a web page",
    b"PK": "it is cut off",
}

# How torch.save began files before it wrote zip archives; these have no checksums.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# A bit of a record's attributes that torch looks at.
_DIRECTORY = 0x10

# What Classy Vision goes on from; base_model is enough to test and to fine-tune.
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
    args: argparse.Namespace,
    config: Mapping[str, Any],
    task: ClassyTask,
    folder: str = "",
    of_primary: Callable[[Callable[[], Any]], Any] = lambda function: function(),
) -> None:
    """Tells a task which checkpoints to start from, once they are found to be some.

    Args:
        args: with ``checkpoint_load_path`` and ``pretrained_checkpoint_path``.
        config: of the task.
        task: not yet prepared.
        folder: where it will save its own checkpoints (default: none). ``checkpoint_load_path``
            may name it before there are any, as a job does that is always started by the same
            command.
        of_primary: asks the primary rank, which alone reads checkpoints (default: this process).

    Raises:
        ValueError: a checkpoint is not there or is none, or a fine-tuning one for another task.
    """
    tested, tuned = getattr(task, "test_only", False), isinstance(task, FineTuningTask)
    flag = args.pretrained_checkpoint_path
    if flag and not tuned:
        raise ValueError(
            f"--pretrained_checkpoint_path needs a fine_tuning task, not {config['name']!r}"
        )
    path = args.checkpoint_load_path
    if path and not tested and of_primary(lambda: _is_own_and_missing(path, folder)):
        logging.info(f"there is no checkpoint in {folder} yet: training starts at the beginning")
        args.checkpoint_load_path = path = ""
    if path:
        of_primary(lambda: _check_checkpoint(path, "--checkpoint_load_path", resume=not tested))
        task.set_checkpoint(path)
        if not tested and "optimizer" in config and isinstance(task, ClassificationTask):
            _tell_options(task.optimizer, config["optimizer"]["name"])
    pretrained = flag or config.get("pretrained_checkpoint")
    if pretrained:
        key = "--pretrained_checkpoint_path" if flag else "pretrained_checkpoint"
        of_primary(lambda: _check_checkpoint(pretrained, key))
        if tuned:
            task.set_pretrained_checkpoint(pretrained)
    elif tuned and not (path or tested):
        raise ValueError(
            f"{config['name']} needs a checkpoint to start from: --pretrained_checkpoint_path, or "
            "pretrained_checkpoint in the config"
        )
    elif tested and not path:
        logging.warning(
            "test_only without --checkpoint_load_path: this tests the weights that the model "
            "starts with"
        )


def _is_own_and_missing(path: str, folder: str) -> bool:
    check_scheme(path, "--checkpoint_load_path")
    own = (folder, f"{folder}/{CHECKPOINT_FILE}")
    return absolute(path).rstrip("/") in own and not PathManager.exists(own[1])


def _check_checkpoint(path: str, key: str, resume: bool = False) -> None:
    """Refuses a file that is no whole checkpoint of Classy Vision.

    All of it is read: that of a damaged one which nobody looks at would be trained with.

    Args:
        path: of the file, or of a folder with ``checkpoint.torch``; it may have a scheme.
        key: what names it, for the message.
        resume: whether training is to go on from it, which takes more than the weights
            (default: False)

    Raises:
        ValueError: naming the key, the file, and what is wrong with it.
    """
    check_scheme(path, key)
    file = path
    try:
        if PathManager.isdir(path):
            file = f"{path.rstrip('/')}/{CHECKPOINT_FILE}"
        found = PathManager.isfile(file)
        problem = _problem(file, resume) if found else ""
    except Exception as error:  # whatever bytes may make of unpickling, or a path handler raise
        raise ValueError(f"{key}: {file} cannot be read: {_reason(error)}") from error
    if not found:  # Classy Vision would train from scratch
        raise ValueError(f"{key}: there is no checkpoint {file}")
    if problem:
        raise ValueError(f"{key}: {file} is no checkpoint of Classy Vision: {problem}")


def _problem(file: str, resume: bool) -> str:
    """What is wrong with the checkpoint in a file; empty if nothing is."""
    with PathManager.open(file, "rb") as opened:
        start = opened.read(max(map(len, _BEGINNINGS)))
        if zipfile.is_zipfile(opened):
            damaged = _damaged_record(opened)
            if damaged:
                return f"it is damaged: its record {damaged} does not have its checksum"
        elif not start.startswith(_LEGACY):
            kinds = (what for begin, what in _BEGINNINGS.items() if start.startswith(begin))
            return next(kinds, "torch.save did not write it") if start else "it is empty"
    checkpoint = _loaded(file)
    state = checkpoint.get("classy_state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        return f"its classy_state_dict is {state!r}" if state else "it has no classy_state_dict"
    for name, kind in _STATE.items():
        if not isinstance(state.get(name), kind) and (resume or name == "base_model"):
            value = repr(state[name])[:50] if name in state else "missing"
            return f"its classy_state_dict.{name} is {value}"
    return ""


def _damaged_record(opened: BinaryIO) -> str | None:
    """The name of a record of a zip file that is not what was written, or None."""
    with zipfile.ZipFile(opened) as archive:
        for record in archive.infolist():
            if record.external_attr & _DIRECTORY:  # torch would give back memory as it is
                return record.filename
        return archive.testzip()


def _reason(error: Exception) -> str:
    """Why a file cannot be read, in some words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # Of torch's three paragraphs the first says that it failed, the last gives advice.
    paragraphs = str(error).split("\n\n")
    text = paragraphs[1] if len(paragraphs) == 3 else paragraphs[0].split(". ")[0]
    return f"{type(error).__name__}: {text.strip()}"


def _loaded(file: str) -> Any:
    if has_scheme(file):
        with PathManager.open(file, "rb") as opened:
            return torch.load(opened, map_location="cpu")
    # Of a zip file only the small part that says what is where.
    return torch.load(file, map_location="cpu", mmap=zipfile.is_zipfile(file))


def _tell_options(optimizer: ClassyOptimizer, name: str) -> None:
    """Has a stock optimizer that resumes say what it ignores, as the GC optimizers do."""
    if not is_stock(type(optimizer)) or isinstance(optimizer, ZeRO):
        return
    load = optimizer.set_classy_state

    def told(state: dict[str, Any]) -> None:
        resumed_state(state, optimizer, optimizer.optimizer, f"optimizer {name!r}")
        load(state)

    optimizer.set_classy_state = told


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Refuses groups that torch took out of a checkpoint and that no step could read.

    Args:
        optimizer: with the state of a checkpoint.

    Raises:
        ValueError: naming the options that are not there.
    """
    # torch adds it to the defaults of any class as it loads a state, and reads it there alone.
    wanted = [name for name in optimizer.defaults if name != "differentiable"]
    for group in optimizer.param_groups:
        missing = [name for name in wanted if name not in group]
        if missing:
            raise ValueError(
                "--checkpoint_load_path: the checkpoint is of another optimizer: it has no "
                f"{', '.join(missing)}"
            )


def check_progress(task: ClassyTask) -> None:
    """Refuses to resume where a schedule would run past its end; a warning where it jumps.

    Classy Vision counts the samples that were trained, and looks how far that is in the plan of
    the config, whose data or batches may be others by now.

    Args:
        task: prepared, with the state of a checkpoint.

    Raises:
        ValueError: naming both numbers of samples.
    """
    dataset = getattr(task, "datasets", {}).get("train")
    if not isinstance(task, ClassificationTask) or not hasattr(dataset, "__len__"):
        return
    steps, batch = len(task.build_dataloader_from_dataset(dataset)), dataset.get_global_batchsize()
    phases, done = task.get_total_training_phases(), task.train_phase_idx + 1
    ahead = task.num_updates - done * steps * batch
    if abs(ahead) < batch or done >= phases:
        return
    text = (
        f"the checkpoint was trained on {task.num_updates} samples in {done} epochs, which would "
        f"be {done * steps * batch} with the data and batches of this config"
    )
    if ahead > 0:
        raise ValueError(f"--checkpoint_load_path: {text}: its schedules would run past their end")
    at = task.num_updates / (phases * steps * batch)
    logging.warning(f"{text}: its schedules go on from {at:.1%} of the training")


class _LoadError(logging.Filter):
    """Keeps why a checkpoint could not be loaded: Classy Vision logs it, and raises no reason."""

    error: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.getMessage().startswith("Could not load"):
            self.error = record.exc_info[1]
            return False
        return True


@contextmanager
def loading(task: ClassyTask, config_file: str) -> Iterator[None]:
    """Says in one line why a checkpoint does not fit a task that is prepared in the ``with`` block.

    Args:
        task: with the paths of its checkpoints.
        config_file: where it comes from.

    Raises:
        ValueError: how the models differ, else what the optimizer lacks.
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
    resumed = task.checkpoint_dict is not None
    path = task.checkpoint_path if resumed else task.pretrained_checkpoint_path
    if repr(error) == "KeyError('optim')":
        return (
            f"checkpoint {path} was saved without the state of the optimizer, so training "
            "cannot resume; it can be tested (test_only), or fine-tuned from "
            "(--pretrained_checkpoint_path)"
        )
    checkpoint = task.checkpoint_dict if resumed else task.pretrained_checkpoint_dict
    states = [checkpoint["classy_state_dict"]["base_model"], task.base_model.get_classy_state()]
    if not resumed and task.reset_heads:
        states = [{**state, "model": {**state["model"], "heads": {}}} for state in states]
    reason = model_difference(*states)
    if not reason and isinstance(error, KeyError):
        reason = f"it has no {error}, so it may be of another optimizer"
    return f"checkpoint {path} does not fit {config_file}: {reason or error}"


def model_difference(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """How the tensors of a checkpoint's model and those of a config's differ.

    Args:
        saved: nested by name, the tensors of the checkpoint.
        wanted: those of the config's model.

    Returns:
        One line, empty where names and shapes are the same.

    Example:
        >>> saved = {"heads": {"old": {"fc.weight": torch.ones(9, 4), "fc.bias": torch.ones(9)}}}
        >>> model_difference(saved, {"heads": {"new": {"fc.weight": torch.ones(9, 4)}}})
        "the checkpoint has heads.old.fc.weight, heads.old.fc.bias; the config's model has
        heads.new.fc.weight"
        >>> model_difference({"fc.weight": torch.ones(9, 4)}, {"fc.weight": torch.ones(5, 4)})
        "fc.weight is [9, 4] in the checkpoint, [5, 4] in the config's model"
    """
    saved, wanted = dict(_shapes(saved)), dict(_shapes(wanted))
    texts = []
    for owner, ours, theirs in (
        ("the checkpoint", saved, wanted),
        ("the config's model", wanted, saved),
    ):
        names = [name for name in ours if name not in theirs]
        if names:
            texts.append(f"{owner} has {', '.join(names[:3])}{_more(names[3:])}")
    shapes = [
        f"{name} is {shape} in the checkpoint, {wanted[name]} in the config's model"
        for name, shape in saved.items()
        if wanted.get(name, shape) != shape
    ]
    if shapes:
        texts.append(shapes[0] + _more(shapes[1:]))
    return "; ".join(texts)


def _more(rest: list[str]) -> str:
    return f" (and {len(rest)} more)" if rest else ""


def _shapes(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[int]]]:
    for key, value in state.items():
        if isinstance(value, Mapping):
            yield from _shapes(value, f"{prefix}{key}.")
        elif isinstance(value, Tensor):
            yield f"{prefix}{key}", list(value.shape)
