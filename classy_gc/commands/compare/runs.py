"""The runs of ``classy-gc compare``: each is a ``classy-gc train`` in its own process."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import math
import os
import shutil
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from classy_gc.commands.cli import main
from classy_gc.commands.progress import show_progress
from classy_gc.files import atomic_write
from classy_gc.hooks.phase_record import flat_meters

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

    @property
    def finished(self) -> bool:
        """Whether this config was trained here to its end, or until it diverged."""
        return (
            self._mark().get("log_bytes") == self._log_bytes
            and read_json(self.folder / "config.json") == self.written_config
        )

    @property
    def epochs(self) -> float:
        """The length of the training."""
        return self.config.get("num_epochs", 1)

    @property
    def diverged(self) -> str | None:
        """How the training ended, if the loss was no longer finite."""
        return self._mark().get("diverged")

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

    def _mark(self) -> dict[str, Any]:
        mark = read_json(self.folder / "finished")
        return mark if isinstance(mark, dict) and {"log_bytes", "diverged"} <= mark.keys() else {}

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

    def correct(self) -> str | None:
        """Which test samples it got right at the end, one digit each, if the log says so."""
        found = [record["correct"] for record in self._log("predictions")]
        return found[-1] if found else None

    def provenance(self) -> list[dict[str, Any]]:
        """What it was computed with: more than one entry if it was interrupted and resumed."""
        return [{k: x[k] for k in x if k != "kind"} for x in self._log("provenance")]

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


#: trains unfinished runs, and returns which ones failed or diverged, and why
Train = Callable[[Sequence[Run]], Mapping[Run, str]]


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


def _outcome(phases: Sequence[Mapping[str, Any]]) -> str:
    """The result of a run, and how long it took."""
    meters = next((flat_meters(p["meters"]) for p in phases[::-1] if p["phase"] == "test"), {})
    reached = [f"{meter} {value:.4g}" for meter, value in meters.items()][:1]
    return ", ".join([*reached, f"{sum(p['seconds'] for p in phases):.1f} s"])


def train_run(run: Run, threads: int | None = None) -> int:
    """Trains a run from its last checkpoint, or from the beginning.

    The output of the whole process goes to ``output.log``.

    Args:
        run: its folder has its config.
        threads: of torch (default: None, torch's choice).

    Returns:
        The exit code.
    """
    log = (run.folder / "output.log").open("a", buffering=1, encoding="utf-8")
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    sys.stdout = sys.stderr = log  # it may be elsewhere
    if threads:
        torch.set_num_threads(threads)
    checkpoints = run.folder / "checkpoints"
    flags = {
        "config_file": run.folder / "config.json",
        "output_folder": run.folder,
        "checkpoint_folder": checkpoints,
        "checkpoint_load_path": checkpoints,
        "checkpoint_period": max(1, int(run.epochs) // 10),
        "seed": run.seed,
    }
    argv = [text for flag, value in flags.items() for text in (f"--{flag}", str(value))]
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
    diverged = _last_line(run) if code and _DIVERGED in _last_line(run) else None
    if diverged or (code == 0 and run.phases()):
        hooks = run.config.get("hooks") or []
        if not any(hook["name"].endswith("checkpoint") for hook in hooks):
            shutil.rmtree(checkpoints, ignore_errors=True)
        run.mark_finished(diverged)
    return code


def _last_line(run: Run) -> str:
    log = run.folder / "output.log"
    text = log.read_text(encoding="utf-8", errors="replace").strip() if log.is_file() else ""
    return text.splitlines()[-1] if text else "no output"


class Engine(Protocol):
    """Where processes run: on this machine, or on a cluster."""

    limit: float  #: how many runs it takes at once

    def start(self, runs: Sequence[Run]) -> Sequence[Any]:
        """Starts a process for each run, and returns them."""

    def wait(self) -> None:
        """Waits a moment, or until a process may have ended."""

    def ending(self, process: Any) -> str | None:
        """How a process ended, such as ``exit code 1``; None while it runs."""

    def stop(self) -> None:
        """Ends all processes."""


def train_runs(runs: Sequence[Run], engine: Engine) -> dict[Run, str]:
    """Trains every unfinished run; returns once all of them have ended.

    An interrupted run continues from its last checkpoint. Each run that ends prints a line on
    stderr, and a terminal shows the progress of all.

    Args:
        runs: of the comparison.
        engine: where to train.

    Returns:
        The reason of each run that failed or diverged.
    """
    waiting = collections.deque(run for run in runs if not run.finished)
    ended, trained, everything = len(runs) - len(waiting), 0.0, sum(run.epochs for run in waiting)
    training: dict[Run, Any] = {}
    failed = {run: run.diverged for run in runs if run.finished and run.diverged}
    try:
        while waiting or training:
            free = min(len(waiting), engine.limit - len(training))
            new = [waiting.popleft() for _ in range(int(free))]
            for run in new:
                _prepare(run)
            training |= zip(new, engine.start(new) if new else (), strict=True)
            engine.wait()
            for run, process in list(training.items()):
                how = engine.ending(process)
                if how is None:
                    continue
                del training[run]
                ended, trained = ended + 1, trained + run.epochs
                reason = run.diverged if run.finished else _failure(run, how)
                if reason:
                    failed[run] = reason
                show_progress("")
                line = f"run {ended}/{len(runs)}  {run.arm}  seed {run.seed}: "
                line = f"{time.strftime('%X')} {line}{reason or _outcome(run.phases())}"
                print(line, file=sys.stderr, flush=True)
            latest = [phase["epoch"] for run in training for phase in run.phases()[-1:]]
            epochs = f"{trained + sum(latest):g}/{everything:g} epochs"
            show_progress(f"{ended}/{len(runs)} runs, {epochs}" if training else "")
    finally:
        show_progress("")
        engine.stop()
    return failed


def _prepare(run: Run) -> None:
    """Keeps the files of the same run if it was interrupted, and removes all others."""
    if read_json(run.folder / "config.json") != run.written_config or run.finished:
        shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True, exist_ok=True)  # NFS may keep a .nfs… in it
    for name in ("finished", "output.log"):
        (run.folder / name).unlink(missing_ok=True)
    config = json.dumps(run.written_config, indent=2)
    (run.folder / "config.json").write_text(config, encoding="utf-8")


def _failure(run: Run, how: str) -> str:
    if how == "exit code 0":
        return "has trained nothing"
    return f"{how}: {_last_line(run)}" if how.startswith("exit code") else how
