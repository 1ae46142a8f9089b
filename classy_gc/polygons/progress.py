"""Shows the progress of long computations."""

import sys
from collections.abc import Collection, Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def shown(items: Collection[T], label: str) -> Iterable[T]:
    """Yields items and shows their progress on stderr: a bar on a terminal, else a line a minute.

    Args:
        items: to iterate over.
        label: names the work.

    Example:
        >>> list(shown(range(3), "steps"))
        [0, 1, 2]
    """
    options = {"desc": label, "leave": False, "delay": 1}
    if not sys.stderr.isatty():
        options |= {"delay": 60, "mininterval": 60, "bar_format": "{desc}: {n} of {total}\n"}
    return tqdm(items, **options)
