"""``classy-gc train`` on short configs of the digits: in this process, a fork, or a new one."""

import copy
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import torch

from classy_gc.commands import main
from classy_gc.hooks import PhaseSeedHook
from tests.forked import run as run_forked

CONFIGS = Path(__file__).parents[2] / "configs"
BIN = Path(sys.executable).parent
DIGITS = json.loads((CONFIGS / "digits_sgd_gc.json").read_text())


def digits(epochs=1, samples=96, **changes):
    """The digits config, shortened."""
    config = copy.deepcopy(DIGITS) | {"num_epochs": epochs, "use_gpu": False}
    for dataset in config["dataset"].values():
        dataset["num_samples"] = samples
    return config | changes


def short(epochs=1, samples=96, optimizer="sgd_gc"):
    """The same with augmentation, which draws random numbers."""
    config = digits(epochs, samples)
    config["optimizer"]["name"] = optimizer
    crop = {"name": "RandomCrop", "size": 8, "padding": 1}
    config["dataset"]["train"]["transforms"][0]["transforms"].insert(0, crop)
    return config


def train(config, *flags):
    Path("config.json").write_text(json.dumps(config))
    return main(["train", "--config_file", "config.json", *map(str, flags)])


def checkpoint(folder):
    return torch.load(Path(folder) / "checkpoint.torch")["classy_state_dict"]


def flat(state, prefix=""):
    """Every leaf of a state by its path; tensors as bytes, so that equal is bit for bit."""
    if isinstance(state, torch.Tensor):
        return {prefix: (state.dtype, state.shape, state.numpy().tobytes())}
    if isinstance(state, (dict, list, tuple)):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {k: v for key, x in items for k, v in flat(x, f"{prefix}/{key}").items()}
    return {prefix: state}


def run(*command, cwd, **env):
    env = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    return subprocess.run(
        [str(x) for x in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )


def _main(argv, file_size, interrupt_at):
    if interrupt_at:

        def interrupt(hook, task):
            if task.num_updates == interrupt_at:
                os.kill(os.getpid(), signal.SIGINT)

        PhaseSeedHook.on_step = interrupt
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.exit(main(argv))


def forked(*flags, cwd, command="train", stdout=None, file_size=None, interrupt_at=None):
    """``classy-gc`` in a process of its own, see ``tests/forked.py``.

    Optionally with a limit on file sizes, or a Ctrl-C after a number of trained samples.
    """
    argv = [command, "--config_file", "config.json", *map(str, flags)]
    return run_forked(_main, argv, file_size, interrupt_at, cwd=cwd, stdout=stdout)
