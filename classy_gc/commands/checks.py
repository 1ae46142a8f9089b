"""What several commands check of their flags, and how they show progress."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from classy_gc.files import check_folder, check_local


def show_progress(text: str) -> None:
    """Replaces the line on a terminal's stderr; prints nothing elsewhere.

    Args:
        text: the line, or nothing to clear it.
    """
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def check_least(args: argparse.Namespace, **least: int) -> None:
    """Refuses integers that are too small; one that nobody gave, None, is not.

    Args:
        args: with the flags.
        **least: flag: the smallest that is allowed.

    Raises:
        ValueError: naming the flag, what is allowed, and the value.

    Example:
        >>> check_least(argparse.Namespace(seeds=0), seeds=1)
        Traceback (most recent call last):
        ValueError: --seeds must be an integer >= 1, not 0
    """
    for flag, minimum in least.items():
        value = getattr(args, flag)
        if value is not None and value < minimum:
            raise ValueError(f"--{flag} must be an integer >= {minimum}, not {value}")


def check_seed(args: argparse.Namespace) -> None:
    """Refuses a seed that numpy would not take.

    Args:
        args: with ``seed``.

    Raises:
        ValueError: naming the flag, what is allowed, and the value.

    Source: https://numpy.org/doc/stable/reference/random/legacy.html, *RandomState*.

    Example:
        >>> check_seed(argparse.Namespace(seed=-1))
        Traceback (most recent call last):
        ValueError: --seed must be an integer from 0 to 4294967295, not -1
    """
    if not 0 <= args.seed < 2**32:
        raise ValueError(f"--seed must be an integer from 0 to {2**32 - 1}, not {args.seed}")


def check_output_folder(folder: Path) -> None:
    """Refuses a folder that cannot be made or written into, or is on no local disk.

    Args:
        folder: what ``--output_folder`` gives.

    Raises:
        ValueError: naming the folder, or the one above it that is there.

    Example:
        >>> check_output_folder(Path("/dev/null/results"))
        Traceback (most recent call last):
        ValueError: --output_folder /dev/null/results: /dev/null is no writable folder (Not a
        directory)
    """
    check_local(folder, "--output_folder")
    check_folder(folder, "--output_folder")


def check_picture(path: str, flag: str = "--output") -> None:
    """Refuses what cannot become a picture, before anything is computed for it.

    Args:
        path: what the flag gives.
        flag: which it is (default: ``--output``)

    Raises:
        ValueError: no ``.png`` file, no folder to write it into, or no matplotlib to draw it.

    Example:
        >>> check_picture("bars.pdf")
        Traceback (most recent call last):
        ValueError: --output must be the path of a .png file, not 'bars.pdf'
    """
    file = Path(path)
    if file.suffix != ".png" or file.is_dir():
        raise ValueError(f"{flag} must be the path of a .png file, not {path!r}")
    if not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        raise ValueError(f"{flag} {path}: there is no writable folder {file.parent}")
    if not importlib.util.find_spec("matplotlib"):
        raise ValueError("the picture needs matplotlib: pip install 'classy-gc[examples]'")
