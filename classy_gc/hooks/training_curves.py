"""``training_curves``: loss, meters and learning rate of every phase, and a picture of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

from classy_vision.generic.distributed_util import is_primary
from classy_vision.hooks import register_hook

from classy_gc.files import atomic_write
from classy_gc.hooks.phase_record import FOLDER, PhaseRecordHook
from classy_gc.options import TEXT
from classy_gc.plots import new_figure, plain, tidy

_COLORS = {"train": "#1f77b4", "test": "#d95f02"}
_DASHES = ("-", "--", ":", "-.")


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

    def __init__(self, folder: str | Path = ".", title: str = "") -> None:
        super().__init__(folder=folder, title=title)
        self.path = Path(folder) / "curves.png"
        self.state.history = []

    def on_phase_end(self, task: Any) -> None:
        """Appends the phase to the history."""
        record = self.record(task)
        if record:
            self.state.history.append(record)

    def on_end(self, task: Any) -> None:
        """Writes the picture, on the primary rank."""
        tested = getattr(task, "test_only", False)
        if tested or not is_primary() or not self.state.history:
            return
        try:
            figure = self.figure()
        except ImportError:
            logging.info("no curves.png without matplotlib: pip install 'classy-gc[examples]'")
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as file:
            figure.savefig(file, format="png", dpi=150)

    def series(self, phase: str, *keys: str) -> tuple[list[float], list[float]]:
        """Epochs and values at ``keys`` in the history of ``phase``.

        Example:
            >>> hook = TrainingCurvesHook()
            >>> hook.state.history.append({"phase": "train", "epoch": 1.0, "loss": 0.5})
            >>> hook.series("train", "loss")
            ([1.0], [0.5])
        """
        epochs, values = [], []
        for entry in self.state.history:
            value: Any = entry if entry["phase"] == phase else {}
            for key in keys:
                value = (value or {}).get(key)
            if value is not None:
                epochs.append(entry["epoch"])
                values.append(value)
        return epochs, values

    def figure(self) -> Any:
        """Draws the history.

        Returns:
            A ``matplotlib`` Figure.

        Raises:
            ImportError: matplotlib is not installed.
        """
        history = self.state.history
        meters = {m: list(names) for entry in history for m, names in entry["meters"].items()}
        lr = self.series("train", "options", "lr")
        columns = 1 + len(meters) + bool(lr[0])
        figure = new_figure(4.4 * columns, 3.6)
        all_axes = figure.subplots(1, columns, squeeze=False)[0]
        self._panel(all_axes[0], "loss", [("loss",)], ".4f")
        for axes, (meter, names) in zip(all_axes[1:], meters.items(), strict=False):
            lines = [("meters", meter, name) for name in names]
            values = [
                v for keys in lines for phase in _COLORS for v in self.series(phase, *keys)[1]
            ]
            title = f"{meter} ({names[0]})" if len(names) == 1 else meter
            self._panel(axes, title, lines, ".2%" if all(0 <= v <= 1 for v in values) else ".4g")
        if lr[0]:
            all_axes[-1].plot(*lr, color="#4d4d4d", **self._style())
            all_axes[-1].set_title("learning rate")
            all_axes[-1].set_ylim(bottom=0)
        for axes in all_axes:
            tidy(axes, epochs=True)
        figure.suptitle(plain(self.title))
        return figure

    def _style(self) -> dict[str, Any]:
        few = len(self.state.history) <= 60
        return {"linewidth": 1.8, "marker": "o" if few else None, "markersize": 3.5}

    def _panel(self, axes: Any, title: str, lines: list[tuple[str, ...]], final: str) -> None:
        from matplotlib.ticker import PercentFormatter

        style = self._style()
        values = []
        for i, keys in enumerate(lines):
            for phase, color in _COLORS.items():
                x, y = self.series(phase, *keys)
                if not x:
                    continue
                label = phase if len(lines) == 1 else f"{phase} {keys[-1]}"
                label += f"  {format(y[-1], final)}"
                axes.plot(x, y, _DASHES[i % 4], color=color, label=label, **style)
                values += y
        axes.set_title(title)
        axes.legend(frameon=False)
        if title == "loss" and min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
        if final.endswith("%"):
            axes.yaxis.set_major_formatter(PercentFormatter(1))
