"""Progress on a terminal."""

import sys


def show_progress(text: str) -> None:
    """Replaces the line on a terminal's stderr; prints nothing elsewhere.

    Args:
        text: the line, or nothing to clear it.
    """
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
