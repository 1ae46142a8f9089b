import math

import numpy as np
import pytest
from scipy import stats

from classy_gc.commands.compare.statistics import (
    detectable,
    disagreement,
    holm,
    paired_difference,
    pairs_needed,
    power,
    spread,
)


def test_difference_computed_by_hand():
    # 1, 2, 3, 4, 5: mean 3, standard deviation √2.5, standard error √0.5, t = 3·√2 = 4.243;
    # the table of Student's t has 2.776 for 4 degrees of freedom.
    difference = paired_difference([10, 20, 30, 40, 50], [11, 22, 33, 44, 55])
    assert difference["pairs"] == 5
    assert difference["mean"] == pytest.approx(3)
    assert difference["low"] == pytest.approx(3 - 2.776 * math.sqrt(0.5), abs=1e-3)
    assert difference["high"] == pytest.approx(3 + 2.776 * math.sqrt(0.5), abs=1e-3)
    assert difference["p"] == pytest.approx(0.0132, abs=1e-4)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_difference_as_scipy(n):
    first, other = np.random.default_rng(n).normal(size=(2, n))
    difference = paired_difference(first, other)
    test = stats.ttest_rel(other, first)
    interval = test.confidence_interval(0.95)
    numbers = [difference[key] for key in ("pairs", "mean", "low", "high", "p")]
    assert numbers == pytest.approx(
        [n, np.mean(other - first), interval.low, interval.high, test.pvalue]
    )
    assert difference["std"] == pytest.approx(np.std(other - first, ddof=1))


@pytest.mark.parametrize(
    ("first", "other", "pairs", "mean"),
    [
        ([1.0, None], [None, 2.0], 0, None),
        ([1.0, 2.0, None], [None, 3.0, 9.0], 1, 1.0),
        ([1.0, math.nan], [2.0, 2.0], 1, 1.0),
        # The first two differences are both 0.02, but not equal in floating point.
        ([0.95, 0.94], [0.97, 0.96], 2, 0.02),
        ([0.1 + 0.2, 0.3], [0.3, 0.3], 2, 0.0),
    ],
    ids=["no pair", "one pair", "one is NaN", "all the same", "none at all"],
)
def test_difference_without_interval(first, other, pairs, mean):
    difference = paired_difference(first, other)
    assert difference == {"pairs": pairs} | ({} if mean is None else {"mean": pytest.approx(mean)})


def test_spread_as_numpy():
    values = [0.9, 0.93, 0.97]
    wanted = {"n": 3, "mean": np.mean(values), "std": np.std(values, ddof=1)}
    assert spread(values) == pytest.approx(wanted)
    assert spread([]) == {"n": 0, "mean": None, "std": None}


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03 times 3, 2, 1; none may be smaller than the one before.
    p = {"a": 0.03, "b": 0.01, "c": None, "d": 0.02}
    assert holm(p) == pytest.approx({"a": 0.04, "b": 0.03, "d": 0.04})
    assert holm({0: 0.5, 1: 0.9}) == {0: 1.0, 1: 1.0}
    assert holm({"a": None}) == {}


@pytest.mark.parametrize(("size", "n"), [(0.5, 5), (1.0, 10), (2.0, 4), (0.0, 6)])
def test_power_as_drawn(size, n):
    samples = np.random.default_rng(0).normal(size, 1.0, size=(40_000, n))
    found = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert power(size, 1.0, n) == pytest.approx(found.mean(), abs=0.01)


@pytest.mark.parametrize("n", [2, 5, 50])
@pytest.mark.parametrize(("std", "comparisons"), [(0.01, 1), (3.0, 1), (3.0, 16)])
def test_what_is_detectable_is_found_in_four_of_five(std, comparisons, n):
    size = detectable(std, n, comparisons)
    assert power(size, std, n, comparisons) == pytest.approx(0.8)
    assert pairs_needed(size * 1.001, std, comparisons) == n


def test_pairs_needed_as_in_tables():
    # Cohen's tables: a medium effect, d = 0.5, needs 34 pairs; a large one, 0.8, needs 15.
    assert pairs_needed(0.5, 1.0) == 34
    assert pairs_needed(0.8, 1.0) == 15


def test_disagreement_computed_by_hand():
    # 1 of 6 as an exact binomial test at 1/2: 2·(1 + 6)/2^6.
    found = disagreement({0: "1000001", 3: "1"}, {0: "0111110", 3: "11", 4: "1"})
    assert [*found.values()] == [1, 2, 5, pytest.approx(2 * (1 + 7 + 21) / 2**7)]
    assert [*disagreement({0: "11"}, {0: "11"}).values()] == [1, 0, 0, 1.0]
    assert disagreement({0: "1"}, {1: "1"}) is None
