"""Tries one batch of each dataset before anything is written: an error is the config's fault."""

import copy
import logging
import pickle
from typing import Any

from classy_vision import heads, meters, models, tasks
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from classy_gc.configuration.errors import section
from classy_gc.options import registered_name


def try_batches(task: tasks.ClassyTask) -> None:
    """Runs a batch of each dataset through a prepared task, and leaves no trace of it.

    The train batch goes forward and backward, the test batch forward, through copies of the
    modules that share their parameters with the originals. Buffers, gradients, meters and the order
    of the data do not change, so that the training is the same bit for bit as without the trial,
    if random numbers are seeded when it starts. The batches are loaded in this process, without
    workers.

    It costs as much as loading two batches, a training step without the optimizer, and a test step.
    The memory for the activations and gradients of a batch is free again before training.

    Args:
        task: prepared. It is not tried if that could not be undone: if it is not a
            ``ClassificationTask``, has its own ``train_step``, modules that cannot be copied, or
            streamed data.

    Raises:
        Exception: the error of the trial.
    """
    if getattr(type(task), "train_step", None) is not tasks.ClassificationTask.train_step:
        return
    task = copy.copy(task)
    model, loss = task.base_model, task.base_loss
    # Copies instead of the originals: the same numbers, but other gradients and hooks.
    parameters = [*model.parameters(), *loss.parameters()]
    shared = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in parameters}
    try:
        if issubclass(type(model), models.classy_model.ClassyModelWrapper):
            # Before Python 3.11 a copy of the wrapper takes the model's attributes for its own.
            task.base_model = type(model)(copy.deepcopy(model.classy_model, shared))
        else:
            task.base_model = copy.deepcopy(model, shared)
        task.base_loss, task.meters = copy.deepcopy((loss, task.meters), shared)
    except Exception as error:
        logging.debug(f"no batch is tried, because a copy of the task fails: {error}")
        return
    if task.distributed_model is not None:
        task.distributed_model, task.distributed_loss = task.base_model, None

    def run_optimizer(loss: Tensor) -> None:
        task.check_inf_nan(loss)
        loss.backward()

    # It does not step, and sends nothing to other processes.
    task.run_optimizer = run_optimizer
    task._should_do_step = lambda: True
    task._broadcast_buffers = lambda: None
    label_steps(task)
    first = task.phase_idx + 1
    for train, phase in ((True, "train"), (False, "test")):
        indices = [i for i, p in enumerate(task.phases) if i >= first and p["train"] is train]
        if not indices:
            continue
        task.phase_idx, task.train, task.losses = indices[0], train, []
        task.train_phase_idx += train
        with section("dataset", phase):
            batch = _first_batch(task, task.datasets[phase], phase)
        if batch is not None:
            task.data_iterator = iter([batch])
            task._set_model_train_mode()
            (task.train_step if train else task.eval_step)()


def label_steps(task: tasks.ClassificationTask) -> None:
    """Makes errors in a step name the model, its head, the loss, the meter or mixup.

    Args:
        task: its attributes are replaced, and the ``forward`` of its heads.
    """
    for method, key in (("compute_model", "model"), ("compute_loss", "loss")):
        setattr(task, method, section(key)(getattr(task, method)))
    task.check_inf_nan = section("loss")(task.check_inf_nan)
    for meter in task.meters:
        name = registered_name(type(meter), meters.METER_REGISTRY)
        meter.update = section("meters", name)(meter.update)
    if task.mixup_transform is not None:
        task.mixup_transform = section("mixup")(task.mixup_transform)
    sections = (getattr(task, "_config", None) or {}).get("model", {}).get("heads", [])
    names = [head.get("unique_id") for head in sections]
    for module in task.base_model.modules():
        if isinstance(module, heads.ClassyHead) and module.unique_id in names:
            i = names.index(module.unique_id)
            module.forward = section("model", "heads", i)(module.forward)


def _first_batch(task: tasks.ClassificationTask, data: Any, phase: str) -> Any:
    """The first batch of the next phase, loaded in this process; None for a stream."""
    loader = task.build_dataloader_from_dataset(data)
    stream = not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset)
    if stream or loader.batch_sampler is None:
        return None
    indices = next(iter(loader.batch_sampler), None)
    if indices is None:
        raise ValueError(f"dataset.{phase}: there is no sample")
    samples = loader.dataset
    if loader.num_workers:
        # The samples that workers will get must not have opened a file yet.
        samples = pickle.loads(pickle.dumps(samples))
    return loader.collate_fn([samples[i] for i in indices])
