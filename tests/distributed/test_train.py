"""``classy-gc train`` under torchrun: replicas stay one model, and train as one process does."""

import json
from pathlib import Path

import pytest
import torch

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


def test_ddp_is_one_process_with_the_same_global_batch(tmp_path):
    # BatchNorm would see other batches: each replica normalizes with its own.
    model = {"name": "mlp", "input_dim": 192, "output_dim": 10, "hidden_dims": [32]}
    first, second = train(config("digits_sgd_gc", 2) | {"model": model}, tmp_path / "two", 2)
    same(first, second)
    (alone,) = train(config("digits_sgd_gc") | {"model": model}, tmp_path / "one", 1)
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

    # The name of the checkpoint after the first epoch; a test phase comes between two of them.
    half = saved / "model_phase-0_end.torch"
    resumed, other = train(zero, tmp_path / "resumed", 2, "--checkpoint_load_path", str(half))
    same(resumed, other)
    same(resumed, straight[1:])
