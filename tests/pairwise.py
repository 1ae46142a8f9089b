"""Fewer rows than the full product of some lists, in which every two values still meet."""

from itertools import combinations, product


def pairwise(*axes, allowed=lambda *values: True):
    """Few rows of one value per axis in which every pair of values of two axes occurs.

    Most faults need no more than two conditions to show (Kuhn et al., *Software Fault
    Interactions and Implications for Software Testing*, 2004). What only shows where three meet
    belongs together on one axis.

    Args:
        *axes: lists of values.
        allowed: says of one value per axis whether they may form a row (default: always); pairs
            that no such row has are left out.

    Returns:
        The rows, always the same ones, in the order of the product.
    """
    indices = product(*(range(len(axis)) for axis in axes))
    rows = [row for row in indices if allowed(*_values(axes, row))]
    pairs = [frozenset(combinations(enumerate(row), 2)) for row in rows]
    missing, chosen = set().union(*pairs), []
    candidates = dict.fromkeys(range(len(rows)))
    gain = len(axes) * (len(axes) - 1) // 2
    while missing:
        found = next((i for i in candidates if len(pairs[i] & missing) >= gain), None)
        if found is None:
            gain -= 1
            continue
        chosen.append(found)
        del candidates[found]
        missing -= pairs[found]
    return [_values(axes, rows[i]) for i in sorted(chosen)]


def _values(axes, row):
    return tuple(axis[k] for axis, k in zip(axes, row, strict=True))
