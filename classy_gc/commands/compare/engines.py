"""Trains the runs: in processes on this machine, or as jobs of a Slurm cluster."""

from __future__ import annotations

import collections
import importlib.util
import json
import math
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

from classy_gc.commands.compare.runs import Run, read_json, train_run
from classy_gc.commands.progress import show_progress
from classy_gc.commands.train.interrupts import delay_interrupts
from classy_gc.hooks.phase_record import flat_meters

_POLL_SECONDS = 0.5
_FORK = multiprocessing.get_context("fork")


class Local:
    """Forks a process per run from this one, which has imported everything and computed nothing.

    Args:
        jobs: how many at a time; with more than one, each has one torch thread.
    """

    def __init__(self, jobs: int) -> None:
        self.limit, self._running = jobs, []
        for module in ("matplotlib.figure", "sklearn.datasets"):  # import once, not in every run
            if importlib.util.find_spec(module.partition(".")[0]):
                importlib.import_module(module)

    @delay_interrupts  # Ctrl-C would get lost in a fork hook, or leave a run behind
    def start(self, runs: Sequence[Run]) -> list[Any]:
        """Forks a process for each run."""
        threads = 1 if self.limit > 1 else None
        processes = [_FORK.Process(target=_in_fork, args=(run, threads)) for run in runs]
        for process in processes:
            process.start()
        self._running += processes
        return processes

    def wait(self) -> None:
        """Waits until one has ended, at most half a second."""
        wait([process.sentinel for process in self._running], timeout=_POLL_SECONDS)

    def ending(self, process: Any) -> str | None:
        """The exit code or signal of a process; None while it runs."""
        if process.exitcode is None:
            return None
        self._running.remove(process)
        if process.exitcode >= 0:
            return f"exit code {process.exitcode}"
        name = signal.Signals(-process.exitcode).name
        return f"killed by {name}" + " (out of memory?)" * (name == "SIGKILL")

    def stop(self) -> None:
        """Ends all running processes."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.join()
        self._running = []


def _in_fork(run: Run, threads: int | None) -> None:
    # Ctrl-C reaches every process of the terminal, but the comparison itself ends its runs …
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # … unless it was killed.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(train_run(run, threads))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


class ClusterRun:
    """A run in the form that submitit calls, again after a preemption or a timeout."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __call__(self) -> int:
        """Trains the run."""
        return train_run(self.run)

    def checkpoint(self) -> Any:
        """What submitit calls next time: the run continues from its last checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


class Slurm:
    """Runs an array of Slurm jobs, which ends with this process or at Ctrl-C.

    Args:
        folder: for submitit's files; the nodes see it too.
        jobs: how many run at a time; None for as many as the cluster has room for.
        parameters: of submitit's ``SlurmExecutor``, such as ``partition`` and ``time``.

    Raises:
        ValueError: no submitit, no Slurm, or an unknown parameter.
    """

    limit = math.inf

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
        self._jobs: dict[str, Any] = {}
        self._queued: set[str] = set()

    @delay_interrupts
    def start(self, runs: Sequence[Run]) -> list[Any]:
        """Submits one job array."""
        with self._executor.batch():
            jobs = [self._executor.submit(ClusterRun(run)) for run in runs]
        self._jobs |= {job.job_id: job for job in jobs}
        return jobs

    def wait(self) -> None:
        """Asks the queue, at most every two seconds."""
        time.sleep(4 * _POLL_SECONDS)
        command = ["squeue", "--noheader", "--array", "--me", "--format=%i"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:  # else the controller is busy, and the state is unknown
            self._queued = set(done.stdout.split())
        else:
            self._queued = set(self._jobs)

    def ending(self, job: Any) -> str | None:
        """The exit code of a job, or a message that it has none; None while it is in the queue."""
        if job.job_id in self._queued:
            return None
        del self._jobs[job.job_id]
        if job.paths.result_pickle.exists():  # else results() would wait for sacct
            return f"exit code {job.results()[0]}"
        return f"job {job.job_id} was killed or failed, see {job.paths.stderr}"

    def stop(self) -> None:
        """Cancels all remaining jobs."""
        for job in self._jobs.values():
            job.cancel(check=False)
        self._jobs = {}


def _outcome(phases: Sequence[Mapping[str, Any]]) -> str:
    """The result of a run, and how long it took."""
    meters = next((flat_meters(p["meters"]) for p in phases[::-1] if p["phase"] == "test"), {})
    reached = [f"{meter} {value:.4g}" for meter, value in meters.items()][:1]
    return ", ".join([*reached, f"{sum(p['seconds'] for p in phases):.1f} s"])


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
                line = f"{time.strftime('%X')} run {ended}/{len(runs)}  {run.arm}  seed {run.seed}"
                outcome = reason or _outcome(run.phases())
                print(f"{line}: {outcome}", file=sys.stderr, flush=True)
            latest = [phase["epoch"] for run in training for phase in run.phases()[-1:]]
            epochs = f"{trained + sum(latest):g}/{everything:g} epochs"
            show_progress(f"{ended}/{len(runs)} runs, {epochs}" if training else "")
    finally:
        show_progress("")
        engine.stop()
    return failed


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


def _failure(run: Run, how: str) -> str:
    if how == "exit code 0":
        return "has trained nothing"
    return f"{how}: {run.last_line()}" if how.startswith("exit code") else how
