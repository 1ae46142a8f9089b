"""What a comparison needs of statistics, for values that are paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

#: of the intervals; a difference is told from noise where p, after Holm, is below 1 - this
CONFIDENCE = 0.95

#: probability with which a difference is to be found
POWER = 0.8


class Spread(NamedTuple):
    """Mean and standard deviation of a metric over seeds."""

    n: int
    mean: float | None  #: None where n is 0
    std: float | None  #: with n - 1 in the denominator; None where n is below 2


class Difference(NamedTuple):
    """Another arm minus the first, seed by seed."""

    pairs: int
    mean: float | None = None  #: None where there is no pair
    low: float | None = None  #: of the confidence interval; None where there is none
    high: float | None = None
    p: float | None = None  #: of the paired t-test, two-sided
    std: float | None = None  #: of the differences; None where there is no interval
    detectable: float | None = None  #: see :func:`detectable`


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation.

    Args:
        values: one a seed.

    Example:
        >>> spread([1.0, 3.0])
        Spread(n=2, mean=2.0, std=1.4142135623730951)
        >>> spread([1.0])
        Spread(n=1, mean=1.0, std=None)
    """
    n = len(values)
    mean = float(np.mean(values)) if n else None
    return Spread(n, mean, float(np.std(values, ddof=1)) if n > 1 else None)


def paired_difference(first: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """Mean difference with the confidence interval of the paired t-test.

    Seeds that one of the two lacks, or where a value is not finite, drop out. One pair has no
    interval, and neither have differences that are all the same: their spread is not zero, it
    is too small for these data to show.

    Args:
        first: seed: value.
        other: seed: value.

    Source: Student, *The Probable Error of a Mean*, Biometrika 6 (1908);
    ``scipy.stats.ttest_rel``.

    Example:
        >>> difference = paired_difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 4.0, 2: 6.0})
        >>> [round(x, 3) for x in difference]
        [3, 2.0, -0.484, 4.484, 0.074, 1.0, 3.264]
        >>> paired_difference({0: 1.0, 1: 2.0}, {1: 2.5, 2: 7.0})
        Difference(pairs=1, mean=0.5, low=None, high=None, p=None, std=None, detectable=None)
    """
    pairs = [(other[seed], first[seed]) for seed in sorted({*first} & {*other})]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    if not pairs:
        return Difference(0)
    differences = [b - a for b, a in pairs]
    mean = float(np.mean(differences))
    rounding = 1e-12 * max(abs(x) for pair in pairs for x in pair)
    if max(differences) - min(differences) <= rounding:
        return Difference(len(pairs), 0.0 if abs(mean) <= rounding else mean)
    from scipy.stats import ttest_rel

    test = ttest_rel(*zip(*pairs, strict=True))
    interval = test.confidence_interval(CONFIDENCE)
    low, high, p = float(interval.low), float(interval.high), float(test.pvalue)
    std = float(np.std(differences, ddof=1))
    return Difference(len(pairs), mean, low, high, p, std, detectable(std, len(pairs)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that stay honest when several comparisons are made at once.

    Args:
        p_values: one a comparison.

    Returns:
        Those after Holm's correction, in the same order.

    Source: Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, Scandinavian
    Journal of Statistics 6 (1979).

    Example:
        >>> holm([0.04, 0.01])
        [0.04, 0.02]
    """
    result, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        result[i] = largest
    return result


def power(difference: float, std: float, pairs: int) -> float:
    """Probability that a paired t-test, two-sided, finds a true mean difference.

    Args:
        difference: the true one.
        std: standard deviation of the differences, > 0.
        pairs: how many, 2 or more.

    Source: Cohen, *Statistical Power Analysis for the Behavioral Sciences*, chapter 2; the
    noncentral t distribution, ``scipy.stats.nct``.

    Example:
        >>> round(power(difference=1.0, std=1.0, pairs=10), 3)
        0.803
    """
    from scipy.stats import nct, t

    limit = t.ppf((1 + CONFIDENCE) / 2, pairs - 1)
    shift = difference / std * math.sqrt(pairs)
    tails = nct.sf(limit, pairs - 1, shift), nct.cdf(-limit, pairs - 1, shift)
    return float(np.nan_to_num(tails).sum())  # scipy knows no number for a tail that is empty


def detectable(std: float, pairs: int) -> float:
    """The smallest true difference that a paired t-test finds with a probability of 80 %.

    Args:
        std: standard deviation of the differences, > 0.
        pairs: how many, 2 or more.

    Example:
        >>> round(detectable(std=1.0, pairs=10), 3)
        0.996
    """
    from scipy.optimize import brentq

    largest = std
    while power(largest, std, pairs) < POWER:
        largest *= 2
    return float(brentq(lambda x: power(x, std, pairs) - POWER, 0, largest))


def pairs_needed(difference: float, std: float) -> int:
    """How many pairs find a true difference with a probability of 80 %.

    Args:
        difference: the true one, > 0.
        std: standard deviation of the differences, > 0.

    Returns:
        2 or more.

    Example:
        >>> pairs_needed(difference=1.0, std=1.0)
        10
    """
    few, many = 1, 2
    while power(difference, std, many) < POWER:
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if power(difference, std, middle) >= POWER else (middle, many)
    return many


class Disagreement(NamedTuple):
    """Test samples that one of two arms gets right and the other does not."""

    seeds: int
    only_first: int
    only_other: int
    p: float  #: of McNemar's exact test


def disagreement(first: Mapping[int, str], other: Mapping[int, str]) -> Disagreement | None:
    """McNemar's exact test of the test samples of all seeds, each paired with itself.

    The samples of every seed are the same ones, so they are not independent of each other: the
    test says whether these networks differ, not whether those of other seeds would.

    Args:
        first: seed: a digit a sample, 1 where it is right.
        other: seed: the same.

    Returns:
        None where no seed has both, of one length.

    Source: McNemar, *Note on the sampling error of the difference between correlated
    proportions or percentages*, Psychometrika 12 (1947); ``scipy.stats.binomtest``.

    Example:
        >>> disagreement({0: "1100"}, {0: "1011"})
        Disagreement(seeds=1, only_first=1, only_other=2, p=1.0)
    """
    seeds = [k for k in {*first} & {*other} if len(first[k]) == len(other[k])]
    if not seeds:
        return None
    from scipy.stats import binomtest

    pairs = [pair for seed in seeds for pair in zip(first[seed], other[seed], strict=True)]
    only_first, only_other = pairs.count(("1", "0")), pairs.count(("0", "1"))
    both = only_first + only_other
    p = float(binomtest(only_first, both).pvalue) if both else 1.0
    return Disagreement(len(seeds), only_first, only_other, p)
