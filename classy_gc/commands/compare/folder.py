"""The output folder of a comparison, and the places of its runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from classy_gc.commands.compare.arms import Arm
from classy_gc.commands.compare.runs import Run, read_json
from classy_gc.files import atomic_write, locked, temporary


@contextlib.contextmanager
def opened(folder: Path, arms: Sequence[Arm], seeds: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """Opens the output folder if it is empty or holds the same comparison.

    Args:
        folder: created if necessary; no other process can open it until the context ends.
        arms: all of them.
        seeds: the seeds of each folder of runs in it.

    Raises:
        ValueError: the folder holds something else, or cannot be written to.
    """
    plan = {"arms": [{"name": arm.name, "config": arm.config} for arm in arms]}
    file = folder / "comparison.json"
    label = f"--output_folder {folder}"
    if file.exists():
        if read_json(file) != plan:
            raise ValueError(
                f"{label} holds another comparison: {file} has other arms, or other configs of "
                "them; name another folder"
            )
    elif folder.exists() and {path.name for path in folder.iterdir()} - {temporary(file).name}:
        raise ValueError(f"{label} holds something else than a comparison")
    for name, wanted in seeds.items():
        marks = [*folder.glob(f"{name}/*/seed_*/finished")]
        marks += folder.glob(f"{name}/*/*/seed_*/finished")
        found = {int(mark.parent.name.removeprefix("seed_")) for mark in marks}
        if missing := sorted(found - {*wanted}):
            raise ValueError(
                f"{label} has results of the seeds {', '.join(map(str, missing))} too, which would "
                "be lost: give those as well, or name another folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not file.is_file():
            with atomic_write(file) as new:
                new.write(json.dumps(plan, indent=2).encode())
        yield


def runs_in(folder: Path, arms: Sequence[Arm], seeds: Sequence[int]) -> list[Run]:
    """Every arm with every seed, in an order that completes each pair early.

    Args:
        folder: the parent of the arms' folders.
        arms: all of them.
        seeds: of each arm.
    """
    return [
        Run(arm.name, seed, folder / arm.folder / f"seed_{seed}", arm.config)
        for seed in seeds
        for arm in arms
    ]
