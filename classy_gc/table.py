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
    fields = [f"{{:{'>' if numbers and i else '<'}{width}}}" for i, width in enumerate(widths)]
    return "\n".join("  ".join(fields).format(*row).rstrip() for row in rows)
