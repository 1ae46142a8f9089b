"""Makes a Classy Vision task read ``param_groups``."""

import logging
from collections.abc import Mapping
from typing import Any

from classy_vision.optim import ClassyOptimizer
from classy_vision.optim.classy_optimizer import OptionsView
from torch import nn

from classy_gc.custom_imports import import_custom
from classy_gc.optim.stock import check_stock_optimizer, group_options
from classy_gc.options import without_comments
from classy_gc.param_groups.build import build_param_groups, freeze_trunk
from classy_gc.param_groups.builder import ParamGroupBuilder, build_param_group_builder
from classy_gc.param_groups.tables import short_table
from classy_gc.tasks.schedules import catch_up, preliminary, resolve_when_prepared
from classy_gc.tasks.values import check_values


class _OptionsView(OptionsView):
    """Shows one learning rate, the largest: Classy Vision's hooks cannot print or plot more."""

    def __getattr__(self, name: str) -> Any:
        value = super().__getattr__(name)
        return max(value) if name == "lr" and isinstance(value, list) else value


class ParamwiseMixin:
    """Base class before a ``ClassificationTask``: reads the optimizer's ``param_groups``.

    Without ``param_groups`` in the optimizer's config, the task acts like the stock one. With them,
    ``optimizer.options_view.lr`` is the largest rate of all groups.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.param_group_builder: ParamGroupBuilder | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ParamwiseMixin":
        """Instantiates the task from a configuration, which is not changed.

        Args:
            config: as for the stock task, with ``param_groups`` in ``optimizer`` as in
                :func:`classy_gc.param_groups.build_param_group_builder`; lengths of a ``composite``
                schedule may be in steps and epochs; ``custom_imports`` are imported, and keys that
                begin with ``_`` are comments.

        Raises:
            ValueError: an option that the builder refuses, a module that cannot be imported, a GC
                option that a stock optimizer would ignore, or a meaningless value, such as a string
                instead of true or false.
        """
        import_custom(config)
        config = without_comments(config)
        check_values(config)
        if "optimizer" not in config or config.get("test_only", False):
            return super().from_config(config)
        check_stock_optimizer(config["optimizer"])
        optimizer, builder = dict(preliminary(config)["optimizer"]), None
        if "param_groups" in optimizer:  # refused before the data are loaded
            builder = build_param_group_builder(optimizer.pop("param_groups"))
        task = super().from_config({**config, "optimizer": optimizer})
        task.set_param_group_builder(builder)
        task._config = config
        resolve_when_prepared(task, config)
        return task

    def set_param_group_builder(self, builder: ParamGroupBuilder | None) -> "ParamwiseMixin":
        """Sets the builder of the parameter groups.

        Args:
            builder: None for the stock groups.
        """
        self.param_group_builder = builder
        return self

    def set_classy_state(self, state: dict[str, Any]) -> None:
        """Resumes from a checkpoint, with the schedules of this config from the first step on.

        Args:
            state: from ``get_classy_state``.
        """
        super().set_classy_state(state)
        if not self.test_only:
            catch_up(self)

    def prepare_optimizer(
        self, optimizer: ClassyOptimizer, model: nn.Module, loss: nn.Module | None = None
    ) -> None:
        """Gives the optimizer its parameter groups, and logs a table of them.

        Args:
            optimizer: of the task.
            model: of the task.
            loss: of the task (default: None).
        """
        if getattr(self, "freeze_trunk", False):  # fine_tuning freezes after the groups are built
            freeze_trunk(model)
        builder, phases = self.param_group_builder, self.train_phases_per_epoch or 1
        if builder is None:
            super().prepare_optimizer(optimizer, model, loss)
            return
        schedules, epochs = self.optimizer_schedulers, self.num_epochs * phases
        groups = build_param_groups(
            builder, model, optimizer, loss, schedules, epochs, self.bn_weight_decay
        )
        table = short_table(groups, group_options(optimizer)[0])
        logging.info(f"{builder.label()}:\n{table}")
        for group in groups:
            del group["param_names"]
        optimizer.set_param_groups(groups)
        optimizer.options_view = _OptionsView(optimizer)
