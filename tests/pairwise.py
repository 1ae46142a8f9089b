"""Rows of a grid in which every two values still meet, in place of the full product."""

from itertools import combinations, product


def pairwise(*axes):
    """Few rows of one value an axis such that every pair of values of two axes is in one.

    Most faults need no more than two conditions to show (Kuhn et al., *Software Fault
    Interactions and Implications for Software Testing*, 2004). What only shows where three meet
    belongs together on one axis.

    Args:
        *axes: lists of values.

    Returns:
        The rows, always the same ones, in the order of the product.
    """
    rows = list(product(*(range(len(axis)) for axis in axes)))
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
    return [tuple(axis[k] for axis, k in zip(axes, rows[i], strict=True)) for i in sorted(chosen)]
