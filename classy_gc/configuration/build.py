"""Builds the task of a config and tries a batch; names the section of an error or an unread key."""

import copy
import logging
import pickle
from collections import UserDict
from collections.abc import Mapping
from typing import Any

from classy_vision import dataset, heads, hooks, losses, meters, models, optim, tasks
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from classy_gc.configuration.errors import section
from classy_gc.configuration.schema import named_sections
from classy_gc.options import check_known, dotted, registered_name
from classy_gc.param_groups import build_param_group_builder
from classy_gc.tasks.schedules import preliminary, resolve_when_prepared


class _Section(UserDict[str, Any]):
    """A section of a config that records which keys are read from it and its copies."""

    def __init__(self, section: Mapping[str, Any], asked: dict[str, None] | None = None) -> None:
        self.data = dict(section)
        self.asked = {} if asked is None else asked

    def __getitem__(self, key: str) -> Any:
        self.asked[key] = None
        return self.data[key]

    def __contains__(self, key: object) -> bool:
        self.asked[str(key)] = None
        return key in self.data

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Section":
        return _Section(copy.deepcopy(self.data, memo), self.asked)


def build_task(config: Mapping[str, Any]) -> tasks.ClassyTask:
    """Classy Vision's ``build_task``, with errors that name their section.

    A warning names the keys of a section that nothing reads. Classy Vision's own models, heads,
    losses and datasets read the keys that they know and ignore the rest, which may be misspelled. A
    few of its example configs have such keys, so only those from ``--set`` or ``--vary`` are
    refused. Your own classes are not checked, since they may read keys later.

    Args:
        config: checked by :func:`classy_gc.configuration.schema.check_config`; not changed.

    Raises:
        Exception: the error of a section's class, in a
            :func:`classy_gc.configuration.errors.section`.

    Source: https://classyvision.ai/api/tasks.html, *build_task*.

    Example:
        >>> digits = {"name": "digits", "split": "test", "batchsize_per_replica": 32}
        >>> model = {"name": "mlp", "input_dim": 192, "hidden_dims": [9], "output_dim": 10}
        >>> task = build_task({
        ...     "name": "classification_task",
        ...     "num_epochs": 1,
        ...     "test_only": True,
        ...     "dataset": {"test": {**digits, "use_shuffle": False}},
        ...     "loss": {"name": "CrossEntropyLoss"},
        ...     "model": {**model, "dropuot": 0.5},
        ... })  # warns that model 'mlp' does not read 'dropuot', and lists what it reads
    """
    if not issubclass(tasks.TASK_REGISTRY[config["name"]], tasks.ClassificationTask):
        with section():
            return tasks.build_task(copy.deepcopy(dict(config)))
    kept = copy.deepcopy(preliminary(config))
    watched = {}
    for path, parent, classes in [*named_sections(kept)]:
        if classes[parent[path[-1]]["name"]].__module__.startswith("classy_vision."):
            watched[path] = parent[path[-1]] = _Section(parent[path[-1]])
    try:
        with section():
            task = tasks.build_task(kept)
    except Exception:
        _build_sections(copy.deepcopy(preliminary(config)))
        raise  # no section is at fault alone
    kept["dataset"].get("train", {}).get("phases_per_epoch")  # now unused with ``test_only``
    for path, noted in watched.items():
        unread = [name for name in noted.data if name not in noted.asked]
        given = getattr(config, "settings", ())
        with section(*path):
            check_known([n for n in unread if (*path, n) in given], noted.asked, dotted(path))
        if unread:
            names, known = ", ".join(map(repr, unread)), ", ".join(noted.asked)
            text = f"{noted.data['name']!r} does not read {names}; it reads {known}"
            logging.warning(f"{dotted(path)}: {text}")
    task.prepare_optimizer = section("optimizer")(task.prepare_optimizer)
    task._config = copy.deepcopy(dict(config))  # without what recorded
    resolve_when_prepared(task, config)
    return task


def _build_sections(config: dict[str, Any]) -> None:
    """Builds each section alone, the data last, so that the error comes from the one at fault."""
    if not config.get("test_only"):
        optimizer = config["optimizer"]
        phases = config["dataset"]["train"].get("phases_per_epoch", 1)
        optimizer["num_epochs"] = config["num_epochs"] * phases
        with section("optimizer"):
            if "param_groups" in optimizer:
                build_param_group_builder(optimizer.pop("param_groups"))
            optim.build_optimizer(optimizer)
            optim.build_optimizer_schedulers(optimizer)
    section("loss")(losses.build_loss)(config["loss"])
    for name, meter in config.get("meters", {}).items():
        section("meters", name)(meters.build_meters)({name: meter})
    for i, head in enumerate(config["model"].get("heads", [])):
        head = {key: value for key, value in head.items() if key != "fork_block"}
        section("model", "heads", i)(heads.build_head)(head)
    section("model")(models.build_model)(config["model"])
    for i, hook in enumerate(config.get("hooks") or []):
        section("hooks", i)(hooks.build_hook)(hook)
    task = tasks.ClassificationTask()
    section("use_gpu")(task.set_use_gpu)(config.get("use_gpu"))
    section("amp_args")(task.set_amp_args)(config.get("amp_args"))
    for phase, data in config["dataset"].items():
        section("dataset", phase)(dataset.build_dataset)(data)


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
