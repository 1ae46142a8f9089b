"""Common code of all figures. ``matplotlib``, an extra, is imported only when one is drawn."""

from pathlib import Path
from typing import Any

from classy_gc.files import atomic_write

#: Okabe and Ito, https://jfly.uni-koeln.de/color: distinguishable with every kind of colour vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#999999"


def new_figure(width: float, height: float) -> Any:
    """An empty ``matplotlib`` Figure; its size is in inches.

    It is independent of pyplot: there is no global state, and no display is needed.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> new_figure(4, 3).get_size_inches().tolist()
        [4.0, 3.0]
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def plain(text: str) -> str:
    r"""Escapes a name so that matplotlib does not take a dollar in it for mathematics.

    Example:
        >>> print(plain("cost_$_a$"))
        cost_\$_a\$
    """
    return text.replace("$", r"\$")


def tidy(axes: Any, grid: str | None = "both", epochs: bool = False) -> None:
    """Removes clutter from axes, and puts a grid behind the data.

    Args:
        axes: of a figure.
        grid: the axis with lines, ``"x"``, ``"y"`` or ``"both"``; None for no lines (default:
            ``"both"``)
        epochs: whether x is in epochs and gets integer ticks (default: False)

    Example:
        >>> axes = new_figure(4, 3).subplots()
        >>> _ = axes.plot([1], [0.5], "o")
        >>> tidy(axes, epochs=True)  # also where there is only one
        >>> axes.get_xticks().tolist()
        [0.0, 1.0, 2.0]
    """
    axes.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        axes.grid(alpha=0.25, axis=grid)
        axes.set_axisbelow(True)
    if epochs:
        from matplotlib.ticker import MaxNLocator

        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def save(figure: Any, path: str | Path) -> None:
    """Writes a figure as a PNG file, which appears once it is complete.

    Args:
        figure: from :func:`new_figure`.
        path: of the file, in a folder that exists.
    """
    with atomic_write(Path(path)) as file:
        figure.savefig(file, format="png", dpi=150)
