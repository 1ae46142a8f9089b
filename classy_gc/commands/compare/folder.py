"""The output folder of a comparison, and where in it each run lies."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from classy_gc.commands.checks import check_output_folder
from classy_gc.commands.compare.arms import Arm
from classy_gc.commands.compare.runs import Run
from classy_gc.files import atomic_write, temporary

# Ours, in a folder in which nothing has been planned yet.
_LOCK = ".lock"


@contextlib.contextmanager
def opened(folder: Path, arms: Sequence[Arm]) -> Iterator[None]:
    """The output folder, once it is found to be empty or to hold the same comparison.

    Args:
        folder: made if need be; nobody else can open it until the context ends.
        arms: all of them.

    Raises:
        ValueError: the folder holds something else, or cannot be written into.
    """
    plan = {"arms": [{"name": arm.name, "config": arm.config} for arm in arms]}
    file = folder / "comparison.json"
    check_output_folder(folder)
    if file.is_file():
        old = json.loads(file.read_text(encoding="utf-8"))
        if old != plan:
            theirs, ours = ([arm["name"] for arm in p["arms"]] for p in (old, plan))
            what = f"of the arms {theirs}, not {ours}"
            if theirs == ours:
                pairs = zip(old["arms"], plan["arms"], strict=True)
                what = f"with another config of {next(a['name'] for a, b in pairs if a != b)!r}"
            raise ValueError(f"--output_folder {folder} holds a comparison {what}; name another")
    elif folder.exists() and {path.name for path in folder.iterdir()} - {
        _LOCK,
        temporary(file).name,
    }:
        raise ValueError(f"--output_folder {folder} holds something else than a comparison")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"--output_folder {folder}: this comparison is running") from None
        if not file.is_file():
            with atomic_write(file) as new:
                new.write(json.dumps(plan, indent=2).encode())
        yield


def runs_in(folder: Path, arms: Sequence[Arm], seeds: Sequence[int]) -> list[Run]:
    """Every arm with every seed, in an order in which each pair is complete early.

    Args:
        folder: of the arms' folders.
        arms: all of them.
        seeds: of each.
    """
    return [
        Run(arm.name, seed, folder / arm.folder / f"seed_{seed}", arm.config)
        for seed in seeds
        for arm in arms
    ]
