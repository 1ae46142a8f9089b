"""The runs of ``classy-gc compare``: each a ``classy-gc train`` in a process of its own.

The processes are forked from a server that has imported torch and Classy Vision already, so
that a run starts at once, and still takes nobody down with it when it crashes.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import importlib.util
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from classy_gc.commands.cli import main
from classy_gc.commands.train.interrupts import delay_interrupts
from classy_gc.files import atomic_write
from classy_gc.hooks.phase_record import flat_meters

_POLL_SECONDS = 0.5

# What a run would spend most of its first seconds on; skipped where not installed.
_ALSO_PRELOADED = ("classy_gc.commands.train", "matplotlib.figure", "sklearn.datasets")

# Kept only where the config has a hook that writes them; there is a last one in any case.
_CHECKPOINTS = "checkpoints"
_NEVER = 1_000_000_000

# What Classy Vision says of a loss that is no number, and train repeats.
_DIVERGED = "Loss is infinity or NaN"

# For the test that compares runs image by image, and to tell results of different machines.
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
        """Whether this config was trained to its end here, or until it diverged."""
        mark = self._mark()
        log, config = self.folder / "log.jsonl", self.folder / "config.json"
        return (
            mark is not None
            and log.is_file()
            and log.stat().st_size == mark["log_bytes"]
            and read_json(config) == self.written_config
        )

    @property
    def diverged(self) -> str | None:
        """How its training ended if that was with a loss that is no number."""
        return (self._mark() or {}).get("diverged")

    def mark_finished(self, diverged: str | None = None) -> None:
        """So that the same comparison does not train it again."""
        mark = {"log_bytes": (self.folder / "log.jsonl").stat().st_size, "diverged": diverged}
        with atomic_write(self.folder / "finished") as file:
            file.write(json.dumps(mark).encode())

    def _mark(self) -> dict[str, Any] | None:
        mark = read_json(self.folder / "finished")
        return mark if isinstance(mark, dict) and {"log_bytes", "diverged"} <= {*mark} else None

    @property
    def written_config(self) -> dict[str, Any]:
        """The config, with the hooks that write what the comparison wants to know."""
        hooks = self.config.get("hooks") or []
        there = [hook["name"] for hook in hooks]
        more = [{"name": name} for name in _HOOKS if name not in there]
        return {**self.config, "hooks": [*hooks, *more]}

    def phases(self) -> list[dict[str, Any]]:
        """What its log says of each phase so far; what JSON cannot say was null, and is NaN."""
        return [_with_nan(record) for record in self._log("phase")]

    def correct(self) -> str | None:
        """Which test samples it got right at its end, a digit each, where its log says so."""
        found = [record["correct"] for record in self._log("predictions")]
        return found[-1] if found else None

    def provenance(self) -> list[dict[str, Any]]:
        """What it was computed with: more than one where it was interrupted and went on."""
        return [{k: x[k] for k in x if k != "kind"} for x in self._log("provenance")]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        try:
            lines = (self.folder / "log.jsonl").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        records = []
        for line in lines.splitlines():
            with contextlib.suppress(ValueError, RecursionError):  # one that is being written
                records.append(json.loads(line))
        return [x for x in records if isinstance(x, dict) and x.get("kind") == kind]


def read_json(path: Path) -> Any:
    """What a file says; None where it is not there, or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(x) for key, x in value.items()}
    return math.nan if value is None else value


def _epochs(run: Run) -> float:
    return run.config.get("num_epochs", 1)


def _outcome(phases: Sequence[Mapping[str, Any]]) -> str:
    """What a run has reached, and how long it took."""
    meters = next((flat_meters(p["meters"]) for p in phases[::-1] if p["phase"] == "test"), {})
    reached = [f"{meter} {value:.4g}" for meter, value in meters.items()][:1]
    return ", ".join([*reached, f"{sum(p['seconds'] for p in phases):.1f} s"])


