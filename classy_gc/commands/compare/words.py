"""How a comparison prints numbers, and puts a difference into words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from classy_gc.commands.compare.statistics import CONFIDENCE, Difference, Spread, pairs_needed


class Scale(NamedTuple):
    """How a metric is printed: unchanged, or as a percentage if it is a share."""

    factor: float
    digits: str
    unit: str
    difference_unit: str

    def value(self, x: float | None, sign: str = "") -> str:
        """A number, or a dash for None."""
        # A hyphen before the end of an interval would read as a range.
        return "–" if x is None else format(self.factor * x, sign + self.digits).replace("-", "−")

    def spread(self, x: Spread, runs: int | None = None) -> str:
        """Mean ± standard deviation with the unit, and the number of runs if some are missing."""
        lack = f" ({x.n} of {runs})" if runs is not None and x.n < runs else ""
        if x.mean is None:
            return f"{self.value(None)}{lack}"
        std = "" if x.std is None else f" ± {self.value(x.std)}"
        return f"{self.value(x.mean)}{std}{self.unit}{lack}"


def scale(metric: str, values: Iterable[float | None]) -> Scale:
    """The scale of a metric: meters in [0, 1] are shares; everything else is printed unchanged.

    Args:
        metric: its name.
        values: of all runs; those that are not finite do not count.

    Example:
        >>> scale("final test accuracy/top_1", [0.5, 0.75]).spread(Spread(2, 0.625, 0.17678))
        '62.50 ± 17.68 %'
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if "/" in metric and all(0 <= value <= 1 for value in finite):
        return Scale(100, ".2f", " %", " points")
    return Scale(1, ".1f", "", "") if metric == "seconds" else Scale(1, ".4g", "", "")


def sentence(difference: Difference, adjusted_p: float | None, seeds: int, form: Scale) -> str:
    """Whether a difference can be told from noise, in words.

    Args:
        difference: against the first arm.
        adjusted_p: its p after :func:`holm`; None if it has none.
        seeds: how many pairs there would be if every run had finished.
        form: of the metric.

    Example:
        >>> form = scale("final test accuracy/top_1", [0.9])
        >>> found = [0.0012, -0.0005, 0.0029, 0.12, 0.0014, 0.0041, 0.0024, 0.0071]
        >>> difference = Difference(5, *found)
        >>> sentence(difference, 0.12, 5, form)
        '+0.12 points [−0.05, +0.29] (0.24 to 0.71) over 5 seeds: cannot be told from noise'
    """
    n, mean, low, high, p, _, _, least, most, _ = difference
    if mean is None:
        return "no seed has a value in both arms, so there is nothing to compare"
    pairs = f"{n} seed" + "s" * (n > 1)
    if n < seeds:
        lack = "lack" if seeds - n > 1 else "lacks"
        pairs += f" ({seeds - n} of {seeds} pairs {lack} a value)"
    text = f"{form.value(mean, '+')}{form.difference_unit}"
    if n == 1:
        return f"{text} over {pairs}: one pair has no interval; give more --seeds"
    if low is None and not mean:
        return f"no difference in any of {pairs}"
    if low is None:
        return f"{text} in each of {pairs}: without any spread there is no test"
    text += f" [{form.value(low, '+')}, {form.value(high, '+')}]"
    text += f" ({form.value(least)} to {form.value(most)}) over {pairs}: "
    if adjusted_p < 1 - CONFIDENCE:
        return f"{text}more than noise (p = {adjusted_p:.2g})"
    if p < 1 - CONFIDENCE:
        return f"{text}cannot be told from noise among so many comparisons (p = {adjusted_p:.2g})"
    return f"{text}cannot be told from noise"


def power_sentence(
    difference: Difference, wanted: float, form: Scale, comparisons: int = 1
) -> str | None:
    """How many seeds a difference of a size would need; None without a spread.

    Args:
        difference: the one that was found, with its spread.
        wanted: size, in the printed unit.
        form: of the metric.
        comparisons: how many are made at once (default: 1).

    Example:
        >>> form = scale("final test accuracy/top_1", [0.9])
        >>> found = Difference(5, 0.0012, -0.0005, 0.0029, 0.12, 0.0014, 0.0041)
        >>> power_sentence(found, 0.1, form)
        'a difference of 0.1 points needs 18 seeds, or 134 if they spread as much as they may'
    """
    if difference.std is None:
        return None
    stds = difference.std, difference.std_high
    needed = [pairs_needed(wanted / form.factor, std, comparisons) for std in stds]
    few, many = (f"{n:,}" if n else "more than a million" for n in needed)
    return (
        f"a difference of {wanted:g}{form.difference_unit} needs {few} seeds, or {many} if they "
        "spread as much as they may"
    )
