"""The runs of ``classy-gc compare``: each a ``classy-gc train`` in a process of its own.

The processes are forked from a server that has imported torch and Classy Vision already, so
that a run starts at once, and still takes nobody down with it when it crashes.
"""

from __future__ import annotations

import collections
import contextlib
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
from typing import Any, NamedTuple

import torch

from classy_gc.commands import train
from classy_gc.commands.train.interrupts import delay_interrupts
from classy_gc.files import atomic_write

_POLL_SECONDS = 0.5

# What a run would spend most of its first seconds on; skipped where not installed.
_ALSO_PRELOADED = ("matplotlib.figure", "sklearn.datasets")

# Kept only where the config has a hook that writes them; there is a last one in any case.
_CHECKPOINTS = "checkpoints"
_NEVER = 1_000_000_000

# For the test that compares runs image by image.
_PREDICTIONS = {"name": "predictions"}


class Run(NamedTuple):
    """One arm trained with one seed."""

    arm: str
    seed: int
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether it has ended well, in this comparison or before it was interrupted."""
        return self._mark.is_file() and (self.folder / "log.jsonl").is_file()

    def mark_finished(self) -> None:
        """So that the same comparison does not train it again."""
        with atomic_write(self._mark):
            pass

    @property
    def _mark(self) -> Path:
        return self.folder / "finished"

    def phases(self) -> list[dict[str, Any]]:
        """What its log says of each phase so far; what JSON cannot say was null, and is NaN."""
        return [_with_nan(record) for record in self._log() if record["kind"] == "phase"]

    def correct(self) -> str | None:
        """Which test samples it got right at its end, a digit each, where its log says so."""
        found = [x["correct"] for x in self._log() if x["kind"] == "predictions"]
        return found[-1] if found else None

    def _log(self) -> list[dict[str, Any]]:
        try:
            lines = (self.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        records = []
        for line in lines:
            with contextlib.suppress(ValueError):  # a line that is being written
                records.append(json.loads(line))
        return records


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(x) for key, x in value.items()}
    return math.nan if value is None else value


class Progress:
    """A bar on a terminal, a line a run elsewhere."""

    def __init__(self, runs: Sequence[Run], total: int, epochs: Mapping[str, float]) -> None:
        self.failed: dict[Run, str] = {}
        self._todo, self._total, self._epochs = runs, total, epochs
        self._ended, self._trained = 0, 0.0
        self._bar = None
        if runs and sys.stderr.isatty() and importlib.util.find_spec("progressbar"):
            import progressbar

            self._bar = progressbar.ProgressBar(
                max_value=sum(epochs[run.arm] for run in runs),
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
        self._trained += self._epochs[run.arm]
        if reason:
            self.failed[run] = reason
        if self._bar is None:
            how = reason or f"{sum(p['seconds'] for p in run.phases()):.1f} s"
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
    configs: dict[str, dict[str, Any]],
    jobs: int,
    on_end: Callable[[Run, str | None], None],
    on_poll: Callable[[Sequence[Run]], None],
) -> None:
    """Trains every run, several at a time; returns once all of them have ended.

    What an unfinished run has left in its folder is removed, and it starts anew.

    Args:
        runs: not finished yet.
        configs: arm: Classy Vision config.
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
                run.folder.mkdir(parents=True)
                config = _with_predictions(configs[run.arm])
                (run.folder / "config.json").write_text(json.dumps(config, indent=2))
                process = context.Process(target=_train, args=(run, 1 if jobs > 1 else None))
                process.start()
                training[process] = run
            wait([process.sentinel for process in training], timeout=_POLL_SECONDS)
            for process in [p for p in training if p.exitcode is not None]:
                run = training.pop(process)
                reason = _failure(run, process.exitcode)
                if reason is None:
                    hooks = configs[run.arm].get("hooks") or []
                    if not any(hook["name"].endswith("checkpoint") for hook in hooks):
                        shutil.rmtree(run.folder / _CHECKPOINTS, ignore_errors=True)
                    run.mark_finished()
                on_end(run, reason)
            on_poll(list(training.values()))
    finally:
        for process in training:
            process.terminate()
        for process in training:
            process.join()


def _with_predictions(config: dict[str, Any]) -> dict[str, Any]:
    hooks = config.get("hooks") or []
    there = any(hook["name"] == _PREDICTIONS["name"] for hook in hooks)
    return config if there else {**config, "hooks": [*hooks, _PREDICTIONS]}


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
        sys.exit(train.main([*argv, "--skip_tensorboard"]))
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
