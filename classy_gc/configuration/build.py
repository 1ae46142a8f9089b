"""Tells which keys of a config nobody reads: Classy Vision passes over one that is misspelled."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from classy_vision.dataset import DATASET_REGISTRY
from classy_vision.heads import HEAD_REGISTRY
from classy_vision.losses import LOSS_REGISTRY
from classy_vision.models import MODEL_REGISTRY
from classy_vision.tasks import TASK_REGISTRY, ClassificationTask, ClassyTask, build_task


class _Section(dict[str, Any]):
    """A section of a config that notes which keys it and its copies are asked for."""

    def __init__(self, section: Mapping[str, Any], asked: dict[str, None] | None = None) -> None:
        super().__init__(section)
        self.asked = {} if asked is None else asked

    def __getitem__(self, key: str) -> Any:
        self.asked[key] = None
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked[str(key)] = None
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked[key] = None
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        self.asked[key] = None
        return super().pop(key, *default)

    # Who takes all of them passes them on, as ``**config``, to what refuses one that it lacks.
    def __iter__(self) -> Iterator[str]:
        self.asked.update(dict.fromkeys(super().keys()))
        return super().__iter__()

    def keys(self) -> Any:
        return list(self)

    def items(self) -> Any:
        return [(key, super(_Section, self).__getitem__(key)) for key in self]

    def __deepcopy__(self, memo: dict[int, Any]) -> _Section:
        return _Section({k: copy.deepcopy(v, memo) for k, v in super().items()}, self.asked)


def build_checked_task(config: Mapping[str, Any]) -> ClassyTask:
    """Classy Vision's ``build_task``, with a warning for each section with keys that are not read.

    Its own models, heads, losses and datasets take what they know out of their section, and leave
    the rest, which may be misspelled, or of no use as in a few of its example configs. What
    classes of somebody else read is theirs, and may come later.

    Args:
        config: found good by :func:`classy_gc.configuration.schema.check_config`; stays as it
            is.

    Raises:
        Exception: whatever the class of a section says of it.

    Source: https://classyvision.ai/api/tasks.html, *build_task*.

    Example:
        >>> digits = {"name": "digits", "split": "test", "batchsize_per_replica": 32}
        >>> model = {"name": "mlp", "input_dim": 192, "hidden_dims": [9], "output_dim": 10}
        >>> task = build_checked_task({
        ...     "name": "classification_task",
        ...     "num_epochs": 1,
        ...     "test_only": True,
        ...     "dataset": {"test": {**digits, "use_shuffle": False}},
        ...     "loss": {"name": "CrossEntropyLoss"},
        ...     "model": {**model, "dropuot": 0.5},
        ... })  # warns that model 'mlp' does not read 'dropuot', and of what it does
    """
    config = copy.deepcopy(dict(config))
    places = []
    if issubclass(TASK_REGISTRY[config["name"]], ClassificationTask):
        heads, datasets = config["model"].get("heads", []), config["dataset"]
        places += [(datasets, x, f"dataset.{x}", DATASET_REGISTRY) for x in datasets]
        places += [
            (config, "loss", "loss", LOSS_REGISTRY),
            (config, "model", "model", MODEL_REGISTRY),
        ]
        places += [(heads, i, f"model.heads[{i}]", HEAD_REGISTRY) for i in range(len(heads))]
    sections = []
    for parent, key, label, registry in places:
        cls = registry.get(parent[key]["name"])
        if cls is not None and cls.__module__.startswith("classy_vision."):
            section = parent[key] = _Section(parent[key])
            sections.append((parent, key, label, section))
    task = build_task(config)
    for parent, key, label, section in sections:
        # A training config with ``test_only`` has this key, of no use now, too.
        known = [*section.asked, *["phases_per_epoch"] * (label == "dataset.train")]
        unread = [repr(name) for name in dict.keys(section) if name not in known]
        parent[key] = dict(section)  # for the task, which keeps its config
        if unread:
            name = repr(parent[key]["name"])
            logging.warning(
                f"{label}: {name} does not read {', '.join(unread)}; it reads {', '.join(known)}"
            )
    return task
