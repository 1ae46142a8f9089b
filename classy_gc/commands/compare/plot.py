"""The picture of ``classy-gc compare``: mean and spread of every arm over the epochs."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from classy_gc.commands.compare.results import scale
from classy_gc.commands.compare.statistics import paired_difference
from classy_gc.plots import COLORS, GREY, new_figure, plain, tidy

_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


def picture(phases: Any, families: Mapping[str, Sequence[str]], headline: str, seeds: int) -> Any:
    """Train loss, the test metric, its paired differences and the scheduled options over epochs.

    An arm is drawn as the mean over its runs, with a band of one standard deviation; a difference
    to the first arm, with the 95 % confidence interval of the paired t-test.

    Args:
        phases: a ``pandas`` DataFrame, see :func:`phase_table`.
        families: one row each: its title, and its arms, the baseline first.
        headline: metric of the test phases, ``final test METER`` or a loss.
        seeds: how many runs an arm should have.

    Returns:
        A ``matplotlib`` Figure.
    """
    meter = headline.removeprefix("final test ") if "/" in headline else "loss"
    arms = [arm for labels in families.values() for arm in labels]
    results = {arm: _by_epoch(phases, arm, "test", meter) for arm in arms}
    form = scale(headline, [x for of_arm in results.values() for x in of_arm.to_numpy().ravel()])
    options = _options_that_change(phases)
    columns = 3 + len(options)
    runs = phases.groupby("arm")["seed"].nunique().to_dict()

    def label(arm: str) -> str:
        count = runs.get(arm, 0)
        lack = f" ({count} of {seeds} runs)" if count < seeds else ""
        return plain(textwrap.fill(arm + lack, 45 * columns))

    labels = [[label(arm) for arm in family] for family in families.values()]
    heights = [4 + 0.27 * "\n".join(of_row).count("\n") for of_row in labels]
    figure = new_figure(4.4 * columns, sum(heights) + 0.4)
    band = "one standard deviation; of a difference, its 95% interval"
    figure.suptitle(f"mean over seeds, with {band}" if seeds > 1 else "one seed")
    rows = figure.subfigures(len(families), 1, squeeze=False, height_ratios=heights)[:, 0]
    for row, (title, family), of_row in zip(rows, families.items(), labels, strict=True):
        if len(families) > 1:
            title = plain(textwrap.fill(title, 45 * columns))
            row.suptitle(title, fontsize="medium", fontweight="bold")
        loss_axes, axes, difference_axes, *option_axes = row.subplots(1, columns)
        losses = [_by_epoch(phases, arm, "train", "loss") for arm in family]
        _draw(loss_axes, "train loss", map(_band, losses))
        drawn = [loss for line in loss_axes.lines for loss in line.get_ydata()]
        if drawn and min(drawn) > 0:
            loss_axes.set_yscale("log")
        first, *others = (form.factor * results[arm] for arm in family)
        _draw(axes, f"test {meter}{form.unit}", map(_band, [first, *others]))
        differences = [_difference(first, other) for other in others]
        unit = f",{form.difference_unit}" if form.difference_unit else ""
        none = np.empty((4, 0))
        _draw(difference_axes, f"difference to the first{unit}", [none, *differences])
        difference_axes.axhline(0, color=GREY, linewidth=1)
        for axes, option in zip(option_axes, options, strict=True):
            curves = [_by_epoch(phases, arm, "train", option) for arm in family]
            _draw(axes, "learning rate" if option == "lr" else option, map(_band, curves))
            for line in axes.lines:  # the value of an epoch is that of its last step
                line.set_drawstyle("steps-mid")
        legend = {"loc": "outside lower center", "frameon": False, "handlelength": 3}
        row.legend(loss_axes.lines, of_row, **legend)
    return figure


def _options_that_change(phases: Any) -> list[str]:
    """The learning rate, and other options that change during a run; the rest are in the names."""
    others = phases.drop(columns=["phase", "epoch", "loss", "seconds"])
    numbers = others[phases["phase"] == "train"].groupby(["arm", "seed"]).nunique().max()
    return [x for x, n in numbers.items() if "/" not in x and (n > 1 or x == "lr")]


def _by_epoch(phases: Any, arm: str, phase: str, column: str) -> Any:
    """The values of an arm: a row for each epoch, a column for each seed."""
    own = phases[(phases["arm"] == arm) & (phases["phase"] == phase)]
    own = own.reindex(columns=["epoch", "seed", column])  # an arm may lack the meter or option
    return own.pivot_table(column, "epoch", "seed", "last")


def _band(values: Any) -> np.ndarray:
    """Epochs, mean over seeds, and one standard deviation below and above."""
    mean, std = values.mean(axis=1), values.std(axis=1).fillna(0)
    return np.stack([values.index, mean, mean - std, mean + std]).astype(float)


def _difference(baseline: Any, other: Any) -> np.ndarray:
    """Epochs, mean difference paired by seed, and the ends of its interval."""
    baseline, other = baseline.align(other, join="inner")
    epochs = zip(baseline.to_numpy(), other.to_numpy(), strict=True)
    found = [paired_difference(*pair) for pair in epochs]
    ends = [[difference.get(key) for difference in found] for key in ("mean", "low", "high")]
    return np.array([baseline.index, *ends], dtype=float)  # None is NaN


def _draw(axes: Any, title: str, curves: Iterable[np.ndarray]) -> None:
    """Draws a line and a band for each arm."""
    axes.set_title(plain(title))
    for i, (epochs, middle, low, high) in enumerate(curves):
        marker = "o" if len(epochs) == 1 else None
        style = {"linestyle": _DASHES[(i + i // 6) % 4], "marker": marker}
        axes.plot(epochs, middle, color=COLORS[i % 6], linewidth=1.8, **style)
        axes.fill_between(epochs, low, high, color=COLORS[i % 6], alpha=0.18, linewidth=0)
    tidy(axes, epochs=True)
