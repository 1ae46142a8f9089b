"""The picture of ``classy-gc compare``: every arm over the epochs, mean and spread."""

from __future__ import annotations

import collections
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from classy_gc.commands.compare.results import Phase
from classy_gc.hooks.phase_record import flat_meters
from classy_gc.plots import COLORS, new_figure, tidy

_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))

# Of text of the default size, on average, and of a line with its gap and handle in a legend.
_INCHES_PER_LETTER = 0.085
_INCHES_PER_HANDLE = 0.9

Arms = Mapping[str, Sequence[Sequence[Phase]]]  #: arm: the phases of each of its runs


def picture(families: Mapping[str, Arms], meter: str | None, title: str) -> Any:
    """Train loss, a test meter and the scheduled options over the epochs: the mean of each arm
    over its runs, with a band of one standard deviation.

    Args:
        families: a row each: its title, and its arms.
        meter: of the test phases, as ``flat_meters`` names it; None for their loss.
        title: of the picture.

    Returns:
        A ``matplotlib`` Figure.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

    def train_loss(phase: Phase) -> float | None:
        return phase["loss"] if phase["phase"] == "train" else None

    def test_result(phase: Phase) -> float | None:
        if phase["phase"] != "test":
            return None
        return phase["loss"] if meter is None else flat_meters(phase["meters"]).get(meter)

    options = _options_that_change(families)
    columns = 2 + len(options)
    width = 4.4 * columns
    longest = int((width - _INCHES_PER_HANDLE) / _INCHES_PER_LETTER)
    families = {
        textwrap.fill(family, longest): {textwrap.fill(k, longest): v for k, v in arms.items()}
        for family, arms in families.items()
    }
    legends = {family: _legend(list(arms), columns, width) for family, arms in families.items()}
    legend_lines = max(lines for _, lines in legends.values())
    title_lines = max(family.count("\n") + 1 for family in families) * (len(families) > 1)
    row_height = 3.4 + 0.25 * legend_lines + 0.3 * title_lines
    figure = new_figure(width, row_height * len(families) + 0.4)
    figure.suptitle(title)
    rows = figure.subfigures(len(families), 1, squeeze=False)[:, 0]
    for row, (family, arms) in zip(rows, families.items(), strict=True):
        if len(families) > 1:
            row.suptitle(family, fontsize="medium", fontweight="bold")
        loss_axes, test_axes, *option_axes = row.subplots(1, columns)
        means, _ = _draw(loss_axes, arms, train_loss)
        loss_axes.set_title("train loss")
        if min(means, default=0) > 0:
            loss_axes.set_yscale("log")
            loss_axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            loss_axes.yaxis.set_major_formatter("{x:g}")
            loss_axes.yaxis.set_minor_formatter(NullFormatter())
        means, band = _draw(test_axes, arms, test_result)
        test_axes.set_title(f"test {meter or 'loss'}")
        if meter and all(0 <= mean <= 1 for mean in means):
            test_axes.yaxis.set_major_formatter(PercentFormatter(1))
        if meter and len(set(band)) > 1:
            # Or how the arms differ at the end would be lost below the rise of the beginning.
            margin = 0.05 * (max(band) - min(band))
            test_axes.set_ylim(min(band) - margin, max(band) + margin)
        for axes, option in zip(option_axes, options, strict=True):
            means, _ = _draw(axes, arms, lambda phase, option=option: phase["options"].get(option))
            if min(means, default=0) >= 0:
                axes.set_ylim(bottom=0)
            axes.set_title("learning rate" if option == "lr" else option)
        for axes in (loss_axes, test_axes, *option_axes):
            tidy(axes, epochs=True)
        handles, names = loss_axes.get_legend_handles_labels()
        row.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=legends[family][0],
            frameon=False,
            handlelength=3,
        )
    return figure


def _legend(names: Sequence[str], columns: int, width: float) -> tuple[int, int]:
    """As many columns as fit side by side, and the lines that it then has."""
    longest = max(len(line) for name in names for line in name.splitlines())
    fitting = int(width / (_INCHES_PER_HANDLE + _INCHES_PER_LETTER * longest))
    columns = max(1, min(columns, fitting))
    return columns, -(-len(names) // columns) * max(name.count("\n") + 1 for name in names)


def _options_that_change(families: Mapping[str, Arms]) -> list[str]:
    """The learning rate, and what else changes during a run: other options are in the names."""
    runs = [run for arms in families.values() for arm in arms.values() for run in arm]
    values = [
        (option, {phase["options"].get(option) for phase in run if phase["phase"] == "train"})
        for run in runs
        for option in {key: None for phase in run for key in phase["options"]}
    ]
    changing = (option for option, seen in values if option == "lr" or len(seen) > 1)
    return list(dict.fromkeys(changing))


def _draw(
    axes: Any, arms: Arms, value: Callable[[Phase], float | None]
) -> tuple[list[float], list[float]]:
    """Draws a line and a band for each arm.

    Returns the means, and the ends of the bands after the first quarter of the epochs; those of
    a run that diverged are in neither.
    """
    means, band = [], []
    for i, (name, runs) in enumerate(arms.items()):
        by_epoch = collections.defaultdict(list)
        for phase in (phase for run in runs for phase in run):
            if (y := value(phase)) is not None:
                by_epoch[phase["epoch"]].append(y)
        if not by_epoch:
            continue
        epochs = sorted(by_epoch)
        mean = np.array([np.mean(by_epoch[epoch]) for epoch in epochs])
        std = np.array([np.std(v, ddof=1) if len(v) > 1 else 0 for v in map(by_epoch.get, epochs)])
        style = {"color": COLORS[i % 6], "linestyle": _DASHES[(i + i // 6) % 4], "linewidth": 1.8}
        axes.plot(epochs, mean, label=name, marker="o" if len(epochs) == 1 else None, **style)
        axes.fill_between(
            epochs, mean - std, mean + std, color=style["color"], alpha=0.18, linewidth=0
        )
        late = slice(len(epochs) // 4, None)
        means += mean[np.isfinite(mean)].tolist()
        band += [x for x in [*(mean - std)[late], *(mean + std)[late]] if np.isfinite(x)]
    return means, band
