"""Builds the task of a config; names the section of an error, and of a key that nobody reads."""

import copy
import logging
from collections import UserDict
from collections.abc import Mapping
from typing import Any

from classy_vision import dataset, heads, hooks, losses, meters, models, optim, tasks

from classy_gc.configuration.errors import section
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
    # Counts as read: a training config that becomes ``test_only`` keeps this key, then unused.
    kept["dataset"].get("train", {}).get("phases_per_epoch")
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
    with section("loss"):
        losses.build_loss(config["loss"])
    for name, meter in config.get("meters", {}).items():
        with section("meters", name):
            meters.build_meters({name: meter})
    for i, head in enumerate(config["model"].get("heads", [])):
        head = {key: value for key, value in head.items() if key != "fork_block"}
        with section("model", "heads", i):
            heads.build_head(head)
    with section("model"):
        models.build_model(config["model"])
    for i, hook in enumerate(config.get("hooks") or []):
        with section("hooks", i):
            hooks.build_hook(hook)
    task = tasks.ClassificationTask()
    with section("use_gpu"):
        task.set_use_gpu(config.get("use_gpu"))
    with section("amp_args"):
        task.set_amp_args(config.get("amp_args"))
    for phase, data in config["dataset"].items():
        with section("dataset", phase):
            dataset.build_dataset(data)
