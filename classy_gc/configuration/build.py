"""Builds the task of a config, and names the section of an error or an unread key."""

import copy
import functools
import logging
import operator
from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Any

from classy_vision import tasks
from classy_vision.dataset import build_dataset
from classy_vision.heads import build_head
from classy_vision.hooks import build_hook
from classy_vision.losses import build_loss
from classy_vision.meters import build_meters
from classy_vision.models import build_model
from classy_vision.optim import build_optimizer, build_optimizer_schedulers
from classy_vision.tasks import ClassificationTask, ClassyTask

from classy_gc.configuration.errors import section
from classy_gc.configuration.load import Keys
from classy_gc.configuration.schema import named_sections
from classy_gc.options import check_known, dotted
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


def build_task(config: Mapping[str, Any]) -> ClassyTask:
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
    classifies = issubclass(tasks.TASK_REGISTRY[config["name"]], ClassificationTask)
    kept = copy.deepcopy(preliminary(config) if classifies else dict(config))
    watched = _watch(kept) if classifies else {}
    try:
        with section():
            task = tasks.build_task(kept)
    except Exception:
        if classifies:
            _build_sections(copy.deepcopy(preliminary(config)))
        raise  # no section is at fault alone
    for path, noted in watched.items():
        # A training config with ``test_only`` also has this key, now unused.
        known = [*noted.asked, *["phases_per_epoch"] * (path == ("dataset", "train"))]
        unread = [name for name in noted.data if name not in known]
        given = getattr(config, "settings", ())
        with section(*path):
            check_known([n for n in unread if (*path, n) in given], known, dotted(path))
        if unread:
            logging.warning(
                f"{dotted(path)}: {noted.data['name']!r} does not read "
                f"{', '.join(map(repr, unread))}; it reads {', '.join(known)}"
            )
    if hasattr(task, "prepare_optimizer"):
        task.prepare_optimizer = section("optimizer")(task.prepare_optimizer)
    if classifies:
        task._config = copy.deepcopy(dict(config))  # without what recorded
        resolve_when_prepared(task, config)
    return task


def _watch(config: dict[str, Any]) -> dict[Keys, _Section]:
    """Replaces sections by ones that record what is read; returns these by their paths."""
    watched = {}
    for path, classes in reversed([*named_sections(config)]):
        parent = functools.reduce(operator.getitem, path[:-1], config)
        cls = classes[parent[path[-1]]["name"]]
        if cls.__module__.startswith("classy_vision."):
            watched[path] = parent[path[-1]] = _Section(parent[path[-1]])
    return watched


def _build_sections(config: dict[str, Any]) -> None:
    """Builds each section alone, the data last, so that the error comes from the one at fault."""
    if not config.get("test_only"):
        optimizer = config["optimizer"]
        phases = config["dataset"]["train"].get("phases_per_epoch", 1)
        optimizer["num_epochs"] = config["num_epochs"] * phases
        with section("optimizer"):
            if "param_groups" in optimizer:
                build_param_group_builder(optimizer.pop("param_groups"))
            build_optimizer(optimizer)
            build_optimizer_schedulers(optimizer)
    task, model, meters = ClassificationTask(), config["model"], config.get("meters", {})
    heads = [{k: x[k] for k in x if k != "fork_block"} for x in model.get("heads", [])]
    builds: list[tuple[Keys, Callable[[Any], Any], Any]] = [
        (("loss",), build_loss, config["loss"]),
        *((("meters", name), build_meters, {name: meter}) for name, meter in meters.items()),
        *((("model", "heads", i), build_head, head) for i, head in enumerate(heads)),
        (("model",), build_model, model),
        *((("hooks", i), build_hook, hook) for i, hook in enumerate(config.get("hooks") or [])),
        (("use_gpu",), task.set_use_gpu, config.get("use_gpu")),
        (("amp_args",), task.set_amp_args, config.get("amp_args")),
        *((("dataset", phase), build_dataset, x) for phase, x in config["dataset"].items()),
    ]
    for path, build, part in builds:
        with section(*path):
            build(part)
