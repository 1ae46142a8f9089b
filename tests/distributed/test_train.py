"""``classy-gc train`` under torchrun: replicas stay equal, and train as one process does."""

import json
from pathlib import Path

import pytest
import torch
from classy_vision.dataset import build_dataset

import classy_gc  # noqa: F401

from .processes import torchrun

CONFIGS = Path(__file__).parents[2] / "configs"


def config(name, replicas=1, epochs=2):
    """A config of the digits, shortened."""
    result = json.loads((CONFIGS / f"{name}.json").read_text())
    result |= {"num_epochs": epochs, "use_gpu": False, "hooks": [{"name": "recorded_weights"}]}
    for dataset in result["dataset"].values():
        dataset |= {"num_samples": 192, "batchsize_per_replica": 32 // replicas}
    return result


def train(config, folder, processes, *flags):
    """The weights of each process: at the start, and after each epoch."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    arguments = ["--config_file", "config.json", "--skip_tensorboard", *flags]
    backend = ["--distributed_backend", "ddp"]
    module = "distributed.train_and_record"
    torchrun(module, *arguments, *backend, folder=folder, processes=processes)
    return [torch.load(folder / f"weights_{rank}.pt") for rank in range(processes)]


def same(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=0, atol=0)


def row_means(weights):
    return [w.flatten(1).mean(1) for w in weights if w.dim() > 1]


THREADS = """
import pathlib, runpy
try:
    runpy.run_module("classy_gc.commands.train", run_name="__main__")
finally:
    names = [path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    print("threads", *names)
"""


def test_the_first_process_alone_prints_and_writes(tmp_path):
    (tmp_path / "threads.py").write_text(THREADS)
    given = config("digits_sgd_gc", epochs=1) | {"hooks": []}
    given["dataset"]["train"]["num_samples"] = 96  # a full batch for each of 2 replicas
    (tmp_path / "config.json").write_text(json.dumps(given))
    flags = ("--skip_tensorboard", "--checkpoint_folder", "saved", "--distributed_backend", "ddp")
    printed = torchrun("threads", "--config_file", "config.json", *flags, folder=tmp_path)
    assert printed.count("Trained in") == 1
    # A thread of the process group that outlives Python aborts the rank.
    assert printed.count("threads") == 2
    assert "gloo" not in printed
    assert "[0] train phase 0 (100.00% done)" in printed
    assert "[1] train phase" not in printed
    (log,) = tmp_path.glob("output_*/log.jsonl")
    assert len(log.read_text().splitlines()) == 2
    state = torch.load(tmp_path / "saved/checkpoint.torch")["classy_state_dict"]
    assert state["num_updates"] == 2 * 32


def test_ddp_is_one_process_with_the_same_global_batch(tmp_path):
    # BatchNorm would see other batches: each replica normalizes with its own.
    model = {"name": "mlp", "input_dim": 192, "output_dim": 10, "hidden_dims": [32]}

    def trained(folder, processes):
        given = config("digits_sgd_gc", processes) | {"model": model}
        given["dataset"]["test"]["num_samples"] = 97  # an odd number: one process has one more
        given["hooks"].append({"name": "predictions"})
        weights = train(given, tmp_path / folder, processes, "--output_folder", "run")
        lines = (tmp_path / folder / "run/log.jsonl").read_text().splitlines()
        correct.append(json.loads(lines[-1])["correct"])
        return weights

    correct = []
    first, second = trained("two", 2)
    same(first, second)
    (alone,) = trained("one", 1)
    assert correct[0] == correct[1]
    assert len(correct[0]) == 97
    assert "0" in correct[0]
    assert len(first) == 3
    same(first[0], alone[0])
    assert (alone[2][0] - alone[0][0]).abs().max() > 1e-2
    torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-6)


def test_zero_trains_and_resumes(tmp_path):
    pytest.importorskip("fairscale")
    zero = config("digits_zero_adam_gc", 2)
    straight, other = train(zero, tmp_path / "zero", 2, "--checkpoint_folder", "saved")
    same(straight, other)
    assert (straight[2][0] - straight[0][0]).abs().max() > 1e-2
    # GC of the update, adam_gc's default, never moves them.
    torch.testing.assert_close(row_means(straight[2]), row_means(straight[0]), rtol=0, atol=1e-6)
    saved = tmp_path / "zero" / "saved"
    optimizer = torch.load(saved / "checkpoint.torch")["classy_state_dict"]["optimizer"]["optim"]
    assert len(optimizer["state"]) == len(straight[0])

    # The checkpoint after the first epoch; phases are counted with the tests between them.
    half = saved / "model_phase-0_end.torch"
    zero["hooks"].append({"name": "rolling_checkpoint", "save_best": "loss"})
    folder = tmp_path / "resumed"
    flags = ("--output_folder", "run", "--checkpoint_load_path")
    resumed, other = train(zero, folder, 2, *flags, str(half))  # begins with a test
    same(resumed, other)
    same(resumed, straight[1:])
    best = folder / "run/checkpoints/best.torch"
    best.unlink()
    # Only the last test is left, and best.torch must hold the state of all processes.
    finished, _ = train(zero, folder, 2, *flags, "run/checkpoints")
    same(finished, straight[2:])
    ended = torch.load(saved / "checkpoint.torch")["classy_state_dict"]
    again = torch.load(best)["classy_state_dict"]
    states = [state["optimizer"]["optim"]["state"] for state in (ended, again)]
    assert len(states[0]) == len(straight[0])
    same(*states)


def test_a_batch_that_fails_in_one_process_is_one_line(tmp_path):
    """Only the second process has the label that is out of range; both try a batch, and end."""
    bad = config("digits_sgd_gc", 2) | {"hooks": []}
    bad["model"]["heads"][0]["num_classes"] = 9
    del bad["meters"]
    del bad["dataset"]["test"]
    labels = [target for _, target in build_dataset(bad["dataset"]["train"]).dataset][:16]
    assert 9 not in labels[::2]
    assert 9 in labels[1::2]
    bad["dataset"]["train"] |= {"use_shuffle": False, "batchsize_per_replica": 8}
    with pytest.raises(pytest.fail.Exception) as failure:
        train(bad, tmp_path, 2, "--output_folder", "run")
    lines = [line for line in str(failure.value).splitlines() if "classy-gc train" in line]
    assert len(lines) == 1
    assert "error: rank 1: config.json: loss" in lines[0]
    assert "IndexError: " in lines[0]
    assert {path.name for path in tmp_path.iterdir()} == {"config.json"}


@pytest.fixture
def apart(tmp_path):
    """Trains in two processes, each in its own folder, and returns what they print."""
    for rank in range(2):
        (tmp_path / f"rank_{rank}").mkdir()

    def run(*flags, **changes):
        for folder in tmp_path.glob("rank_*"):
            small = config("digits_sgd_gc", 2) | {"hooks": []} | changes
            (folder / "config.json").write_text(json.dumps(small))
        return torchrun(
            "classy_gc.commands.train",
            *("--config_file", "config.json", "--skip_tensorboard", *flags),
            *("--distributed_backend", "ddp"),
            folder=tmp_path,
            apart=True,
        )

    return run


def test_only_the_first_process_is_asked_for_the_checkpoint(tmp_path, apart):
    flags = ("--output_folder", "run", "--checkpoint_load_path")
    assert "training starts at the beginning" in apart(*flags, "run/checkpoints", num_epochs=1)
    assert "[0] train phase 1 (100.00% done)" in apart(*flags, "run/checkpoints", num_epochs=2)
    log = tmp_path / "rank_0/run/log.jsonl"
    assert len(log.read_text().splitlines()) == 4
    file = "run/checkpoints/checkpoint.torch"
    assert "Tested in" in apart(*flags, file, test_only=True)
    assert [path.name for path in (tmp_path / "rank_1").iterdir()] == ["config.json"]


RAISES = """import os
if os.environ["RANK"] == "1":
    raise RuntimeError("only here")
"""


def test_an_error_of_another_process_before_training_is_one_line(tmp_path, apart):
    for folder in tmp_path.glob("rank_*"):
        (folder / "mine.py").write_text(RAISES)
    with pytest.raises(pytest.fail.Exception) as failure:
        apart("--output_folder", "run", custom_imports=["mine"])
    (line,) = [line for line in str(failure.value).splitlines() if "classy-gc train" in line]
    assert "error: rank 1: config.json: custom_imports: 'mine' cannot be imported" in line
    assert line.endswith("RuntimeError: only here")
    assert "exited with [2, 2]" in str(failure.value)
    assert not (tmp_path / "rank_0/run").exists()
