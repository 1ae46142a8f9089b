"""Checks what a Classy Vision config may hold, with one line on what is wrong."""

import inspect
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from classy_vision import dataset, heads, hooks, losses, meters, models, optim
from classy_vision.tasks import TASK_REGISTRY, ClassificationTask, FineTuningTask
from torch.nn.modules import loss

import classy_gc.dataset
import classy_gc.hooks  # noqa: F401  these imports register the names of configs
from classy_gc.configuration.errors import Keys, section
from classy_gc.optim.stock import check_stock_optimizer
from classy_gc.options import OptionError, check_known, dotted
from classy_gc.tasks import ParamwiseClassificationTask, ParamwiseFineTuning
from classy_gc.tasks.values import check_values

_LOSSES = ChainMap(
    losses.LOSS_REGISTRY, {k: v for k, v in vars(loss).items() if k.endswith("Loss")}
)

# The keys that the `from_config` of Classy Vision's own tasks or this package reads. Classy Vision
# does not check them.
_REQUIRED = ("num_epochs", "dataset", "loss", "model")
_OTHERS = ("name", "custom_imports", "hooks", "meters", "optimizer", "test_only", "use_gpu")
_TRAINING = ("amp_args", "bn_weight_decay", "clip_grad_norm", "mixup", "test_phase_period")
_PROCESSES = ("distributed", "simulated_global_batchsize", "use_sharded_ddp")
_KEYS = (*_REQUIRED, *_OTHERS, *_TRAINING, *_PROCESSES)
_CHECKPOINT = ("pretrained_checkpoint", "pretrained_checkpoint_load_strict")
_FINE_TUNING_KEYS = (*_CHECKPOINT, "reset_heads", "freeze_trunk")
_PARAMETERS = inspect.signature(ClassificationTask.set_distributed_options).parameters
_CUTMIX = ("cutmix_alpha", "cutmix_minmax", "switch_prob")
_SECTION_KEYS = {
    "distributed": ("broadcast_buffers", *list(_PARAMETERS)[2:]),  # instead of self and …_mode
    "mixup": ("alpha", "num_classes", "mode", "mix_prob", "label_smoothing", *_CUTMIX),
}

_STOCK = (ClassificationTask, FineTuningTask)  # their paramwise_… read param_groups
_TASKS = (*_STOCK, ParamwiseClassificationTask, ParamwiseFineTuning)


def check_config(config: Any) -> None:
    """Refuses missing keys, keys that are not read, and unregistered names.

    The options of a dataset, a model and so on are left to the ``from_config`` of each.

    Args:
        config: of a task.

    Raises:
        ValueError: with the key, its value, and what is allowed.

    Example:
        >>> check_config({"name": "clasification_task"})
        Traceback (most recent call last):
        classy_gc.options.OptionError: unknown name 'clasification_task' in the config, did ...
    """
    _check_name(config, (), TASK_REGISTRY)
    check_values(config)
    task = TASK_REGISTRY[config["name"]]
    if not issubclass(task, ClassificationTask):
        return  # your own task reads its own config
    if task in _TASKS:  # your own may read more
        with section():
            more = _FINE_TUNING_KEYS if issubclass(task, FineTuningTask) else ()
            check_known(config, [*_KEYS, *more], "the config")
        for name, keys in _SECTION_KEYS.items():
            with section(name):
                check_known(config.get(name) or {}, keys, name)
    if config.get("mixup") is not None:
        with section("mixup"):
            check_keys(config["mixup"], "mixup", ["alpha", "num_classes"])
    trained = not config.get("test_only", False)
    check_keys(config, "the config", [*_REQUIRED, *["optimizer"] * trained])
    with section("dataset"):
        check_keys(config["dataset"], "dataset", ["train" if trained else "test"])
        check_known(config["dataset"], ["train", "test"], "dataset")
    for path, _, registry in named_sections(config):
        _check_name(config, path, registry)
    if trained:
        _check_phases(config)
        optimizer = _check_name(config, ("optimizer",), optim.OPTIMIZER_REGISTRY)
        with section("optimizer"):
            _check_settings(config, optimizer)
            check_stock_optimizer(optimizer)
            if task in _STOCK and "param_groups" in optimizer:
                text = f"'param_groups' in optimizer: task 'paramwise_{config['name']}' has it"
                raise OptionError(f"unknown key {text}", "param_groups")
    with section("meters"):
        _check_meters(config.get("meters", {}))
    for i, _ in enumerate(config.get("hooks") or []):
        hook = _check_name(config, ("hooks", i), hooks.HOOK_REGISTRY)
        averages = hook["name"] == "ema_model_weights"
        if averages and hook.get("device", "gpu") == "gpu" and not torch.cuda.is_available():
            raise OptionError(f"hooks[{i}].device must be cpu without CUDA, not 'gpu'", "hooks", i)


