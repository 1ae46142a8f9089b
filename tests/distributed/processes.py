"""Starts the processes of a distributed test, and says what went wrong in them."""

import os
import runpy
import sys
import time
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from filelock import FileLock

from tests import forked


def _rank(module, args):
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def torchrun(module, *args, folder, processes=2, timeout=150, apart=False):
    """As ``torchrun -m module args`` in ``folder``, with forked processes.

    With ``apart`` each runs in a folder of its own, ``rank_…``, as on machines without a shared
    disk. If a process fails or takes too long, the others are ended, and the test fails with all
    that was printed.
    """
    # As in torchrun: the processes meet at a store of the parent, on a free port.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    output = Path(f"{folder}.output")
    output.write_text("")
    ranks = [
        forked.start(
            *(_rank, module, list(map(str, args))),
            cwd=folder / f"rank_{rank}" if apart else folder,
            output=(output, output),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(store.port),
            TORCHELASTIC_USE_AGENT_STORE="True",
            WORLD_SIZE=str(processes),
            **dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)),
        )
        for rank in range(processes)
    ]
    deadline, running = time.monotonic() + timeout, list(ranks)
    while running and time.monotonic() < deadline and not any(p.exitcode for p in ranks):
        wait([p.sentinel for p in running], timeout=max(0, deadline - time.monotonic()))
        running = [p for p in running if p.exitcode is None]
    if any(p.exitcode for p in ranks):
        wait([p.sentinel for p in running], timeout=5)  # their output may say why
    for process in running:
        process.terminate()
    for process in ranks:
        process.join()
    codes = [process.exitcode for process in ranks]
    if any(codes):
        pytest.fail(f"{module} {args} exited with {codes}\n{output.read_text()}")
    return output.read_text()


def results_of(module, tmp_path_factory):
    """What rank 0 of a module left in ``results.pt``; all workers share one run."""
    run, folder = os.environ.get("PYTEST_XDIST_TESTRUNUID"), tmp_path_factory.getbasetemp()
    folder = folder.parent / f"{module}-{run}" if run else folder / module
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        results = folder / "results.pt"
        if not results.exists():
            torchrun(module, results, folder=folder)
    return torch.load(results)


@contextmanager
def process_group(path):
    """The context of a process started by :func:`torchrun`; yields a dict for results.

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
