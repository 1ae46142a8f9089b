"""Processes that are forked from a server, which has imported everything already.

A new process would import torch and Classy Vision for seconds. Each command is run in a new one
once all the same, as a person would.
"""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import torch

_PRELOADED = [
    "classy_gc.commands.train",
    "matplotlib.figure",
    "pytest",
    "sklearn.datasets",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
]


def context():
    """The multiprocessing context whose processes are forked from the server."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_PRELOADED)
    return found


def _begin(cwd, output, env, function, args):
    os.chdir(cwd)
    # The server has the environment of the test that started it.
    os.environ.clear()
    os.environ.update(env)
    sys.path.insert(0, "")
    for name, number, path in zip(("stdout", "stderr"), (1, 2), output, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        # The server's streams belong to the files that it was started with.
        setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False))
    torch.set_num_threads(1)
    function(*args)


def start(function, *args, cwd, output, **env):
    """Starts ``function(*args)``, which this module or another can import, in a folder.

    Args:
        cwd: the folder.
        output: two paths, which stdout and stderr are added to.
        **env: of the process, besides the environment of the test.
    """
    arguments = (str(cwd), list(map(str, output)), {**os.environ, **env}, function, args)
    process = context().Process(target=_begin, args=arguments)
    process.start()
    return process


def run(function, *args, cwd, stdout=None, timeout=120):
    """As ``subprocess.run``; stdout and stderr go to files beside the folder."""
    output = (stdout or f"{cwd}.stdout", f"{cwd}.stderr")
    for path in output:
        if path != "/dev/full":
            Path(path).write_text("")
    process = start(function, *args, cwd=cwd, output=output)
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
    texts = ["" if path == "/dev/full" else Path(path).read_text() for path in output]
    return subprocess.CompletedProcess(args, process.exitcode, *texts)


def code(source, *argv):
    """Runs Python code as a script; a ``function`` for :func:`start` and :func:`run`."""
    sys.argv = ["code", *argv]
    exec(compile(source, "code", "exec"), {"__name__": "__main__"})


def command(*argv):
    """Runs ``classy-gc``; a ``function`` for :func:`start` and :func:`run`."""
    from classy_gc.commands import main

    sys.exit(main(list(map(str, argv))))
