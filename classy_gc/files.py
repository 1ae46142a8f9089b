"""Folders to write into, and files that are whole whenever somebody looks, also after a kill."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def nearest(path: Path) -> Path:
    """The path itself if it is there, else the nearest folder above it that is.

    Example:
        >>> nearest(Path("/no/such/folder"))
        PosixPath('/')
    """
    return next(p for p in (path, *path.parents) if p.exists())


def temporary(path: Path) -> Path:
    """Where :func:`replaced` writes what will be ``path``."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` once it is whole and on the disk.

    A kill at any moment leaves the old file or the new one, and perhaps a temporary file,
    which the next write overwrites. An error in the ``with`` block leaves the old file.

    Args:
        path: of the file; its folder is there.

    Source: https://man7.org/linux/man-pages/man2/fsync.2.html, of the folder too.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "numbers")
        >>> with replaced(path) as file:
        ...     _ = file.write(b"1 2 3")
        ...     path.exists()
        False
        >>> path.read_text(), temporary(path).exists()
        ('1 2 3', False)
    """
    new = temporary(path)
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
