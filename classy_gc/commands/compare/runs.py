"""The output folder of ``classy-gc compare``, and its runs: each is a ``classy-gc train``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from classy_gc.commands.cli import main
from classy_gc.commands.compare.arms import Arm
from classy_gc.files import atomic_write, locked, temporary

# Classy Vision's message for a loss that is not finite, which train repeats.
_DIVERGED = "Loss is infinity or NaN"

# For the test that compares runs image by image, and to tell machines apart.
_HOOKS = ("predictions", "provenance")


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One arm trained with one seed."""

    arm: str
    seed: int
    folder: Path
    config: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self) -> int:
        """Trains from the last checkpoint, or from the beginning; returns the exit code.

        The folder has the config. The output of the whole process goes to ``output.log``.
        """
        log = (self.folder / "output.log").open("a", buffering=1, encoding="utf-8")
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        sys.stdout = sys.stderr = log  # it may be elsewhere
        checkpoints = self.folder / "checkpoints"
        flags = {
            "config_file": self.folder / "config.json",
            "output_folder": self.folder,
            "checkpoint_folder": checkpoints,
            "checkpoint_load_path": checkpoints,
            "checkpoint_period": max(1, int(self.config.get("num_epochs", 1)) // 10),
            "seed": self.seed,
        }
        argv = [f"--{flag}={value}" for flag, value in flags.items()]
        try:
            code = main(["train", *argv, "--skip_tensorboard"])
        except SystemExit as error:
            if error.code == -1:  # submitit's, for a run that continues later
                raise
            code = error.code
        except Exception as error:
            traceback.print_exc()
            # The last line of the log, which the comparison repeats.
            print(textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" …"))
            code = 1
        log.flush()
        diverged = self.last_line() if code and _DIVERGED in self.last_line() else None
        if diverged or (code == 0 and self.phases()):
            hooks = self.config.get("hooks") or []
            if not any(hook["name"].endswith("checkpoint") for hook in hooks):
                shutil.rmtree(checkpoints, ignore_errors=True)
            self.mark_finished(diverged)
        return code

    def checkpoint(self) -> Any:
        """What submitit calls after a preemption or a timeout: it trains on in another job."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    @property
    def finished(self) -> bool:
        """Whether this config was trained here to its end, or until it diverged."""
        mark = read_json(self.folder / "finished")
        return (
            isinstance(mark, dict)
            and mark.get("log_bytes") == self._log_bytes
            and read_json(self.folder / "config.json") == self.written_config
        )

    @property
    def diverged(self) -> str | None:
        """How the training of a finished run ended, if the loss was no longer finite."""
        return (read_json(self.folder / "finished") or {}).get("diverged")

    def mark_finished(self, diverged: str | None = None) -> None:
        """Marks the run, so that the same comparison does not train it again."""
        mark = {"log_bytes": self._log_bytes, "diverged": diverged}
        with atomic_write(self.folder / "finished") as file:
            file.write(json.dumps(mark).encode())

    @property
    def _log_bytes(self) -> int:
        # A run that diverges in its first phase has no log.
        log = self.folder / "log.jsonl"
        return log.stat().st_size if log.is_file() else 0

    @property
    def written_config(self) -> dict[str, Any]:
        """The config, with the hooks that write what the comparison needs."""
        hooks = self.config.get("hooks") or []
        there = [hook["name"] for hook in hooks]
        more = [{"name": name} for name in _HOOKS if name not in there]
        return {**self.config, "hooks": [*hooks, *more]}

    def phases(self) -> list[dict[str, Any]]:
        """The phases in the log so far; a null, which JSON has instead of NaN, becomes NaN."""
        return [_with_nan(record) for record in self._log("phase")]

    def correct(self) -> str:
        """Which test samples it got right at the end, one digit each; empty if no log says so."""
        correct = [record["correct"] for record in self._log("predictions")]
        return correct[-1] if correct else ""

    def provenance(self) -> list[dict[str, Any]]:
        """What it was computed with: more than one entry if it was interrupted and resumed."""
        return [{k: x[k] for k in x if k != "kind"} for x in self._log("provenance")]

    def last_line(self) -> str:
        """The last line of what it printed."""
        log = self.folder / "output.log"
        text = log.read_text(encoding="utf-8", errors="replace").strip() if log.is_file() else ""
        return text.splitlines()[-1] if text else "no output"

    def _log(self, kind: str) -> list[dict[str, Any]]:
        try:
            lines = (self.folder / "log.jsonl").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        records = []
        for line in lines.splitlines():
            with contextlib.suppress(ValueError, RecursionError):  # a line that is being written
                records.append(json.loads(line))
        return [x for x in records if isinstance(x, dict) and x.get("kind") == kind]


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
                f"{label} holds another comparison: {file} has other arms, other configs of them, "
                "or is damaged; name another folder"
            )
    elif folder.exists() and {path.name for path in folder.iterdir()} - {temporary(file).name}:
        raise ValueError(f"{label} holds something else than a comparison")
    for name, wanted in seeds.items():
        marks = (folder / name).glob("**/seed_*/finished")
        finished = {int(mark.parent.name.removeprefix("seed_")) for mark in marks}
        if missing := sorted(finished - {*wanted}):
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


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(x) for key, x in value.items()}
    return math.nan if value is None else value
