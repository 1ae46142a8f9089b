"""A batch is tried before training, and training goes on as if it had not been."""

import copy
import io
import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from classy_vision.dataset import build_dataset
from classy_vision.models.classy_model import ClassyModelWrapper
from classy_vision.tasks import ClassificationTask, build_task

from classy_gc.commands import main, train
from classy_gc.configuration.trial import try_batches
from tests.commands.training import DIGITS, short


def config(epochs=2, **changes):
    """The digits with whatever is random or stateful: BatchNorm, crops, mixup, dropout."""
    return short(epochs, 128) | {"mixup": {"alpha": 0.4, "num_classes": 10}} | changes


def prepared(**changes):
    torch.manual_seed(0)
    task = build_task(config(**changes))
    task.base_model.classy_model._heads["block1-0"]["default_head"].fc = torch.nn.Sequential(
        torch.nn.Dropout(), torch.nn.Linear(32, 10)
    )
    task.prepare()
    return task


def snapshot(task):
    """Everything that a batch could change, and the attributes themselves."""
    state = copy.deepcopy(task.get_classy_state())
    leaves = {k: v.numpy().tobytes() for k, v in tensors(state)}
    gradients = [p.grad for p in task.base_model.parameters()]
    attributes = {name: id(value) for name, value in vars(task).items()}
    training = [module.training for module in task.base_model.modules()]
    return leaves, gradients, attributes, training


def tensors(state, prefix=""):
    for key, value in state.items() if isinstance(state, dict) else enumerate(state):
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, (dict, list)):
            yield from tensors(value, f"{prefix}{key}.")


def test_nothing_is_left_of_it():
    task = prepared()
    before = snapshot(task)
    calls = []
    task.base_model.classy_model.register_forward_hook(lambda *args: calls.append(args))
    try_batches(task)
    assert len(calls) == 2  # a train batch, a test batch
    assert snapshot(task) == before


def test_a_wrapped_model_is_copied_by_every_version_of_python(monkeypatch):
    # Before Python 3.11 ``object`` has no such method, and the wrapper gives the model's.
    state = ClassyModelWrapper.__getattr__
    monkeypatch.setattr(
        ClassyModelWrapper, "__getstate__", lambda self: state(self, "__getstate__")(), False
    )
    test_nothing_is_left_of_it()


class Broken(torch.nn.Module):
    def forward(self, *args):
        raise RuntimeError("this loss is broken")


def test_nothing_is_left_of_one_that_fails():
    task = prepared()
    task.base_loss = Broken()
    before = snapshot(task)
    with pytest.raises(RuntimeError, match="this loss is broken"):
        try_batches(task)
    assert snapshot(task) == before


def test_what_is_tried():
    """The next phase of each dataset, in its mode."""
    seen = []

    def look(module, args, output):
        seen.append((len(args[0]), module.training, torch.is_grad_enabled()))

    task = prepared()
    task.base_model.classy_model.register_forward_hook(look)
    try_batches(task)
    assert seen == [(32, True, True), (128, False, False)]
    seen.clear()
    task.phase_idx = 2  # only a test is left
    try_batches(task)
    assert seen == [(128, False, False)]
    seen.clear()
    task.phase_idx = 3  # nothing is left
    try_batches(task)
    assert not seen


def run(folder, *flags, **changes):
    Path("config.json").write_text(json.dumps(config(**changes)))
    flags = ["--config_file", "config.json", "--output_folder", folder, *flags]
    assert main(["train", *flags, "--skip_tensorboard"]) == 0
    state = torch.load(Path(folder) / "checkpoints" / "checkpoint.torch")["classy_state_dict"]
    return {name: x.numpy().tobytes() for name, x in tensors(state)}, state["losses"]


@pytest.mark.parametrize("changes", [{}, {"simulated_global_batchsize": 64}], ids=["", "period"])
def test_training_is_bit_for_bit_the_one_without_it(here, monkeypatch, changes):
    tried = run("tried", **changes)
    resumed = ("--checkpoint_load_path", "tried/checkpoints/model_phase-0_end.torch")
    assert run("resumed", *resumed, **changes) == tried
    monkeypatch.setattr(train, "try_batches", lambda task: None)
    assert run("untried", **changes) == tried


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        pytest.fail("a stream cannot be put back")


def test_what_could_not_be_undone_is_not_tried(monkeypatch):
    task = prepared()
    loader = torch.utils.data.DataLoader(Stream())
    monkeypatch.setattr(task, "build_dataloader_from_dataset", lambda dataset: loader)
    try_batches(task)

    class OwnStep(ClassificationTask):
        def train_step(self):
            pytest.fail("it may step any optimizer")

    task = OwnStep().set_dataset(build_dataset(DIGITS["dataset"]["train"]), "train")
    try_batches(task)

    task = prepared()
    task.base_model.classy_model.register_forward_hook(lambda *args: pytest.fail("no copy"))
    task.base_model.classy_model.lock = (x for x in ())  # cannot be copied
    try_batches(task)


def test_a_dataset_without_samples_is_named():
    task = prepared()
    task.datasets["test"].num_samples = 0
    with pytest.raises(ValueError, match=r"dataset\.test: there is no sample"):
        try_batches(task)


class File:
    """Samples of a file that is opened with the first read, as LMDB and HDF5 files are."""

    def __init__(self, samples):
        self.samples, self.file = samples, None

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        self.file = self.file or io.FileIO(__file__)
        return self.samples[i]


def test_a_dataset_for_workers_can_still_be_sent_to_them():
    task = prepared()
    for dataset in task.datasets.values():
        dataset.dataset = File(dataset.dataset)
        dataset.set_num_workers(1)
    try_batches(task)
    assert all(dataset.dataset.file is None for dataset in task.datasets.values())
    task.datasets["test"].dataset[0]
    with pytest.raises(TypeError) as pickles:
        pickle.dumps(task.datasets["test"].dataset)
    with pytest.raises(TypeError, match=re.escape(str(pickles.value))):
        try_batches(task)
