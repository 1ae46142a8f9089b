"""The picture of ``classy-gc compare``: mean and spread of every arm over the epochs."""

from __future__ import annotations

import collections
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from classy_gc.commands.compare.results import Phase
from classy_gc.commands.compare.statistics import paired_difference
from classy_gc.hooks.phase_record import flat_meters
from classy_gc.plots import COLORS, GREY, new_figure, plain, tidy

_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))

Logs = Mapping[str, Mapping[int, Sequence[Phase]]]  #: arm: seed: the phases of its run
Value = Callable[[Phase], float | None]


def picture(families: Mapping[str, Logs], headline: str, seeds: int) -> Any:
    """Train loss, the test metric, its paired differences and the scheduled options over epochs.

    An arm is drawn as the mean over its runs, with a band of one standard deviation; a difference
    to the first arm, with the 95 % confidence interval of the paired t-test.

    Args:
        families: one row each: its title, and its arms, the baseline first.
        headline: metric of the test phases, ``final test METER`` or a loss.
        seeds: how many runs an arm should have.

    Returns:
        A ``matplotlib`` Figure.
    """
    options = _options_that_change(families)
    columns = 3 + len(options)
    rows = {}
    for family, arms in families.items():
        counts = {arm: f" ({len(runs)} of {seeds} runs)" for arm, runs in arms.items()}
        names = [arm + counts[arm] * (len(runs) < seeds) for arm, runs in arms.items()]
        names = [plain(textwrap.fill(name, 45 * columns)) for name in names]
        rows[family] = dict(zip(names, arms.values(), strict=True))
    heights = [4 + 0.27 * "\n".join(arms).count("\n") for arms in rows.values()]
    figure = new_figure(4.4 * columns, sum(heights) + 0.4)
    many = (
        f"mean over {seeds} seeds, with its standard deviation; of a difference, its 95% interval"
    )
    figure.suptitle(many if seeds > 1 else "one seed")
    subfigures = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for row, (family, arms) in zip(subfigures, rows.items(), strict=True):
        if len(rows) > 1:
            title = plain(textwrap.fill(family, 45 * columns))
            row.suptitle(title, fontsize="medium", fontweight="bold")
        panels = row.subplots(1, columns)
        _draw_train_loss(panels[0], arms)
        _draw_test(panels[1], panels[2], arms, headline.removeprefix("final test "))
        for axes, option in zip(panels[3:], options, strict=True):
            _draw_option(axes, arms, option)
        for axes in panels:
            tidy(axes, epochs=True)
        legend = {"loc": "outside lower center", "frameon": False, "handlelength": 3}
        row.legend(*panels[0].get_legend_handles_labels(), **legend)
    return figure


def _draw_train_loss(axes: Any, arms: Logs) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_title("train loss")
    means, _ = _draw(axes, arms, lambda p: p["loss"] if p["phase"] == "train" else None)
    if min(means, default=0) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_test(axes: Any, difference_axes: Any, arms: Logs, meter: str) -> None:
    """Draws the meter, or the loss if it is not one, and its differences."""
    from matplotlib.ticker import PercentFormatter

    is_meter = "/" in meter

    def result(phase: Phase) -> float | None:
        if phase["phase"] != "test":
            return None
        return flat_meters(phase["meters"]).get(meter) if is_meter else phase["loss"]

    axes.set_title(plain(f"test {meter}" if is_meter else "test loss"))
    means, band = _draw(axes, arms, result)
    shares = is_meter and all(0 <= mean <= 1 for mean in means)
    if shares:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    if is_meter and len(set(band)) > 1:
        # Otherwise the steep start would hide how the arms differ at the end.
        margin = 0.05 * (max(band) - min(band))
        low, high = axes.set_ylim(min(band) - margin, max(band) + margin)
        if min(means) < low or max(means) > high:
            axes.set_ylabel("early epochs are cut off")
    difference_axes.set_title("difference to the first" + ", points" * shares)
    _draw_differences(difference_axes, arms, result, 100 if shares else 1)


def _draw_option(axes: Any, arms: Logs, option: str) -> None:
    axes.set_title("learning rate" if option == "lr" else plain(option))
    means, _ = _draw(axes, arms, lambda phase: phase["options"].get(option))
    for line in axes.lines:  # the value of an epoch is that of its last step
        line.set_drawstyle("steps-mid")
    if min(means, default=0) >= 0:
        axes.set_ylim(bottom=0)


def _options_that_change(families: Mapping[str, Logs]) -> list[str]:
    """The learning rate, and other options that change during a run; the rest are in the names."""
    changing = {}
    for run in (run for arms in families.values() for arm in arms.values() for run in arm.values()):
        seen = collections.defaultdict(set)
        for phase in run:
            for option, value in phase["options"].items():
                seen[option].add(value)
        changing |= {option: None for option, x in seen.items() if option == "lr" or len(x) > 1}
    return list(changing)


def _by_epoch(runs: Mapping[int, Sequence[Phase]], value: Value) -> dict[float, dict[int, float]]:
    """The values by epoch and seed."""
    found: dict[float, dict[int, float]] = collections.defaultdict(dict)
    for seed, run in runs.items():
        for phase in run:
            if (y := value(phase)) is not None:
                found[phase["epoch"]][seed] = y
    return dict(sorted(found.items()))


def _draw_line(axes: Any, i: int, epochs: list[float], *lines: Any, label: str = "") -> None:
    """Draws the middle, low and high of the arm of an index."""
    middle, low, high = lines
    style = {"linestyle": _DASHES[(i + i // 6) % 4], "marker": "o" if len(epochs) == 1 else None}
    axes.plot(epochs, middle, label=label, color=COLORS[i % 6], linewidth=1.8, **style)
    axes.fill_between(epochs, low, high, color=COLORS[i % 6], alpha=0.18, linewidth=0)


def _draw(axes: Any, arms: Logs, value: Value) -> tuple[list[float], list[float]]:
    """Draws a line and a band for each arm.

    Returns the means, and the ends of the bands after the first quarter of the epochs; both leave
    out runs that diverged.
    """
    means, band = [], []
    for i, (name, runs) in enumerate(arms.items()):
        found = _by_epoch(runs, value)
        epochs, values = list(found), [list(of_epoch.values()) for of_epoch in found.values()]
        mean = np.array([np.mean(v) for v in values])
        std = np.array([np.std(v, ddof=1) if len(v) > 1 else 0 for v in values])
        _draw_line(axes, i, epochs, mean, mean - std, mean + std, label=name)
        late = slice(len(epochs) // 4, None)
        means += mean[np.isfinite(mean)].tolist()
        band += [x for x in [*(mean - std)[late], *(mean + std)[late]] if np.isfinite(x)]
    return means, band


def _draw_differences(axes: Any, arms: Logs, value: Value, factor: float) -> None:
    """Draws the difference of each arm to the first, paired by seed."""
    baseline, *others = (_by_epoch(runs, value) for runs in arms.values())
    axes.axhline(0, color=GREY, linewidth=1)
    for i, other in enumerate(others, 1):
        epochs = [epoch for epoch in other if epoch in baseline]
        found = [paired_difference(baseline[epoch], other[epoch]) for epoch in epochs]
        lines = ([x.mean, x.low, x.high] for x in found)
        lines = factor * np.array([*lines], dtype=float).reshape(-1, 3).T  # None is NaN
        _draw_line(axes, i, epochs, *lines)
