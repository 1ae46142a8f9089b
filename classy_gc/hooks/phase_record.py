"""A record of each phase, for hooks that keep or write it."""

from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from classy_gc.files import has_scheme
from classy_gc.hooks.checked_hook import CheckedHook
from classy_gc.options import Rule

FOLDER = Rule("a local path", lambda v: isinstance(v, (str, Path)) and not has_scheme(v))


def scheduled_options(optimizer: Any) -> dict[str, float]:
    """The current values of ``lr`` and the scheduled options of an optimizer.

    Args:
        optimizer: a prepared ``ClassyOptimizer``.

    Returns:
        ``{option: value}``, numbers only; the largest if parameter groups differ. If a schedule of
        ``momentum`` drives the first beta, ``momentum`` is the value of that beta.

    Example:
        >>> import torch
        >>> from classy_vision.optim import build_optimizer
        >>> optimizer = build_optimizer({"name": "adam_gc", "lr": 0.5, "use_gc": True})
        >>> optimizer.set_param_groups([torch.nn.Parameter(torch.ones(2))], momentum=0.75)
        >>> scheduled_options(optimizer)
        {'lr': 0.5, 'momentum': 0.75}
    """
    names = {"lr": None}  # each option once, in order: most groups schedule the same ones
    for group in optimizer._param_group_schedulers or []:
        names |= dict.fromkeys(group)
    options = {}
    for name in names:
        values = []
        for group in optimizer.param_groups:
            if name == "momentum" and name not in group and "betas" in group:
                values.append(group["betas"][0])
            else:
                values.append(group.get(name))
        numbers = [float(value) for value in values if isinstance(value, Real)]
        if numbers:
            options[name] = max(numbers)
    return options


def mean_loss(task: Any) -> float:
    """The mean loss over the batches of a phase, which has at least one."""
    return sum(task.losses) / len(task.losses)


def meter_values(task: Any) -> dict[str, dict[str, float]]:
    """``{meter: {name: value}}`` of a task's meters, numbers only."""
    meters = {m.name: m.value for m in task.meters if isinstance(m.value, dict)}
    return {
        meter: {k: v for k, v in values.items() if isinstance(v, Real)}
        for meter, values in meters.items()
    }


def flat_meters(meters: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Meters under one name each.

    Args:
        meters: from :func:`meter_values`, or from a phase of the log.

    Example:
        >>> flat_meters({"accuracy": {"top_1": 0.97}})
        {'accuracy/top_1': 0.97}
    """
    return {f"{meter}/{name}": x for meter, values in meters.items() for name, x in values.items()}


class PhaseRecordHook(CheckedHook):
    """Base of hooks that need a record of each phase: ``on_phase_end`` calls :meth:`record`."""

    _options: dict[str, float]

    def on_step(self, task: Any) -> None:
        """Keeps the options: at the end of the phase they are already those of the next epoch."""
        if task.train:
            self._options = scheduled_options(task.optimizer)

    def record(self, task: Any) -> dict[str, Any] | None:
        """Returns the record of the phase that has just ended.

        Args:
            task: as ``on_phase_end`` gets it.

        Returns:
            ``phase`` (``train`` or ``test``), ``epoch`` (how much has been trained, in
            epochs), ``loss`` (the mean over the batches), ``meters`` (``{meter: {name:
            value}}``) and ``options`` (:func:`scheduled_options` of the last step; empty for a
            test phase); None for a phase without batches.
        """
        if not task.losses:
            return None
        return {
            "phase": task.phase_type,
            "epoch": trained_epochs(task),
            "loss": mean_loss(task),
            "meters": meter_values(task),
            "options": self._options if task.train else {},
        }


def trained_epochs(task: Any) -> float:
    """How much a task has trained, in epochs; whole ones unless ``phases_per_epoch`` is set.

    A test-only task counts the epochs of its checkpoint.
    """
    phase = task.train_phase_idx
    if getattr(task, "test_only", False) and task.checkpoint_dict:
        phase = task.checkpoint_dict["classy_state_dict"]["train_phase_idx"]
    return (phase + 1) / (task.train_phases_per_epoch or 1)
