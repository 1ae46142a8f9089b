"""The picture of ``classy-gc bench``."""

from __future__ import annotations

from typing import Any

from classy_gc.plots import new_figure, tidy


def plot_steps(results: list[dict[str, Any]], title: str) -> Any:
    """Draws one bar per variant: the time of a step, relative to the first of its algorithm.

    Args:
        results: from :func:`measure_steps`, of all algorithms.
        title: of the picture.

    Returns:
        A ``matplotlib`` Figure.
    """
    # Slow loops of many small kernels would squeeze the interesting bars into a corner.
    limit = min(4.0, 1.25 * max(row["ratio"] for row in results))
    names = list(dict.fromkeys(row["optimizer"] for row in results))
    figure = new_figure(9, 1.6 + 0.26 * (len(results) + 1.5 * len(names)))
    axes = figure.subplots()
    tidy(axes, grid=None)
    axes.set_title(title, fontsize=10, loc="left")
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
