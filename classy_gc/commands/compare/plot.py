"""The picture of ``classy-gc compare``: every arm over the epochs, mean and spread."""

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

# Of text of the default size, on average, and of a line with its gap and handle in a legend.
_INCHES_PER_LETTER = 0.087
_INCHES_PER_HANDLE = 0.9

Arms = Mapping[str, Mapping[int, Sequence[Phase]]]  #: arm: seed: the phases of its run
Value = Callable[[Phase], float | None]


def picture(families: Mapping[str, Arms], headline: str, seeds: int) -> Any:
    """Train loss, the test metric, its paired differences and the scheduled options over epochs.

    Each arm is the mean over its runs, with a band of one standard deviation; a difference to
    the first arm has the 95 % confidence interval of the paired t-test.

    Args:
        families: a row each: its title, and its arms, the baseline first.
        headline: metric of the test phases, ``final test METER`` or a loss.
        seeds: how many runs an arm should have.

    Returns:
        A ``matplotlib`` Figure.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

    meter = headline.removeprefix("final test ")
    meter = meter if "/" in meter else None

    def train_loss(phase: Phase) -> float | None:
        return phase["loss"] if phase["phase"] == "train" else None

    def test_result(phase: Phase) -> float | None:
        if phase["phase"] != "test":
            return None
        return phase["loss"] if meter is None else flat_meters(phase["meters"]).get(meter)

    options = _options_that_change(families)
    columns = 3 + len(options)
    width = 4.4 * columns
    longest = int((width - _INCHES_PER_HANDLE) / _INCHES_PER_LETTER)
    families = {
        textwrap.fill(family, longest): {
            plain(textwrap.fill(_counted(arm, runs, seeds), longest)): runs
            for arm, runs in arms.items()
        }
        for family, arms in families.items()
    }
    legends = {family: _legend(list(arms), columns, width) for family, arms in families.items()}
    legend_lines = max(lines for _, lines in legends.values())
    title_lines = max(family.count("\n") + 1 for family in families) * (len(families) > 1)
    row_height = 3.4 + 0.27 * legend_lines + 0.3 * title_lines
    figure = new_figure(width, row_height * len(families) + 0.4)
    many = (
        f"mean over {seeds} seeds, with its standard deviation; of a difference, its 95% interval"
    )
    figure.suptitle(many if seeds > 1 else "one seed")
    rows = figure.subfigures(len(families), 1, squeeze=False)[:, 0]
    for row, (family, arms) in zip(rows, families.items(), strict=True):
        if len(families) > 1:
            row.suptitle(plain(family), fontsize="medium", fontweight="bold")
        loss_axes, test_axes, difference_axes, *option_axes = row.subplots(1, columns)
        means, _ = _draw(loss_axes, arms, train_loss)
        loss_axes.set_title("train loss")
        if min(means, default=0) > 0:
            loss_axes.set_yscale("log")
            loss_axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            loss_axes.yaxis.set_major_formatter("{x:g}")
            loss_axes.yaxis.set_minor_formatter(NullFormatter())
        means, band = _draw(test_axes, arms, test_result)
        test_axes.set_title(plain(f"test {meter or 'loss'}"))
        shares = meter and all(0 <= mean <= 1 for mean in means)
        if shares:
            test_axes.yaxis.set_major_formatter(PercentFormatter(1))
        if meter and len(set(band)) > 1:
            # Or how the arms differ at the end would be lost below the rise of the beginning.
            margin = 0.05 * (max(band) - min(band))
            low, high = test_axes.set_ylim(min(band) - margin, max(band) + margin)
            if min(means) < low or max(means) > high:
                test_axes.set_ylabel("early epochs are cut off")
        _draw_differences(difference_axes, arms, test_result, 100 if shares else 1)
        difference_axes.set_title("difference to the first" + ", points" * bool(shares))
        for axes, option in zip(option_axes, options, strict=True):
            means, _ = _draw(axes, arms, lambda phase, option=option: phase["options"].get(option))
            for line in axes.lines:  # the value of an epoch is what its last step had
                line.set_drawstyle("steps-mid")
            if min(means, default=0) >= 0:
                axes.set_ylim(bottom=0)
            axes.set_title("learning rate" if option == "lr" else plain(option))
        for axes in (loss_axes, test_axes, difference_axes, *option_axes):
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


def _counted(arm: str, runs: Mapping[int, Any], seeds: int) -> str:
    """The name of an arm, and how many runs it has if it lacks some."""
    return arm if len(runs) == seeds else f"{arm} ({len(runs)} of {seeds} runs)"


def _legend(names: Sequence[str], columns: int, width: float) -> tuple[int, int]:
    """As many columns as fit side by side, and the lines that it then has."""
    longest = max(len(line) for name in names for line in name.splitlines())
    fitting = int(width / (_INCHES_PER_HANDLE + _INCHES_PER_LETTER * longest))
    columns = max(1, min(columns, fitting))
    return columns, -(-len(names) // columns) * max(name.count("\n") + 1 for name in names)


def _options_that_change(families: Mapping[str, Arms]) -> list[str]:
    """The learning rate, and what else changes during a run: other options are in the names."""
    runs = [run for arms in families.values() for arm in arms.values() for run in arm.values()]
    values = [
        (option, {phase["options"].get(option) for phase in run if phase["phase"] == "train"})
        for run in runs
        for option in {key: None for phase in run for key in phase["options"]}
    ]
    changing = (option for option, seen in values if option == "lr" or len(seen) > 1)
    return list(dict.fromkeys(changing))


def _by_epoch(runs: Mapping[int, Sequence[Phase]], value: Value) -> dict[float, dict[int, float]]:
    """Epoch: seed: value."""
    found: dict[float, dict[int, float]] = collections.defaultdict(dict)
    for seed, run in runs.items():
        for phase in run:
            if (y := value(phase)) is not None:
                found[phase["epoch"]][seed] = y
    return dict(sorted(found.items()))


def _style(i: int, epochs: int) -> dict[str, Any]:
    dash = _DASHES[(i + i // 6) % 4]
    marker = "o" if epochs == 1 else None
    return {"color": COLORS[i % 6], "linestyle": dash, "linewidth": 1.8, "marker": marker}


def _draw(axes: Any, arms: Arms, value: Value) -> tuple[list[float], list[float]]:
    """Draws a line and a band for each arm.

    Returns the means, and the ends of the bands after the first quarter of the epochs; those of
    a run that diverged are in neither.
    """
    means, band = [], []
    for i, (name, runs) in enumerate(arms.items()):
        found = _by_epoch(runs, value)
        epochs, values = list(found), [list(of_epoch.values()) for of_epoch in found.values()]
        mean = np.array([np.mean(v) for v in values])
        std = np.array([np.std(v, ddof=1) if len(v) > 1 else 0 for v in values])
        style = _style(i, len(epochs))
        axes.plot(epochs, mean, label=name, **style)
        axes.fill_between(
            epochs, mean - std, mean + std, color=style["color"], alpha=0.18, linewidth=0
        )
        late = slice(len(epochs) // 4, None)
        means += mean[np.isfinite(mean)].tolist()
        band += [x for x in [*(mean - std)[late], *(mean + std)[late]] if np.isfinite(x)]
    return means, band


def _draw_differences(axes: Any, arms: Arms, value: Value, factor: float) -> None:
    """Draws how each arm differs from the first, paired by seed."""
    baseline, *others = (_by_epoch(runs, value) for runs in arms.values())
    axes.axhline(0, color=GREY, linewidth=1)
    for i, other in enumerate(others, 1):
        epochs = [epoch for epoch in other if epoch in baseline]
        found = [paired_difference(baseline[epoch], other[epoch]) for epoch in epochs]
        mean, low, high = (
            factor * np.array([np.nan if x[k] is None else x[k] for x in found], dtype=float)
            for k in (1, 2, 3)
        )
        style = _style(i, len(epochs))
        axes.plot(epochs, mean, **style)
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.18, linewidth=0)
