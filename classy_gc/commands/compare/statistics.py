"""The statistics of a comparison, for values that are paired by seed."""

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

#: of the intervals; a difference is more than noise if its p, after Holm, is below 1 - this
CONFIDENCE = 0.95

#: relative: a meter is a float32, printed with fewer digits
ROUNDING = 1e-6

#: probability with which a difference should be found
POWER = 0.8


def spread(values: Iterable[float | None]) -> dict[str, Any]:
    """How many values there are, their mean and their standard deviation.

    Args:
        values: one per seed; those that are None or not finite do not count.

    Returns:
        ``n``, ``mean`` (None if n is 0) and ``std`` (with n - 1 in the denominator; None if n is
        below 2).

    Example:
        >>> spread([1.0, 3.0])
        {'n': 2, 'mean': 2.0, 'std': 1.4142135623730951}
        >>> spread([1.0, None])
        {'n': 1, 'mean': 1.0, 'std': None}
    """
    x = [value for value in values if value is not None and math.isfinite(value)]
    std = float(np.std(x, ddof=1)) if len(x) > 1 else None
    return {"n": len(x), "mean": float(np.mean(x)) if x else None, "std": std}


def paired_difference(first: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Mean difference with the confidence interval of the paired t-test.

    Pairs drop out if one of the two is None or not finite. One pair has no interval. Neither have
    differences that are all equal up to the float32 rounding of a meter: their spread is not zero,
    but too small for these data to show.

    Args:
        first: one value per seed.
        other: of the same seeds.

    Returns:
        ``pairs``; ``mean`` if there are any; and if there is an interval, ``low`` and ``high``,
        the two-sided ``p``, the differences' ``std`` and the upper end of its own interval,
        ``std_high``, and the ``correlation`` of the pairs, None if an arm is constant.

    Source: Student, *The Probable Error of a Mean*, Biometrika 6 (1908);
    ``scipy.stats.ttest_rel``.

    Example:
        >>> difference = paired_difference([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
        >>> [round(difference[key], 3) for key in ("pairs", "mean", "low", "high", "p")]
        [3, 2.0, -0.484, 4.484, 0.074]
        >>> paired_difference([None, 2.0, 7.0], [1.0, 2.5, None])
        {'pairs': 1, 'mean': 0.5}
    """
    pairs = np.array([first, other], dtype=float)
    a, b = pairs[:, np.isfinite(pairs).all(axis=0)]
    if not a.size:
        return {"pairs": 0}
    n, differences = len(a), b - a
    mean = float(np.mean(differences))
    rounding = ROUNDING * max(np.abs([a, b]).max(axis=1))
    if np.ptp(differences) <= rounding:
        return {"pairs": n, "mean": 0.0 if abs(mean) <= rounding else mean}
    from scipy.stats import chi2, ttest_rel

    test = ttest_rel(b, a)
    low, high = map(float, test.confidence_interval(CONFIDENCE))
    std = float(np.std(differences, ddof=1))
    std_high = std * math.sqrt((n - 1) / chi2.ppf((1 - CONFIDENCE) / 2, n - 1))
    interval = {"low": low, "high": high, "p": float(test.pvalue), "std": std, "std_high": std_high}
    constant = min(np.ptp(a), np.ptp(b)) <= rounding
    correlation = None if constant else float(np.corrcoef(a, b)[0, 1])
    return {"pairs": n, "mean": mean, **interval, "correlation": correlation}


def sign_flip(differences: np.ndarray) -> float:
    """The two-sided p of the exact sign-flip test of paired differences.

    It does not assume a normal distribution: without an effect, each difference is as likely with
    the other sign. Up to 16 pairs, all signs are tried; beyond, 99,999 at random. With ``n`` pairs
    p is at least ``2 / 2^n``: five seeds cannot get below 0.06.

    Args:
        differences: one per seed; those that are not finite do not count, and one does.

    Source: Fisher, *The Design of Experiments* (1935), chapter 3; ``scipy.stats.permutation_test``.

    Example:
        >>> sign_flip(np.array([1.0, 2.0, 3.0]))
        0.25
    """
    from scipy.stats import permutation_test

    finite = differences[np.isfinite(differences)]
    signs = {"permutation_type": "samples", "n_resamples": 99_999, "rng": 0}
    return float(permutation_test((finite,), np.mean, **signs).pvalue)


def holm(p_values: Mapping[Any, float | None]) -> dict[Any, float]:
    """Corrects p-values for several comparisons at once.

    Args:
        p_values: one per comparison; a comparison without one does not count.

    Returns:
        The p-values after Holm's correction.

    Source: Holm, *A Simple Sequentially Rejective Multiple Test Procedure*, Scandinavian
    Journal of Statistics 6 (1979); ``statsmodels.stats.multitest``.

    Example:
        >>> holm({"a": 0.04, "b": 0.01, "c": None})
        {'a': 0.04, 'b': 0.02}
    """
    from statsmodels.stats.multitest import multipletests

    tested = {key: p for key, p in p_values.items() if p is not None}
    if not tested:
        return {}
    adjusted = multipletests([*tested.values()], method="holm")[1]
    return dict(zip(tested, adjusted.tolist(), strict=True))


def more_than_noise(holm_p: float | None) -> bool:
    """Whether a difference can be told from noise.

    Args:
        holm_p: its p after :func:`holm`; None, which it has without a spread, says no.

    Example:
        >>> more_than_noise(0.04), more_than_noise(0.06), more_than_noise(None)
        (True, False, False)
    """
    return holm_p is not None and holm_p < 1 - CONFIDENCE


def power(difference: float, std: float, pairs: int, comparisons: int = 1) -> float:
    """The probability that a two-sided paired t-test finds a true mean difference.

    Args:
        difference: the true one.
        std: standard deviation of the differences, > 0.
        pairs: how many, 2 or more.
        comparisons: how many are made at once. Each is then tested at 5 % / ``comparisons``,
            which is the strictest level of Holm's correction (default: 1).

    Source: Cohen, *Statistical Power Analysis for the Behavioral Sciences*, chapter 2; the
    noncentral t distribution, ``scipy.stats.nct``.

    Example:
        >>> round(power(difference=1.0, std=1.0, pairs=10), 3)
        0.803
    """
    from scipy.stats import nct, t

    limit = t.isf((1 - CONFIDENCE) / comparisons / 2, pairs - 1)
    shift = difference / std * math.sqrt(pairs)
    if shift > 10 + 6 * limit:
        return 1.0  # to eight digits; scipy returns NaN there
    tails = nct.sf(limit, pairs - 1, shift), nct.cdf(-limit, pairs - 1, shift)
    return float(np.nan_to_num(tails).sum())  # and NaN for an empty tail


def detectable(std: float, pairs: int, comparisons: int = 1) -> float:
    """The smallest true difference that a paired t-test finds with a probability of 80 %.

    Args:
        std: standard deviation of the differences, > 0.
        pairs: how many, 2 or more.
        comparisons: how many are made at once (default: 1).

    Example:
        >>> round(detectable(std=1.0, pairs=10), 3)
        0.996
    """
    from scipy.optimize import brentq

    largest = 1.0
    while power(largest, 1, pairs, comparisons) < POWER:
        largest *= 2
    # solve_power of statsmodels is wrong for a few pairs and many comparisons.
    return std * float(brentq(lambda x: power(x, 1, pairs, comparisons) - POWER, 0, largest))


def pairs_needed(difference: float, std: float, comparisons: int = 1) -> int | None:
    """The number of pairs that find a true difference with a probability of 80 %.

    Args:
        difference: the true one, > 0.
        std: standard deviation of the differences, > 0.
        comparisons: how many are made at once (default: 1).

    Returns:
        2 or more; None if a million is not enough.

    Example:
        >>> pairs_needed(difference=1.0, std=1.0)
        10
    """
    n = bisect.bisect_left(
        range(10**6 + 1), POWER, lo=2, key=lambda n: power(difference, std, n, comparisons)
    )
    return n if n <= 10**6 else None


def disagreement(first: Mapping[int, str], other: Mapping[int, str]) -> dict[str, Any] | None:
    """McNemar's exact test on the test samples of all seeds, each paired with itself.

    All seeds share the same samples, which are therefore not independent: the test says whether
    these networks differ, not whether those of other seeds would.

    Args:
        first: by seed, one digit per sample, 1 if it is right.
        other: the same.

    Returns:
        The number of ``seeds``, of the samples that ``only_first`` or ``only_other`` gets right,
        and ``p``; None if no seed has both, of the same length.

    Source: McNemar, *Note on the sampling error of the difference between correlated
    proportions or percentages*, Psychometrika 12 (1947);
    ``statsmodels.stats.contingency_tables.mcnemar``.

    Example:
        >>> disagreement({0: "1100"}, {0: "1011"})
        {'seeds': 1, 'only_first': 1, 'only_other': 2, 'p': 1.0}
    """
    seeds = [k for k in {*first} & {*other} if len(first[k]) == len(other[k]) > 0]
    if not seeds:
        return None
    from statsmodels.stats.contingency_tables import mcnemar

    pairs = [pair for seed in seeds for pair in zip(first[seed], other[seed], strict=True)]
    first_only, other_only = pairs.count(("1", "0")), pairs.count(("0", "1"))
    p = float(mcnemar([[0, first_only], [other_only, 0]], exact=True).pvalue)
    return {"seeds": len(seeds), "only_first": first_only, "only_other": other_only, "p": p}
