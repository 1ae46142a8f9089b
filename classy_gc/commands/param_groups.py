"""``classy-gc param-groups``: which parameter of a config gets which options."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from classy_vision.tasks import ClassyTask, FineTuningTask, build_task

from classy_gc.commands import Parser
from classy_gc.commands.config import load_config
from classy_gc.commands.refusals import refusing
from classy_gc.custom_imports import import_from_current_folder
from classy_gc.optim.scheduled_gc import as_groups
from classy_gc.param_groups import OptimizerOptions, full_table, parameter_occurrences
from classy_gc.tasks.paramwise_fine_tuning import freeze_trunk

# So that the data of the config need not be there.
_NO_DATA = {
    "name": "synthetic_image",
    "crop_size": 1,
    "class_ratio": 0.5,
    "num_samples": 1,
    "seed": 0,
    "batchsize_per_replica": 1,
    "use_shuffle": False,
    "transforms": [],
}


class _Recorder:
    """Stands in for the optimizer of a task, and keeps the groups that it is given."""

    def __init__(self) -> None:
        self.groups: list[dict[str, Any]] = []

    def set_param_groups(self, param_groups: Any, **kwargs: Any) -> None:
        self.groups = [{**group, **kwargs} for group in as_groups(param_groups)]


def _table(task: ClassyTask) -> str:
    model, loss, optimizer = task.base_model, task.base_loss, task.optimizer
    named = [*parameter_occurrences(model), *parameter_occurrences(loss, "loss")]
    if getattr(task, "param_group_builder", None) is not None:
        groups, options = task._groups(optimizer, model, loss)
    else:
        if isinstance(task, FineTuningTask) and task.freeze_trunk:
            freeze_trunk(model)
        task.optimizer = recorder = _Recorder()
        task.prepare_optimizer(optimizer=recorder, model=model, loss=loss)
        groups, options = recorder.groups, OptimizerOptions(optimizer)
        names = {id(p.parameter): p.full_name for p in reversed(named)}
        for group in groups:
            group["param_names"] = [names[id(p)] for p in group["params"]]
    return full_table(groups, options, {p.full_name: p.module for p in named})


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a row a parameter, and trains nothing; the data need not be there.

    Args:
        argv: the flags (default: None, those of the process).

    Returns:
        0. Bad input exits with code 2 and one line on stderr.
    """
    parser = Parser(
        prog="classy-gc param-groups",
        description="Prints which parameter of a config gets which options; trains nothing.",
    )
    parser.add_argument("--config_file", required=True, help="of any task")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    import_from_current_folder()
    with refusing(parser):
        config = load_config(args.config_file)
        train = dict(_NO_DATA)
        train["phases_per_epoch"] = config["dataset"].get("train", {}).get("phases_per_epoch", 1)
        config |= {"dataset": {"train": train}, "test_only": False, "hooks": []}
        config |= {"use_gpu": False, "amp_args": None}
        table = _table(build_task(config))
    print(table)
    return 0
