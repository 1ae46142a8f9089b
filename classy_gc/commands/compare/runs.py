"""The runs of ``classy-gc compare``, each a ``classy-gc train``, and what trains them.

Runs are trained in processes on this machine, or as jobs of a Slurm cluster.
"""

import dataclasses
import importlib.util
import json
import multiprocessing.connection
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from classy_gc.commands.cli import main
from classy_gc.commands.compare.arms import Arm
from classy_gc.commands.progress import show_progress
from classy_gc.commands.train.processes import delay_interrupts
from classy_gc.files import atomic_write, locked, temporary
from classy_gc.hooks.phase_record import flat_meters
from classy_gc.options import check_installed

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
    config: dict[str, Any]  #: with the hooks that write what the comparison needs

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
        last = self.last_line()
        diverged = last if code and _DIVERGED in last else None
        if diverged or (code == 0 and self.log("phase")):
            if not any(hook["name"].endswith("checkpoint") for hook in self.config["hooks"]):
                shutil.rmtree(checkpoints, ignore_errors=True)
            self.mark_finished(diverged)
        return code

    def prepare(self) -> None:
        """Keeps the files of the same run if it was interrupted, and removes all others."""
        marked = (self.folder / "finished").exists()  # yet the log is not what it was
        if marked or read_json(self.folder / "config.json") != self.config:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)  # NFS may keep a .nfs… in it
        for name in ("finished", "output.log"):
            (self.folder / name).unlink(missing_ok=True)
        write_json(self.folder / "config.json", self.config)

    def checkpoint(self) -> Any:
        """What submitit calls after a preemption or a timeout: it trains on in another job."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    def ending(self) -> str | None:
        """None if this config was not trained here to its end; else empty, or how it diverged."""
        mark = read_json(self.folder / "finished")
        whole = isinstance(mark, dict) and mark.get("log_bytes") == self._log_bytes()
        if not whole or read_json(self.folder / "config.json") != self.config:
            return None
        return mark.get("diverged") or ""

    def mark_finished(self, diverged: str | None = None) -> None:
        """Marks the run, so that the same comparison does not train it again."""
        mark = {"log_bytes": self._log_bytes(), "diverged": diverged}
        write_json(self.folder / "finished", mark)

    def _log_bytes(self) -> int:
        # A run that diverges in its first phase has no log.
        log = self.folder / "log.jsonl"
        return log.stat().st_size if log.is_file() else 0

    def log(self, kind: str) -> list[dict[str, Any]]:
        """The records of a kind in the log so far; a number that is not finite is None.

        Args:
            kind: ``"phase"``, ``"predictions"`` or ``"provenance"``.
        """
        records = map(_parse, _read(self.folder / "log.jsonl").splitlines())
        return [x for x in records if isinstance(x, dict) and x.get("kind") == kind]

    def last_line(self) -> str:
        """The last line of what it printed."""
        lines = _read(self.folder / "output.log").splitlines()
        return lines[-1] if lines else "no output"


@contextmanager
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
        missing = sorted(finished - {*wanted})
        if missing:
            raise ValueError(
                f"{label} has results of the seeds {', '.join(map(str, missing))} too, which would "
                "be lost: give those as well, or name another folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not file.is_file():
            write_json(file, plan)
        yield


def runs_in(folder: Path, arms: Sequence[Arm], seeds: Sequence[int]) -> list[Run]:
    """Every arm with every seed, in an order that completes each pair early.

    Args:
        folder: the parent of the arms' folders.
        arms: all of them.
        seeds: of each arm.
    """
    return [
        Run(arm.name, seed, folder / arm.folder / f"seed_{seed}", _with_hooks(arm.config))
        for seed in seeds
        for arm in arms
    ]


def _with_hooks(config: Mapping[str, Any]) -> dict[str, Any]:
    hooks = config.get("hooks") or []
    there = [hook["name"] for hook in hooks]
    return {**config, "hooks": [*hooks, *({"name": x} for x in _HOOKS if x not in there)]}


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if it is missing or not JSON."""
    return _parse(_read(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # such as a line that is being written
        return None


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file, which appears once it is complete.

    Args:
        path: of the file, in a folder that exists.
        content: anything that JSON can hold.
    """
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


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
        fork = multiprocessing.get_context("fork")
        for run in runs:
            process = fork.Process(target=_in_fork, args=(run, self.limit > 1))
            process.start()
            self._running[run] = process

    def ended(self) -> dict[Run, str]:
        """The exit code or signal of each run that has just ended; waits half a second for one."""
        sentinels = [process.sentinel for process in self._running.values()]
        multiprocessing.connection.wait(sentinels, timeout=0.5)
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
            process.join()


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
        check_installed("submitit", "--cluster slurm", "cluster")
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
        from submitit.core.utils import FailedJobError

        try:
            with self._executor.batch():
                jobs = {run: self._executor.submit(run) for run in runs}
        except FailedJobError as error:  # such as an unknown partition
            raise ValueError(f"--cluster slurm: {error}") from error
        self._jobs |= jobs

    def ended(self) -> dict[Run, str]:
        """What to say of each job that has just left the queue; asks every two seconds."""
        time.sleep(2)
        command = ["squeue", "--noheader", "--array", "--me", "--format=%i"]
        queue = subprocess.run(command, capture_output=True, text=True, check=False)
        if queue.returncode:  # the controller is busy
            return {}
        queued = queue.stdout.split()
        jobs = {run: job for run, job in self._jobs.items() if job.job_id not in queued}
        for run in jobs:
            del self._jobs[run]
        return {
            run: f"job {job.job_id} was killed or failed, see {job.paths.stderr}"
            for run, job in jobs.items()
        }

    def stop(self) -> None:
        """Cancels all remaining jobs."""
        for job in self._jobs.values():
            job.cancel(check=False)


Engine = Local | Slurm


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
    endings = {run: run.ending() for run in runs}
    waiting, training = [run for run in runs if endings[run] is None], 0
    try:
        while waiting or training:
            new = waiting[: engine.limit - training]
            waiting = waiting[len(new) :]
            for run in new:
                run.prepare()
            if new:
                engine.start(new)
            training += len(new)
            for run, how in engine.ended().items():
                training -= 1
                ending = run.ending()
                endings[run] = f"{how}: {run.last_line()}" if ending is None else ending
                outcome = endings[run] or _outcome(run)
                show_progress("")
                done = f"{len(runs) - len(waiting) - training}/{len(runs)}"
                line = f"{time.strftime('%X')} run {done}  {run.arm}  seed {run.seed}: {outcome}"
                print(line, file=sys.stderr, flush=True)
            show_progress(f"{len(runs) - len(waiting) - training}/{len(runs)} runs")
    finally:
        show_progress("")
        engine.stop()
    return {run: ending for run, ending in endings.items() if ending}


def _outcome(run: Run) -> str:
    last = run.log("phase")[-1]
    numbers = {"loss": last["loss"], **flat_meters(last["meters"])}
    return ", ".join(f"{name} {x:.4g}" for name, x in numbers.items() if x is not None)
