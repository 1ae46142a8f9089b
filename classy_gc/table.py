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

    def padded(column: int, cell: str) -> str:
        width = widths[column]
        return cell.rjust(width) if numbers and column else cell.ljust(width)

    lines = (map(padded, range(len(row)), row) for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def counted(count: int, noun: str) -> str:
    """A number and what it counts.

    Args:
        count: the number.
        noun: in the singular, with a plural in -s.

    Example:
        >>> counted(1, "seed"), counted(1200, "seed")
        ('1 seed', '1,200 seeds')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
