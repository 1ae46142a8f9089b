"""Folders to write into, and files that are whole whenever somebody looks, also after a kill."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# Of a disk, of what a user may use of it, and of a file.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def has_scheme(path: str | Path) -> bool:
    """Whether a path is one of Classy Vision's path manager, as ``s3://bucket/run``.

    Example:
        >>> has_scheme("s3://bucket/run"), has_scheme(Path("s3://bucket/run")), has_scheme("a:/b")
        (True, True, False)
    """
    slashes = "/" if isinstance(path, Path) else "//"  # a Path has lost one
    return re.match(rf"[A-Za-z][\w+.-]*:{slashes}", os.fspath(path)) is not None


def check_scheme(path: str, label: str) -> None:
    """Refuses a path that Classy Vision's path manager would take for a local one.

    Args:
        path: with or without a scheme.
        label: who gives it, for the message.

    Raises:
        ValueError: nobody has registered a handler of the scheme.

    Source: https://github.com/facebookresearch/iopath; Classy Vision's ``generic/util.py``.

    Example:
        >>> check_scheme("s3://bucket/run", "--checkpoint_folder")
        Traceback (most recent call last):
        ValueError: --checkpoint_folder s3://bucket/run: no path handler is registered for s3://; \
import a module that registers one with fvcore's PathManager (custom_imports)
    """
    from fvcore.common.file_io import PathManager  # which the core does without

    handler = PathManager._PathManager__get_path_handler(path)
    if has_scheme(path) and handler is PathManager._native_path_handler:
        raise ValueError(
            f"{label} {path}: no path handler is registered for {path.partition('://')[0]}://; "
            "import a module that registers one with fvcore's PathManager (custom_imports)"
        )


def check_local(path: str | Path, label: str) -> None:
    """Refuses a path with a scheme where files are written that only a local disk can hold.

    Args:
        path: with or without a scheme.
        label: who gives it, for the message.

    Raises:
        ValueError: it has a scheme.

    Example:
        >>> check_local("s3://bucket/run", "--output_folder")
        Traceback (most recent call last):
        ValueError: --output_folder must be a local folder, not 's3://bucket/run'
    """
    if has_scheme(path):
        text = re.sub(r":/+", "://", os.fspath(path), count=1)
        raise ValueError(f"{label} must be a local folder, not {text!r}")


def no_room(error: BaseException | None) -> OSError | None:
    """What says that a disk is full, among an error and those that led to it; None if nothing.

    Example:
        >>> no_room(ValueError()) is None, no_room(OSError(errno.ENOSPC, "No space left"))
        (True, OSError(28, 'No space left'))
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return error
        error = error.__cause__ or error.__context__
    return None


def no_room_text(error: OSError) -> str:
    """What :func:`no_room` found, and the file where it is known.

    Example:
        >>> no_room_text(OSError(errno.ENOSPC, "No space left on device", "log.jsonl"))
        'No space left on device: log.jsonl'
    """
    return ": ".join(text for text in (error.strerror, error.filename) if text)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Gives the error of a full disk the path that it lacks.

    Args:
        path: that is written in the ``with`` block.

    Example:
        >>> with writing(Path("log.jsonl")):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        OSError: [Errno 28] No space left on device: 'log.jsonl'
    """
    try:
        yield
    except Exception as error:
        full = no_room(error)
        if full is not None and full.filename is None:
            full.filename = os.fspath(path)
        raise


def first_existing(path: Path) -> Path:
    """The path itself if it is there, else the nearest folder above it that is.

    Example:
        >>> first_existing(Path("/no/such/folder"))
        PosixPath('/')
    """
    return next(p for p in (path, *path.parents) if p.exists())


def temporary(path: Path) -> Path:
    """Where :func:`atomic_write` writes what will be ``path``."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` once it is whole and on the disk.

    A kill at any moment leaves the old file or the new one, and perhaps a temporary file,
    which the next write overwrites. An error in the ``with`` block leaves the old file.

    Args:
        path: of the file; its folder is there.

    Source: https://man7.org/linux/man-pages/man2/fsync.2.html, of the folder too.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "numbers")
        >>> with atomic_write(path) as file:
        ...     _ = file.write(b"1 2 3")
        ...     path.exists()
        False
        >>> path.read_text(), temporary(path).exists()
        ('1 2 3', False)
    """
    new = temporary(path)
    try:
        with writing(path), new.open("wb") as file:
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
