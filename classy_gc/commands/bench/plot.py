"""The pictures of ``classy-gc bench``."""

from __future__ import annotations

from typing import Any

from classy_gc.plots import new_figure, tidy


def _axes(rows: float, title: str) -> tuple[Any, Any]:
    figure = new_figure(9, 1.6 + 0.26 * rows)
    axes = figure.subplots()
    axes.invert_yaxis()
    tidy(axes, grid=None)
    axes.set_title(title, fontsize=10, loc="left")
    return figure, axes


def plot_steps(results: list[dict[str, Any]], title: str) -> Any:
    """A bar a variant: the time of a step, relative to the first of its algorithm.

    Args:
        results: of :func:`measure_steps`, of all algorithms.
        title: of the picture.

    Returns:
        A ``matplotlib`` Figure.
    """
    # Slow loops of many small kernels would squeeze what is worth comparing into a corner.
    limit = min(4.0, 1.25 * max(row["ratio"] for row in results))
    names = list(dict.fromkeys(row["optimizer"] for row in results))
    figure, axes = _axes(len(results) + 1.5 * len(names), title)
    colors = {"torch": "#9a9a9a", "GC off": "#9ecae1", "GC": "#2171b5"}
    ticks, y, name = {}, -1.5, None
    for row in results:
        if row["optimizer"] != name:
            name, y = row["optimizer"], y + 1.5
            ticks[y] = name
        y += 1
        variant, ratio = row["variant"], row["ratio"]
        ticks[y] = variant
        color = next((c for kind, c in colors.items() if variant.startswith(kind)), "#74a57f")
        axes.barh(y, min(ratio, limit), color=color, height=0.8)
        cut = ratio > limit
        axes.text(
            limit if cut else max(ratio, 1),  # clear of the line at 1
            y,
            f" {ratio:.2f}  ({row['ms']:.3g} ms)" + " → " * cut,
            ha="right" if cut else "left",
            va="center",
            fontsize=7.5,
            color="white" if cut else "black",
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(list(ticks), ticks.values(), fontsize=8)
    for label in axes.get_yticklabels():
        if label.get_text() in names:
            label.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(y + 0.7, -0.7)
    axes.set_xlim(0, max(limit, 1.25))
    axes.set_xlabel("time of a step, relative to the first row of each optimizer")
    return figure


def plot_training(training: dict[str, Any], title: str) -> Any:
    """A training step with GC off and on: the optimizer's part, and everything else.

    Args:
        training: of :func:`measure_training`.
        title: of the picture.

    Returns:
        A ``matplotlib`` Figure.
    """
    figure, axes = _axes(6, title)
    rest = training["other_ms"]
    for i, (gc, ms) in enumerate(training["optimizer_ms"].items()):
        axes.barh(i, rest, color="#9a9a9a", label="everything else" if i == 0 else None)
        axes.barh(i, ms, left=rest, color="#2171b5", label="optimizer step" if i == 0 else None)
        share = training["optimizer_share"][gc]
        axes.text(rest + ms, i, f" {share:.2%}", va="center", fontsize=9)
    axes.set_yticks([0, 1], ["GC off", "GC on"])
    axes.set_xlim(0, 1.15 * (rest + ms))
    axes.set_xlabel("milliseconds of a training step; share of the optimizer")
    figure.legend(frameon=False, ncols=2, loc="outside lower center")
    return figure
