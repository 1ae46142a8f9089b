"""The picture of ``classy-gc compare``: mean and spread of every arm over the epochs."""

from __future__ import annotations

import collections
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from classy_gc.commands.compare.report import Phase, scale
from classy_gc.commands.compare.statistics import paired_difference
from classy_gc.hooks.phase_record import flat_meters
from classy_gc.plots import COLORS, GREY, new_figure, plain, tidy

_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))

Logs = Mapping[str, Mapping[int, Sequence[Phase]]]  #: arm: seed: the phases of its run
Values = Mapping[float, Mapping[int, float]]  #: by epoch and seed
Curve = Mapping[float, Sequence[float | None]]  #: epoch: middle, low and high


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
    meter = headline.removeprefix("final test ") if "/" in headline else "loss"

    def train_loss(phase: Phase) -> float | None:
        return phase["loss"] if phase["phase"] == "train" else None

    def result(phase: Phase) -> float | None:
        if phase["phase"] != "test":
            return None
        return {"loss": phase["loss"], **flat_meters(phase["meters"])}.get(meter)

    runs = [run for arms in families.values() for arm in arms.values() for run in arm.values()]
    form = scale(headline, [result(phase) for run in runs for phase in run])
    options = _options_that_change(runs)
    columns = 3 + len(options)
    labels = []
    for arms in families.values():
        counts = {arm: f" ({len(x)} of {seeds} runs)" * (len(x) < seeds) for arm, x in arms.items()}
        labels.append([plain(textwrap.fill(arm + n, 45 * columns)) for arm, n in counts.items()])
    heights = [4 + 0.27 * "\n".join(of_row).count("\n") for of_row in labels]
    figure = new_figure(4.4 * columns, sum(heights) + 0.4)
    band = "one standard deviation; of a difference, its 95% interval"
    figure.suptitle(f"mean over seeds, with {band}" if seeds > 1 else "one seed")
    rows = figure.subfigures(len(families), 1, squeeze=False, height_ratios=heights)[:, 0]
    for row, (family, arms), of_row in zip(rows, families.items(), labels, strict=True):
        if len(families) > 1:
            title = plain(textwrap.fill(family, 45 * columns))
            row.suptitle(title, fontsize="medium", fontweight="bold")
        loss_axes, axes, difference_axes, *option_axes = row.subplots(1, columns)
        _draw(loss_axes, "train loss", map(_band, _by_epoch(arms, train_loss)))
        if all(np.min(line.get_ydata(), initial=1) > 0 for line in loss_axes.lines):
            loss_axes.set_yscale("log")
        results = _by_epoch(arms, result, form.factor)
        _draw(axes, f"test {meter}{form.unit}", map(_band, results))
        differences = [_difference(results[0], x) for x in results[1:]]
        unit = f",{form.difference_unit}" if form.difference_unit else ""
        _draw(difference_axes, f"difference to the first{unit}", [{}, *differences])
        difference_axes.axhline(0, color=GREY, linewidth=1)
        for axes, option in zip(option_axes, options, strict=True):
            curves = _by_epoch(arms, lambda phase, option=option: phase["options"].get(option))
            _draw(axes, "learning rate" if option == "lr" else option, map(_band, curves))
            for line in axes.lines:  # the value of an epoch is that of its last step
                line.set_drawstyle("steps-mid")
        legend = {"loc": "outside lower center", "frameon": False, "handlelength": 3}
        row.legend(loss_axes.lines, of_row, **legend)
    return figure


def _options_that_change(runs: Iterable[Sequence[Phase]]) -> list[str]:
    """The learning rate, and other options that change during a run; the rest are in the names."""
    changing = {}
    for run in runs:
        seen = collections.defaultdict(set)
        for phase in run:
            for option, value in phase["options"].items():
                seen[option].add(value)
        changing |= {option: None for option, x in seen.items() if option == "lr" or len(x) > 1}
    return list(changing)


def _by_epoch(
    arms: Logs, value: Callable[[Phase], float | None], factor: float = 1
) -> list[Values]:
    """The values of each arm."""
    curves = []
    for runs in arms.values():
        values: dict[float, dict[int, float]] = collections.defaultdict(dict)
        for seed, run in runs.items():
            for phase in run:
                if (x := value(phase)) is not None:
                    values[phase["epoch"]][seed] = factor * x
        curves.append(dict(sorted(values.items())))
    return curves


def _band(values: Values) -> Curve:
    """The mean over seeds, with one standard deviation."""
    band = {}
    for epoch, x in values.items():
        mean, std = np.mean([*x.values()]), np.std([*x.values()], ddof=1) if len(x) > 1 else 0
        band[epoch] = mean, mean - std, mean + std
    return band


def _difference(baseline: Values, other: Values) -> Curve:
    """The mean difference, paired by seed, with its interval."""
    epochs = [epoch for epoch in other if epoch in baseline]
    return {epoch: paired_difference(baseline[epoch], other[epoch])[1:4] for epoch in epochs}


def _draw(axes: Any, title: str, curves: Iterable[Curve]) -> None:
    """Draws a line and a band for each arm."""
    axes.set_title(plain(title))
    for i, curve in enumerate(curves):
        middle, low, high = np.array([*curve.values()], dtype=float).reshape(-1, 3).T  # None is NaN
        style = {"linestyle": _DASHES[(i + i // 6) % 4], "marker": "o" if len(curve) == 1 else None}
        axes.plot([*curve], middle, color=COLORS[i % 6], linewidth=1.8, **style)
        axes.fill_between([*curve], low, high, color=COLORS[i % 6], alpha=0.18, linewidth=0)
    tidy(axes, epochs=True)