class Progress:
    """A bar on a terminal, a line a run elsewhere."""

    def __init__(self, runs: Sequence[Run], total: int) -> None:
        self.failed: dict[Run, str] = {}
        self._todo, self._total = runs, total
        self._ended, self._trained = 0, 0.0
        self._bar = None
        if runs and sys.stderr.isatty() and importlib.util.find_spec("progressbar"):
            import progressbar

            self._bar = progressbar.ProgressBar(
                max_value=sum(map(_epochs, runs)),
                widgets=[
                    progressbar.Variable("runs", format="{formatted_value} runs "),
                    progressbar.Percentage(),
                    " ",
                    progressbar.Bar(),
                    progressbar.Variable("epochs", format=" {formatted_value} epochs "),
                    progressbar.ETA(),
                ],
            ).start()

    def on_end(self, run: Run, reason: str | None) -> None:
        """Counts a run that has ended; ``reason`` says why it failed, None that it did not."""
        self._ended += 1
        self._trained += _epochs(run)
        if reason:
            self.failed[run] = reason
        if self._bar is None:
            how = reason or _outcome(run.phases())
            text = f"{time.strftime('%X')} run {self._runs}  {run.arm}  seed {run.seed}: {how}"
            print(text, file=sys.stderr, flush=True)

    def on_poll(self, training: Sequence[Run]) -> None:
        """Moves the bar to where the runs are that are being trained."""
        if self._bar is not None:
            latest = (run.phases()[-1:] for run in training)
            epochs = self._trained + sum(p["epoch"] for phases in latest for p in phases)
            text = f"{epochs:g}/{self._bar.max_value:g}"
            self._bar.update(min(epochs, self._bar.max_value), runs=self._runs, epochs=text)

    def finish(self) -> None:
        """Gives the terminal back."""
        if self._bar is not None:
            self._bar.finish(dirty=True)  # where it stands: it may have been interrupted

    @property
    def _runs(self) -> str:
        return f"{self._total - len(self._todo) + self._ended}/{self._total}"


def train_runs(
    runs: Iterable[Run],
    jobs: int,
    on_end: Callable[[Run, str | None], None],
    on_poll: Callable[[Sequence[Run]], None],
) -> None:
    """Trains every run, several at a time; returns once all of them have ended.

    What an unfinished run has left in its folder is removed, and it starts anew.

    Args:
        runs: not finished yet.
        jobs: how many at a time; with more than one, each has one torch thread.
        on_end: called with each run that has ended and the reason why it failed, or None.
        on_poll: called about twice a second with those that are being trained.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *_ALSO_PRELOADED])
    # It would answer Ctrl-C with a traceback while it imports.
    delay_interrupts(forkserver.ensure_running)()
    waiting, training = collections.deque(runs), {}
    try:
        while waiting or training:
            while waiting and len(training) < jobs:
                run = waiting.popleft()
                shutil.rmtree(run.folder, ignore_errors=True)
                run.folder.mkdir(parents=True, exist_ok=True)  # NFS may keep a .nfs… in it
                config = json.dumps(run.written_config, indent=2)
                (run.folder / "config.json").write_text(config, encoding="utf-8")
                process = context.Process(target=_train, args=(run, 1 if jobs > 1 else None))
                process.start()
                training[process] = run
            wait([process.sentinel for process in training], timeout=_POLL_SECONDS)
            for process in [p for p in training if p.exitcode is not None]:
                run = training.pop(process)
                reason = _failure(run, process.exitcode)
                diverged = reason if reason and _DIVERGED in reason else None
                if reason is None or diverged:
                    hooks = run.config.get("hooks") or []
                    if not any(hook["name"].endswith("checkpoint") for hook in hooks):
                        shutil.rmtree(run.folder / _CHECKPOINTS, ignore_errors=True)
                    run.mark_finished(diverged)
                on_end(run, reason)
            on_poll(list(training.values()))
    finally:
        for process in training:
            process.terminate()
        for process in training:
            process.join()


def _train(run: Run, threads: int | None) -> None:
    # Ctrl-C reaches every process of the terminal; it is the comparison that ends its runs …
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # … but a comparison that was killed cannot.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with (run.folder / "output.log").open("wb") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    if threads:
        torch.set_num_threads(threads)
    flags = {
        "config_file": run.folder / "config.json",
        "output_folder": run.folder,
        "checkpoint_folder": run.folder / _CHECKPOINTS,
        "checkpoint_period": _NEVER,
        "seed": run.seed,
    }
    argv = [text for flag, value in flags.items() for text in (f"--{flag}", str(value))]
    try:
        sys.exit(main(["train", *argv, "--skip_tensorboard"]))
    except Exception as error:
        traceback.print_exc()
        # The last line of the log, which is what the comparison repeats.
        sys.exit(textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" …"))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _failure(run: Run, exitcode: int) -> str | None:
    """Why a run that has ended is not finished, or None if it is."""
    if exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"killed by {name}" + " (out of memory?)" * (name == "SIGKILL")
    if exitcode == 0:
        return None if run.phases() else "has trained nothing"
    log = run.folder / "output.log"
    text = log.read_text(encoding="utf-8", errors="replace").strip() if log.is_file() else ""
    last = text.splitlines()[-1] if text else "no output"
    return f"exit code {exitcode}: {last}"
