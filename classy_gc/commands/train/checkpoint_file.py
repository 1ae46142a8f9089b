"""Checks that a file is a complete checkpoint of Classy Vision, or says what it is."""

from __future__ import annotations

import zipfile
from numbers import Real
from typing import BinaryIO

import torch
from classy_vision.generic.util import CHECKPOINT_FILE
from fvcore.common.file_io import PathManager

from classy_gc.files import check_scheme

# The first bytes of files that are often mistaken for checkpoints, and what to do.
_BEGINNINGS = {
    b"version https://git-lfs": "it is a Git LFS pointer; git lfs pull fetches the file",
    b"<": "it is a web page",
    b"PK": "it is cut off",
}

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
    file = path
    try:
        if PathManager.isdir(path):
            file = f"{path.rstrip('/')}/{CHECKPOINT_FILE}"
        is_there = PathManager.isfile(file)
        problem = _problem(file, resume) if is_there else ""
    except Exception as error:  # unpickling any bytes, or a path handler, may raise anything
        raise ValueError(f"{key}: {file} cannot be read: {_reason(error)}") from error
    if not is_there:  # Classy Vision would train from scratch
        raise ValueError(f"{key}: there is no checkpoint {file}")
    if problem:
        raise ValueError(f"{key}: {file} is not a checkpoint of Classy Vision: {problem}")


def _problem(file: str, resume: bool) -> str:
    """What is wrong with the checkpoint in a file; empty if nothing is."""
    with PathManager.open(file, "rb") as opened:
        start = opened.read(max(map(len, _BEGINNINGS))).lstrip()
        if zipfile.is_zipfile(opened):
            damaged = _damaged_record(opened)
            if damaged:
                return f"it is damaged: its record {damaged} has a wrong checksum"
        elif not start.startswith(_LEGACY):
            kinds = (what for begin, what in _BEGINNINGS.items() if start.startswith(begin))
            return next(kinds, "torch.save did not write it") if start else "it is empty"
        opened.seek(0)
        checkpoint = torch.load(opened, map_location="cpu")
    state = checkpoint.get("classy_state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        return f"its classy_state_dict is {state!r}" if state else "it has no classy_state_dict"
    for name, kind in _STATE.items():
        if not isinstance(state.get(name), kind) and (resume or name == "base_model"):
            value = repr(state[name])[:50] if name in state else "missing"
            return f"its classy_state_dict.{name} is {value}"
    return ""


def _damaged_record(opened: BinaryIO) -> str | None:
    """The name of a damaged record in a zip file, or None."""
    with zipfile.ZipFile(opened) as archive:
        for record in archive.infolist():
            if record.external_attr & _DIRECTORY:  # torch would return uninitialized memory
                return record.filename
        return archive.testzip()


def _reason(error: Exception) -> str:
    """Why a file cannot be read, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # torch's first paragraph of three says that it failed, and the last gives advice.
    paragraphs = str(error).split("\n\n")
    text = paragraphs[1] if len(paragraphs) == 3 else paragraphs[0].split(". ")[0]
    return f"{type(error).__name__}: {text.strip()}"
