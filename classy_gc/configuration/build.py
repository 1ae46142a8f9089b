"""Builds the task of a config, and names the section of an error or an unread key."""

from __future__ import annotations

import copy
import logging
from collections import UserDict
from collections.abc import Mapping
from typing import Any

from classy_vision import tasks
from classy_vision.dataset import DATASET_REGISTRY, build_dataset
from classy_vision.heads import HEAD_REGISTRY, build_head
from classy_vision.hooks import HOOK_REGISTRY, build_hooks
from classy_vision.losses import LOSS_REGISTRY, build_loss
from classy_vision.meters import build_meters
from classy_vision.models import MODEL_REGISTRY, build_model
from classy_vision.optim import build_optimizer, build_optimizer_schedulers
from classy_vision.tasks import ClassificationTask, ClassyTask

from classy_gc.configuration.errors import section
from classy_gc.options import check_known, dotted, registered_name
from classy_gc.param_groups import build_param_group_builder
from classy_gc.tasks.warm_up import preliminary, resolve_when_prepared


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

    def __deepcopy__(self, memo: dict[int, Any]) -> _Section:
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
    watched = _watch(kept)
    try:
        with section():
            task = tasks.build_task(kept)
    except Exception:
        if classifies:
            _build_sections(copy.deepcopy(preliminary(config)))
        raise  # no section is at fault alone
    for path, parent, noted in watched:
        # A training config with ``test_only`` also has this key, now unused.
        known = [*noted.asked, *["phases_per_epoch"] * (path == ("dataset", "train"))]
        unread = [name for name in noted.data if name not in known]
        parent[path[-1]] = noted.data  # for the task, which keeps its config
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
        resolve_when_prepared(task, config)
    return task


def _watch(config: dict[str, Any]) -> list[tuple[tuple[Any, ...], Any, _Section]]:
    """Replaces sections by ones that record what is read; returns path, parent, section of each."""
    if not issubclass(tasks.TASK_REGISTRY[config["name"]], ClassificationTask):
        return []
    heads, datasets = config["model"].get("heads", []), config["dataset"]
    places = [
        *((("dataset", phase), datasets, DATASET_REGISTRY) for phase in datasets),
        (("loss",), config, LOSS_REGISTRY),
        (("model",), config, MODEL_REGISTRY),
        *((("model", "heads", i), heads, HEAD_REGISTRY) for i in range(len(heads))),
    ]
    watched = []
    for path, parent, registry in places:
        cls = registry.get(parent[path[-1]]["name"])
        if cls is not None and cls.__module__.startswith("classy_vision."):
            noted = parent[path[-1]] = _Section(parent[path[-1]])
            watched.append((path, parent, noted))
    return watched


def _build_sections(config: dict[str, Any]) -> None:
    """Builds each section alone, the data last, so that the error comes from the one at fault."""
    task = ClassificationTask()
    if not config.get("test_only"):
        optimizer = config["optimizer"]
        phases = config["dataset"]["train"].get("phases_per_epoch", 1)
        optimizer["num_epochs"] = config["num_epochs"] * phases
        if "param_groups" in optimizer:
            with section("optimizer", "param_groups"):
                build_param_group_builder(optimizer.pop("param_groups"))
        with section("optimizer"):
            build_optimizer(optimizer)
            build_optimizer_schedulers(optimizer)
    with section("loss"):
        build_loss(config["loss"])
    for name, meter in config.get("meters", {}).items():
        with section("meters", name):
            build_meters({name: meter})
    for i, head in enumerate(config["model"].get("heads", [])):
        with section("model", "heads", i):
            build_head({key: value for key, value in head.items() if key != "fork_block"})
    with section("model"):
        build_model(config["model"])
    for i, hook in enumerate(config.get("hooks") or []):
        with section("hooks", i):
            build_hooks([hook])
    for key, setter in (("use_gpu", task.set_use_gpu), ("amp_args", task.set_amp_args)):
        with section(key):
            setter(config.get(key))
    for phase, dataset in config["dataset"].items():
        with section("dataset", phase):
            build_dataset(dataset)


def label_hooks(task: ClassyTask, config: Mapping[str, Any]) -> None:
    """Makes errors of hooks at the start name their section.

    Args:
        task: with all of its hooks.
        config: of the task. It may lack hooks that the command adds; the errors of a hook without
            a registered name do not name a section.
    """
    names = [hook["name"] for hook in config.get("hooks") or []]
    for hook in task.hooks:
        if type(hook) not in HOOK_REGISTRY.values():
            continue
        name = registered_name(type(hook), HOOK_REGISTRY)
        path = ("hooks", names.index(name)) if name in names else (f"hook {name!r}",)
        hook.on_start = section(*path)(hook.on_start)
