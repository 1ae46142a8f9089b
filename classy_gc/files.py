"""Folders to write into, and files that are whole whenever somebody looks, also after a kill."""

from __future__ import annotations

import errno
import fcntl
import functools
import logging
import os
import re
import tempfile
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


def no_room(error: BaseException | None) -> str:
    """What a full disk says, among an error and those that led to it; empty if none does.

    Args:
        error: caught while files were written.

    Returns:
        The reason, and the file where it is known.

    Example:
        >>> no_room(ValueError())
        ''
        >>> no_room(OSError(errno.ENOSPC, "No space left on device", "log.jsonl"))
        'No space left on device: log.jsonl'
    """
    full = _no_room(error)
    return ": ".join(text for text in (full.strerror, full.filename) if text) if full else ""


def _no_room(error: BaseException | None) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return error
        error = error.__cause__ or error.__context__
    return None


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
        full = _no_room(error)
        if full and full.filename is None:
            full.filename = os.fspath(path)
        raise


def check_folder(folder: Path, label: str) -> None:
    """Refuses a folder that cannot be made or written into, or that is on no local disk.

    Args:
        folder: it need not be there, and is not made.
        label: what gives it, for the message.

    Raises:
        ValueError: naming the folder, and the nearest one above it that is there.

    Example:
        >>> check_folder(Path("/dev/null/results"), "--output_folder")
        Traceback (most recent call last):
        ValueError: --output_folder /dev/null/results: /dev/null is no writable folder (Not a
        directory)
    """
    if has_scheme(folder):
        text = re.sub(r":/+", "://", os.fspath(folder), count=1)
        raise ValueError(f"{label} must be a local folder, not {text!r}")
    there = folder
    try:
        there = next(p for p in (folder, *folder.parents) if p.exists())
        with tempfile.TemporaryFile(dir=there):  # root may write anywhere, and yet cannot
            pass
    except OSError as error:
        raise ValueError(
            f"{label} {folder}: {there} is no writable folder ({error.strerror})"
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps every other process out of a folder that locks it too; a kill gives it free.

    Where the file system has no locks, a warning says so.

    Args:
        path: of a folder or a file that is there.

    Raises:
        ValueError: another process has it.

    Source: https://man7.org/linux/man-pages/man2/flock.2.html

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with locked(folder), locked(folder):
        ...     pass
        Traceback (most recent call last):
        ValueError: /tmp/...: another run writes there now
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(f"{path}: another run writes there now") from None
    except OSError as error:
        _warn_once(f"{path} cannot be locked ({error.strerror}): let one run at a time write there")
    try:
        yield
    finally:
        os.close(descriptor)


@functools.cache
def _warn_once(text: str) -> None:
    logging.warning(text)


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
            _sync(file.fileno(), path.parent)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk.

    Where the file system cannot tell, a warning says so.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor, folder)
    finally:
        os.close(descriptor)


def _sync(descriptor: int, folder: Path) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno == errno.EIO or _no_room(error):
            raise
        _warn_once(f"{folder}: a crash of the machine may lose what is written ({error.strerror})")
