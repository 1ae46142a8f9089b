"""Formats tables as text."""

from collections.abc import Iterable
from typing import Any


def aligned(rows: Iterable[Iterable[Any]], numbers: bool = False) -> str:
    """Formats rows of cells as text in columns.

    Args:
        rows: with the same number of cells each.
        numbers: set all columns but the first flush right (default: False)

    Example:
        >>> print(aligned([["name", "lr"], ["weight", 0.1]]))
        name    lr
        weight  0.1
    """
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if numbers and i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
