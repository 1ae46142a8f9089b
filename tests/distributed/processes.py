"""Starts the processes of a distributed test, and says what went wrong in them."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

TESTS = Path(__file__).parents[1]


def torchrun(module, *args, folder, processes=2, timeout=150):
    """``torchrun -m module args`` in ``folder``, on a free port; returns what was printed.

    The test fails with all of that if a process does not exit with 0, or not in time.
    """
    # Without --rdzv_endpoint processes of tests that run side by side would meet.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", processes]
    rendezvous = ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0"]
    command = [*launcher, *rendezvous, "--local_addr", "127.0.0.1", "-m", module, *args]
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # torchrun then ends the workers
        output, _ = process.communicate(timeout=60)
        pytest.fail(f"{module} {args} took more than {timeout} s\n{output}")
    if process.returncode != 0:
        pytest.fail(f"{module} {args} exited with {process.returncode}\n{output}")
    return output


@contextmanager
def process_group(path):
    """What a process that :func:`torchrun` started runs in; yields a dict to put results into.

    Rank 0 leaves its results in ``path``, for the test to look at.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    results = {}
    yield results
    if dist.get_rank() == 0:
        torch.save(results, path)
    dist.barrier()
    dist.destroy_process_group()


def gathered(x):
    """The list of every rank's ``x``."""
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, x)
    return everyone
