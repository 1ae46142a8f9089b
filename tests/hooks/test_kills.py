"""A training that is killed twelve times ends like one that nobody killed."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from classy_vision.hooks import ClassyHook, register_hook

from classy_gc.commands import main
from classy_gc.files import temporary
from tests.commands.training import flat, short
from tests.forked import context

KILLS = 12
EPOCHS = 24  # two a kill, the most that a run trains before it is killed

connection = None


@register_hook("announce")
class Announce(ClassyHook):
    """Tells the test, in another process, that a phase starts."""

    on_start = on_step = on_phase_end = on_end = ClassyHook._noop

    def on_phase_start(self, task):
        if connection:
            connection.send(task.phase_idx)


def train(folder, announcements):
    """Trains in ``folder``, from its newest checkpoint if it has one."""
    global connection
    connection = announcements
    torch.set_num_threads(1)
    os.chdir(folder)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    flags = ["--config_file", "config.json", "--output_folder", ".", "--skip_tensorboard"]
    if Path("checkpoints/checkpoint.torch").exists():
        flags += ["--checkpoint_load_path", "checkpoints"]
    raise SystemExit(main(["train", *flags]))


@pytest.fixture(scope="module")
def start():
    """Starts a training in a process forked from one that has imported everything."""

    def start(folder):
        ours, its = context().Pipe(duplex=False)
        process = context().Process(target=train, args=(folder, its))
        process.start()
        its.close()
        return process, ours

    return start


def wait_for(condition, process):
    """Polls without a pause: a write takes milliseconds."""
    while not condition():
        assert process.is_alive(), "the training ended before it was killed"


def kill_somewhere(process, announcements, folder, seconds, rng):
    """Kills in the first or second epoch: in a write, or at any time."""
    announcements.recv()
    if rng.random() < 0.5:
        for _ in range(rng.randrange(4)):
            announcements.recv()
        files = [temporary(folder / "checkpoints" / f"{x}.torch") for x in ("checkpoint", "best")]
        wait_for(lambda: any(file.exists() for file in files), process)
        time.sleep(rng.uniform(0, 0.1) * seconds)
    else:
        time.sleep(rng.uniform(0.3, 2) * seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return any(file.exists() for file in (folder / "checkpoints").glob(".*.tmp"))


def results(folder):
    """The results of a training: the state, and the log without the times."""
    state = torch.load(folder / "checkpoints" / "checkpoint.torch")["classy_state_dict"]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
    return state, lines


def test_twelve_kills(tmp_path, start):
    # Saving 5 MB takes a fair share of an epoch; augmentation draws random numbers.
    config = short(EPOCHS)
    dims = {"input_dim": 192, "hidden_dims": [512, 1024], "output_dim": 10}
    config["model"] = {"name": "mlp", **dims}
    rolling = {"name": "rolling_checkpoint", "max_keep": 2, "save_best": "loss"}
    config["hooks"] = [rolling, {"name": "announce"}]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))

    process, announcements = start(tmp_path / "whole")
    announcements.recv()
    begin = time.perf_counter()
    process.join()
    assert process.exitcode == 0
    seconds = (time.perf_counter() - begin) / EPOCHS

    folder, rng, in_a_write = tmp_path / "killed", random.Random(0), 0
    for _ in range(KILLS):
        process, announcements = start(folder)
        in_a_write += kill_somewhere(process, announcements, folder, seconds, rng)
        for file in (folder / "checkpoints").glob("*.torch"):
            torch.load(file)  # is whole
    assert in_a_write >= 3
    process, _ = start(folder)
    process.join()
    assert process.exitcode == 0

    (whole, whole_log), (killed, killed_log) = map(results, (tmp_path / "whole", folder))
    assert flat(killed) == flat(whole)
    assert killed_log == whole_log
    assert len(killed_log) == 2 * EPOCHS
    assert not list((folder / "checkpoints").glob(".*"))
