"""``training_curves``: loss, meters and learning rate of every phase, and a picture of them."""

import logging
from pathlib import Path
from typing import Any, ClassVar

from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import register_hook

from classy_gc.hooks.phase_record import FOLDER, PhaseRecordHook, flat_meters
from classy_gc.options import TEXT
from classy_gc.plots import new_figure, plain, save, tidy

_COLORS = {"train": "#1f77b4", "test": "#d95f02"}


@register_hook("training_curves")
class TrainingCurvesHook(PhaseRecordHook):
    """``training_curves``: keeps a history of the phases and draws it as ``curves.png``.

    ``state.history`` is a list with one dict per phase, see
    :meth:`classy_gc.hooks.phase_record.PhaseRecordHook.record`. It is part of every checkpoint, so
    a resumed run draws the whole curve. A test-only run has one point and draws nothing, so the
    picture of a training stays. Without matplotlib there is a log line instead.

    Args:
        folder (str or Path): where ``curves.png`` goes; created if necessary (default: ``.``)
        title (str): of the picture (default: none)

    Raises:
        ValueError: an unknown key, a folder that is not a local path, or a title that is not a
            string.

    Example:
        >>> from classy_vision.hooks import build_hook
        >>> build_hook({"name": "training_curves", "title": "digits"}).state.history
        []
    """

    OPTIONS: ClassVar = {"folder": (".", FOLDER), "title": ("", TEXT)}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.path = Path(self.folder) / "curves.png"
        self.state.history = []

    def on_phase_end(self, task: Any) -> None:
        """Appends the phase to the history."""
        record = self.record(task)
        if record:
            self.state.history.append(record)

    def on_end(self, task: Any) -> None:
        """Writes the picture, on the primary rank."""
        if getattr(task, "test_only", False) or not is_primary():
            return
        figure = self.figure()
        if figure:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save(figure, self.path)

    def figure(self) -> Any:
        """Draws the history: a panel for the loss, each meter and the learning rate.

        Returns:
            A ``matplotlib`` Figure; None without a history or without matplotlib, which is logged.
        """
        panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
        for entry in self.state.history:
            values = {"loss": entry["loss"], **flat_meters(entry["meters"])}
            if "lr" in entry["options"]:
                values["learning rate"] = entry["options"]["lr"]
            for name, value in values.items():
                curve = panels.setdefault(name, {}).setdefault(entry["phase"], ([], []))
                curve[0].append(entry["epoch"])
                curve[1].append(value)
        if not panels:
            return None
        try:
            figure = new_figure(4.4 * len(panels), 3.6)
        except ImportError:
            logging.info("no curves.png without matplotlib: pip install 'classy-gc[examples]'")
            return None
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, curves) in zip(all_axes, panels.items(), strict=True):
            # A learning rate is that of the last step of an epoch.
            style = {"drawstyle": "steps-pre"} if name == "learning rate" else {}
            for phase, (epochs, values) in curves.items():
                label = f"{phase}  {values[-1]:.4g}"
                axes.plot(epochs, values, ".-", color=_COLORS[phase], label=label, **style)
            losses = [value for _, values in curves.values() for value in values]
            if name == "loss" and min(losses) > 0 and max(losses) > 20 * min(losses):
                axes.set_yscale("log")
            axes.set_title(plain(name))
            axes.legend(frameon=False)
            tidy(axes, epochs=True)
        figure.suptitle(plain(self.title))
        return figure
