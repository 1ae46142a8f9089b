"""Shows the progress of long computations."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_EVERY = 60.0  # seconds


def shown(items: Collection[T], label: str, show: bool = True) -> Iterator[T]:
    """Yields items and shows their progress on stderr: a bar on a terminal, else a line a minute.

    Args:
        items: to iterate over.
        label: names the work.
        show: show the progress (default: True)

    Example:
        >>> list(shown(range(3), "steps"))
        [0, 1, 2]
    """
    if show and sys.stderr.isatty():
        yield from tqdm(items, label, leave=False, delay=1)
        return
    said = time.monotonic()
    for done, item in enumerate(items):
        if show and time.monotonic() - said >= _EVERY:
            print(f"{label}: {done:,} of {len(items):,}", file=sys.stderr, flush=True)
            said = time.monotonic()
        yield item
