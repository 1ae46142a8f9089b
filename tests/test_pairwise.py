from itertools import combinations, product

import pytest

from tests.pairwise import pairwise


@pytest.mark.parametrize("sizes", [(2,), (3, 2), (4, 3, 2), (13, 6, 14), (2, 2, 2, 2, 2)])
def test_every_pair_is_there_in_few_rows(sizes):
    axes = [[f"{i}.{k}" for k in range(size)] for i, size in enumerate(sizes)]
    rows = pairwise(*axes)
    for i, j in combinations(range(len(axes)), 2):
        assert {(row[i], row[j]) for row in rows} == {*product(axes[i], axes[j])}
    assert all(value in axis for row in rows for value, axis in zip(row, axes, strict=True))
    *_, second, largest = sorted([1, *sizes])
    assert len(rows) <= 1.25 * second * largest + len(sizes)
    assert rows == pairwise(*axes)


def test_a_pair_still_meets_where_some_rows_are_not_allowed():
    axes = [range(4), range(3), range(5)]
    possible = {row for row in product(*axes) if row[0] + row[1] < 4}
    rows = pairwise(*axes, allowed=lambda i, j, k: i + j < 4)
    assert possible.issuperset(rows)
    for i, j in combinations(range(3), 2):
        assert {(row[i], row[j]) for row in rows} == {(row[i], row[j]) for row in possible}