def named_sections(config: Mapping[str, Any]) -> Iterator[tuple[Keys, Any, Mapping[str, type]]]:
    """The sections of data, loss, model and heads.

    Args:
        config: of a classification task.

    Yields:
        The path of each, what holds it under its last key, and the classes that it can name.
    """
    for phase in config["dataset"]:
        yield ("dataset", phase), config["dataset"], dataset.DATASET_REGISTRY
    yield ("loss",), config, _LOSSES
    yield ("model",), config, models.MODEL_REGISTRY
    attached = config["model"].get("heads", [])
    if not isinstance(attached, list):
        raise OptionError(f"model.heads must be a list, not {attached!r}", "model", "heads")
    for i in range(len(attached)):
        yield ("model", "heads", i), attached, heads.HEAD_REGISTRY


def _check_phases(config: Mapping[str, Any]) -> None:
    per_epoch = config["dataset"]["train"].get("phases_per_epoch") or 1
    if isinstance(per_epoch, int) and config["num_epochs"] * per_epoch % 1:
        # Classy Vision would also train the rest of the last phase.
        text = f"num_epochs must be whole phases, {per_epoch} an epoch, not {config['num_epochs']}"
        raise OptionError(text, "num_epochs")


def _check_settings(config: Mapping[str, Any], optimizer: Mapping[str, Any]) -> None:
    """Refuses a set option that a schedule drives, so that the value would never act."""
    schedules = optimizer.get("param_schedulers")
    for *above, option in getattr(config, "settings", ()):
        driven = isinstance(schedules, Mapping) and option in schedules
        if driven and above in (["optimizer"], ["optimizer", "base_optimizer"]):
            text = f"does nothing: the schedule optimizer.param_schedulers.{option} drives it"
            keys = ", ".join(schedules[option])
            raise ValueError(f"{dotted((*above, option))} {text}; set one of its keys: {keys}")


def _check_meters(given: Any) -> None:
    check_keys(given, "meters")
    check_known(given, meters.METER_REGISTRY, "meters", "meter")
    for name, meter in given.items():
        with section("meters", name):
            check_keys(meter, f"meters.{name}")
            cls = meters.METER_REGISTRY[name]
            if cls.__module__.startswith("classy_vision."):  # the keys of others are not known
                check_known(meter, inspect.signature(cls).parameters, f"meter {name!r}")


def check_keys(section: Any, label: str, required: Iterable[str] = ()) -> None:
    """Raises a ValueError for a section that is not an object or lacks a key.

    Args:
        section: of a config.
        label: names the section in messages.
        required: keys that it must have (default: none)
    """
    if not isinstance(section, Mapping):
        raise ValueError(f"{label} must be an object with keys, not {section!r}")
    for key in required:
        if key not in section:
            raise ValueError(f"missing key {key!r} in {label}")


def _check_name(config: Any, path: Keys, known: Iterable[str]) -> Mapping[str, Any]:
    """A section; one without a name, or with an unregistered one, is refused."""
    label = dotted(path) or "the config"
    with section(*path):
        for key in path:
            config = config[key]
        check_keys(config, label, ["name"])
        with section(*path, "name"):
            check_known([config["name"]], sorted(known), label, "name")
    return config
