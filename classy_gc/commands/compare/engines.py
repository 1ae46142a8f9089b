"""Trains the runs: in processes on this machine, or as jobs of a Slurm cluster."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch

from classy_gc.commands.compare.runs import Run, read_json
from classy_gc.commands.progress import show_progress
from classy_gc.commands.train.interrupts import delay_interrupts
from classy_gc.hooks.phase_record import flat_meters

_FORK = multiprocessing.get_context("fork")


class Local:
    """Forks a process per run from this one, which has imported everything and computed nothing.

    Args:
        jobs: how many at a time; with more than one, each has one torch thread.
    """

    def __init__(self, jobs: int) -> None:
        self.limit = jobs
        self._running: dict[Run, Any] = {}
        for module in ("matplotlib.figure", "sklearn.datasets"):  # import once, not in every run
            if importlib.util.find_spec(module.partition(".")[0]):
                importlib.import_module(module)

    @delay_interrupts  # Ctrl-C would get lost in a fork hook, or leave a run behind
    def start(self, runs: Sequence[Run]) -> None:
        """Forks a process for each run."""
        for run in runs:
            process = _FORK.Process(target=_in_fork, args=(run, self.limit > 1))
            process.start()
            self._running[run] = process

    def ended(self) -> dict[Run, str]:
        """The exit code or signal of each run that has just ended; waits half a second for one."""
        wait([process.sentinel for process in self._running.values()], timeout=0.5)
        codes = {run: process.exitcode for run, process in self._running.items()}
        ended = {run: code for run, code in codes.items() if code is not None}
        for run in ended:
            del self._running[run]
        return {
            run: f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            for run, code in ended.items()
        }

    def stop(self) -> None:
        """Ends all running processes."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.join()
        self._running = {}


def _in_fork(run: Run, one_thread: bool) -> None:
    # Ctrl-C reaches every process of the terminal, but the comparison itself ends its runs …
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # … unless it was killed.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if one_thread:
        torch.set_num_threads(1)
    sys.exit(run())


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


class Slurm:
    """Runs an array of Slurm jobs, which ends with this process or at Ctrl-C.

    Args:
        folder: for submitit's files; the nodes see it too.
        jobs: how many run at a time; None for as many as the cluster has room for.
        parameters: of submitit's ``SlurmExecutor``, such as ``partition`` and ``time``.

    Raises:
        ValueError: no submitit, no Slurm, or an unknown parameter.
    """

    limit = sys.maxsize

    def __init__(self, folder: Path, jobs: int | None, parameters: Mapping[str, Any]) -> None:
        if not importlib.util.find_spec("submitit"):
            raise ValueError("--cluster slurm needs submitit: pip install 'classy-gc[cluster]'")
        import submitit

        try:
            self._executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=1000)
            parallel = {} if jobs is None else {"array_parallelism": jobs}
            self._executor.update_parameters(**{"job_name": "classy-gc", **parameters, **parallel})
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(f"--cluster slurm: {error}") from error
        self._jobs: dict[Run, Any] = {}

    @delay_interrupts
    def start(self, runs: Sequence[Run]) -> None:
        """Submits one job array."""
        with self._executor.batch():
            self._jobs |= {run: self._executor.submit(run) for run in runs}

    def ended(self) -> dict[Run, str]:
        """How each job ended that has just left the queue; asks every two seconds."""
        time.sleep(2)
        command = ["squeue", "--noheader", "--array", "--me", "--format=%i"]
        queue = subprocess.run(command, capture_output=True, text=True, check=False)
        if queue.returncode:  # the controller is busy
            return {}
        queued = queue.stdout.split()
        jobs = {run: job for run, job in self._jobs.items() if job.job_id not in queued}
        ended = {}
        for run, job in jobs.items():
            del self._jobs[run]
            ended[run] = f"job {job.job_id} was killed or failed, see {job.paths.stderr}"
            if job.paths.result_pickle.exists():  # else results() would wait for sacct
                ended[run] = f"exit code {job.results()[0]}"
        return ended

    def stop(self) -> None:
        """Cancels all remaining jobs."""
        for job in self._jobs.values():
            job.cancel(check=False)
        self._jobs = {}


def train_runs(runs: Sequence[Run], engine: Local | Slurm) -> dict[Run, str]:
    """Trains every unfinished run; returns once all of them have ended.

    An interrupted run continues from its last checkpoint. Each run that ends prints a line on
    stderr, and a terminal shows the progress of all.

    Args:
        runs: of the comparison.
        engine: where to train.

    Returns:
        The reason of each run that failed or diverged.
    """
    waiting, training = [run for run in runs if not run.finished], 0
    failed = {run: run.diverged for run in runs if run.finished and run.diverged}
    try:
        while waiting or training:
            new = waiting[: engine.limit - training]
            waiting = waiting[len(new) :]
            for run in new:
                _prepare(run)
            if new:
                engine.start(new)
            training += len(new)
            for run, how in engine.ended().items():
                training -= 1
                if not run.finished:
                    failed[run] = f"{how}: {run.last_line()}"
                elif run.diverged:
                    failed[run] = run.diverged
                outcome = failed.get(run) or _outcome(run)
                show_progress("")
                done = f"{len(runs) - len(waiting) - training}/{len(runs)}"
                line = f"{time.strftime('%X')} run {done}  {run.arm}  seed {run.seed}: {outcome}"
                print(line, file=sys.stderr, flush=True)
            show_progress(f"{len(runs) - len(waiting) - training}/{len(runs)} runs")
    finally:
        show_progress("")
        engine.stop()
    return failed


def _outcome(run: Run) -> str:
    last = run.phases()[-1]
    numbers = {"loss": last["loss"], **flat_meters(last["meters"])}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _prepare(run: Run) -> None:
    """Keeps the files of the same run if it was interrupted, and removes all others."""
    marked = (run.folder / "finished").exists()  # yet the log is not what it was
    if marked or read_json(run.folder / "config.json") != run.written_config:
        shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True, exist_ok=True)  # NFS may keep a .nfs… in it
    for name in ("finished", "output.log"):
        (run.folder / name).unlink(missing_ok=True)
    config = json.dumps(run.written_config, indent=2)
    (run.folder / "config.json").write_text(config, encoding="utf-8")
